"""Port and register of cores; a core turns the bytes of updates into the bodies of messages.

A core keeps no state. The pipeline knows which events were seen before, which slots are valid, and a pool's mints.
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
"""Errors that are raised for bytes without the expected form. The errors of msgspec are ValueErrors."""


TransactionView: TypeAlias = LogsUpdate | TransactionUpdate


class Unread(NamedTuple):
    """Event whose meaning could not be read. `reason` is an error's class name, or `incomplete` where fields lack."""

    program: str
    event: str
    reason: str
    detail: str

    @classmethod
    def of(cls, program: str, event: str, error: Exception) -> "Unread":
        """Return the event or account as unread because of an error."""
        return cls(program, event, type(error).__name__, str(error)[:200])


class AccountText(msgspec.Struct, frozen=True, gc=False):
    """Account as its message shows it. `name` is the layout's name, None for an account without a layout.

    `body` is the message's body as JSON text. `values` are the fields that the account's meaning reads.
    """

    name: str | None
    body: bytes
    values: Mapping[str, Any]


class EventText(msgspec.Struct, frozen=True, gc=False):
    """Event as its messages show it.

    Its `path` and `ordinal` come from this update, and may differ between log lines and the whole transaction.
    `event.data` holds only the fields that the event's meaning reads.
    """

    event: DecodedEvent
    body: EventBody


class TransactionText(msgspec.Struct, frozen=True, gc=False):
    """Transaction as its messages show it. `events` leaves out events that can't be encoded; `unread` lists them."""

    events: Sequence[EventText]
    instructions: Sequence[NamedInstruction]
    body: bytes
    unread: Sequence[Unread] = ()


class Core(Protocol):
    """Reader of updates, by the layouts of the loaded programs. Pure, except that it counts drift per program.

    All cores return the same bytes. The slot, signature and source in a body come from `origin`. `account` raises one
    of UNREADABLE for data that can't be encoded.
    """

    name: str

    def account(self, update: AccountUpdate, event_id: str, origin: Origin) -> AccountText:
        """Return the account with the whole body of its message."""

    def transaction(self, update: TransactionView, origin: Origin, *, truncated: bool) -> TransactionText:
        """Return the bodies of the transaction and of its events. `truncated` is True where a node cut the logs."""


CORES: Final[Mapping[str, str]] = MappingProxyType(
    {"python": "headrace.cores.python:PythonCore", "rust": "headrace.cores.rust:RustCore"}
)
"""All cores, the slowest first. The core in Rust needs the package `headrace-native`."""

AUTO: Final = "auto"
"""Name in settings for the fastest core that is installed."""


def open_core(name: str, programs: Programs) -> Core:
    """Return the named core for these programs. Raises ConfigError if the core is unknown or not installed."""
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
