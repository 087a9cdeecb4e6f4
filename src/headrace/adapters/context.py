"""Lend parts of a process to the adapters that it opens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from headrace.decoders.registry import Programs
from headrace.model.errors import TransientError
from headrace.runtime.clock import Clock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.solana.rpc import Rpc

Patience: TypeAlias = Callable[[TransientError], None] | None
"""Receives the error of a server or file that is away when an adapter is opened. The adapter then opens, raises
TransientError from every verb, and connects later. None: `open` raises the error instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Parts of a process that an adapter may use between `open` and `close`.

    The process owns each part and closes none of them before the adapter is closed. `tasks` runs the adapter's own
    tasks; the adapter cancels them in `close`. `programs` returns the layouts of all programs, loaded with the first
    call, which takes a while: call it in a thread. `resolve` returns a program's id by name and raises KeyError for an
    unknown name. `generation` begins the epochs of all topics: random for a live service, so that no client takes one
    life of the service for another; the recording's id for a replay, which must be the same each time.
    """

    clock: Clock
    metrics: Metrics
    health: Health
    tasks: Supervisor
    rpc: Rpc
    programs: Callable[[], Programs]
    resolve: Callable[[str], str]
    generation: str
    patience: Patience = None
