"""The hub's view of the outside: clients, their wires, and limits on its work."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from headrace.fanout.framing import Framing, a_line_each, one_each
from headrace.protocol.codes import CloseCode


class Wire(Protocol):
    """The transport of one client."""

    def write(self, data: bytes) -> None:
        """Send `data` after all unsent bytes. Never wait."""

    def get_write_buffer_size(self) -> int:
        """Return the number of unsent bytes."""


class Client:
    """One client of the hub. A transport or session extends this class with `cut_off` and `not_subscribed`.

    `framing` turns JSON texts into bytes for the wire; `batch` chooses NDJSON. `out` is the data that the current tick
    writes, usually a single bytes object. While `paused`, the socket is full, and the client is not a member of any
    group. Once `open` is False, nothing is written.
    """

    __slots__ = ("framing", "open", "out", "paused", "wire")

    def __init__(self, wire: Wire, *, batch: bool = False, framing: Framing | None = None) -> None:
        self.wire = wire
        self.framing = framing or (a_line_each if batch else one_each)
        self.open = True
        self.paused = False
        self.out: bytes | list[bytes] = b""

    def queue(self, data: bytes) -> None:
        """Add `data` to the data that the current tick writes to the client."""
        if isinstance(self.out, list):
            self.out.append(data)
        else:
            self.out = [self.out, data]

    def flush(self) -> None:
        """Write the current tick's data for the client, in one write."""
        out, self.out = self.out, b""
        if out and self.open:
            self.wire.write(b"".join(out) if isinstance(out, list) else out)

    def send(self, payload: bytes) -> None:
        """Write one frame now, after the current tick's data for the client."""
        if self.open:
            self.flush()
            self.wire.write(self.framing((payload,)))

    def cut_off(self, code: CloseCode) -> None:
        """Close the connection."""
        raise NotImplementedError

    def not_subscribed(self, topic: str) -> None:
        """Forget a subscription that could not be made. The hub sends the client the reason."""
        raise NotImplementedError


class HubLimits(Protocol):
    """Limits of one hub. They are read for each use, because they may change while the hub runs."""

    @property
    def recover_max(self) -> int:
        """Return the maximum number of messages that are replayed to, or held for, one subscription."""

    @property
    def filter_nodes_max(self) -> int:
        """Return the maximum number of nodes in all distinct filters on one topic."""

    @property
    def tick_ms(self) -> float:
        """Return the pause between two writes, in milliseconds."""


Limits: TypeAlias = Callable[[], HubLimits]
