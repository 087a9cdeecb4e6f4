"""Cores turn the bytes of updates into the bodies of messages: port and register.

A core knows no state: what was seen before, which slots stand and what a pool's mints are is the pipeline's to know.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import msgspec

from headrace.decoders.registry import Programs
from headrace.model.errors import BadInputError, ConfigError
from headrace.model.events import DecodedEvent, EventBody, NamedInstruction
from headrace.model.facts import Origin
from headrace.model.updates import AccountUpdate, LogsUpdate, TransactionUpdate

UNREADABLE: Final = (
    BadInputError,
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    AttributeError,
    RecursionError,
)
"""Errors by which bytes show that they fit no expectation; those of msgspec are ValueErrors."""


TransactionView: TypeAlias = LogsUpdate | TransactionUpdate


class Unread(NamedTuple):
    """An event whose meaning could not be read, and why: the name of an error, or `incomplete` for a lack of fields."""

    program: str
    event: str
    reason: str
    detail: str


class AccountText(msgspec.Struct, frozen=True, gc=False):
    """Account as its message shows it. `name` is that of the layout, None where there is none.

    `values` are the fields that the account's meaning reads.
    """

    name: str | None
    body: bytes
    values: Mapping[str, Any]


class EventText(msgspec.Struct, frozen=True, gc=False):
    """Event as its messages show it, in the place that this view of the transaction gives.

    `event.data` holds the fields that the event's meaning reads, and no others.
    """

    event: DecodedEvent
    body: EventBody


class TransactionText(msgspec.Struct, frozen=True, gc=False):
    """Transaction as its messages show it. `unread` are events that can't be encoded; these are left out."""

    events: Sequence[EventText]
    instructions: Sequence[NamedInstruction]
    body: bytes
    unread: Sequence[Unread] = ()


class Core(Protocol):
    """Reads updates by the layouts of the programs on board. Pure but for the drift counters of the programs.

    All cores return the same bytes, whose slot, signature and source are those of `origin`. `account` raises one of
    UNREADABLE for data that can't be encoded.
    """

    name: str

    def account(self, update: AccountUpdate, event_id: str, origin: Origin) -> AccountText:
        """Return the account's whole body."""

    def transaction(self, update: TransactionView, origin: Origin, *, truncated: bool) -> TransactionText:
        """Return the bodies of the transaction and of its events. `truncated`: a node cut its log lines."""


CORES: Final[Mapping[str, str]] = MappingProxyType(
    {"python": "headrace.cores.python:PythonCore", "rust": "headrace.cores.rust:RustCore"}
)
"""All cores, the slowest first. That in Rust is there where the package `headrace-native` is installed."""

AUTO: Final = "auto"
"""The fastest core that is installed."""


def open_core(name: str, programs: Programs) -> Core:
    """Return the core of this name for these programs. Raise ConfigError for one that is unknown or not installed."""
    if name == AUTO:
        return _open(installed()[-1], programs)
    if name not in CORES:
        raise ConfigError("programs.core", name, f"one of {AUTO}, {', '.join(CORES)}")
    if name not in installed():
        raise ConfigError("programs.core", name, "a core that is installed: make fast, in a clone")
    return _open(name, programs)


@cache
def installed() -> tuple[str, ...]:
    """Return the names of the cores that can be opened, the slowest first."""
    return ("python", "rust") if find_spec("headrace_native") is not None else ("python",)


def _open(name: str, programs: Programs) -> Core:
    module, _, class_name = CORES[name].partition(":")
    core: Core = getattr(import_module(module), class_name)(programs)
    return core
