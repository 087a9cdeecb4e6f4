"""The bus carries messages from the flows to the gateway and keeps each topic's recent past: port and register."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Final, NamedTuple, Protocol, TypeAlias

import msgspec

from headrace.config import Setting
from headrace.model.events import Message, Position, Publication


class BusSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds that every bus keeps. A bus is built as `Class(settings, clock, generation)`."""

    history_size: Annotated[
        int, msgspec.Meta(ge=0, le=1_000_000), Setting("messages kept per topic", env=("BUS_HISTORY_SIZE",))
    ] = 1_000
    history_ttl_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("how long a message is kept, in seconds", env=("BUS_HISTORY_TTL_S",))
    ] = 300.0
    history_bytes: Annotated[
        int,
        msgspec.Meta(ge=1024),
        Setting(
            "bytes of all messages kept; beyond, the least recently used topic loses its own",
            env=("BUS_HISTORY_BYTES",),
        ),
    ] = 512 * 1024 * 1024
    topics_max: Annotated[
        int, msgspec.Meta(ge=1), Setting("topics kept; the least recently used is forgotten", env=("BUS_TOPICS_MAX",))
    ] = 50_000


Sink: TypeAlias = Callable[[Sequence[Message]], None]
"""Gets live messages in batches, on the event loop; must be quick and must not raise. If one raises all the same, the
other sinks still get the batch, which stays appended; then `publish` passes the error on, so it is seen."""


class History(NamedTuple):
    """A page of a topic's log. `complete` is False when messages right after `since` are gone (size, ttl, other epoch):
    then `messages` is empty, never a part passed off as the whole. `top` is the log's newest position."""

    messages: list[Message]
    top: Position
    complete: bool


class Bus(Protocol):
    """Every topic is a log: offsets count from 1 without a hole within an epoch.

    A message is carried as it was published, body and label; neither is looked at.
    Order: `publish` appends a batch in its order; every sink sees each topic in offset order, without holes or repeats.
    Atomicity: a batch is appended as one; what `history` returned and what a sink gets next fit together by offset.
    Bounds: each topic keeps at most `history_size` messages for at most `history_ttl_s`, all together `history_bytes`;
    topics are bounded in number, and one that was forgotten comes back under a new epoch, so an old position is never
    taken for a new one.
    Slow consumers: there is no queue here. A sink runs within `publish`, so one that is slow slows the flow, and what
    feeds it, and loses nothing; patience with slow clients is the sink's own affair.
    """

    async def publish(self, batch: Sequence[Publication]) -> list[Position]:
        """Append; returns the position of each. Raises TransientError if the bus is away: then nothing was appended."""

    async def history(self, topic: str, since: Position | None, limit: int, *, reverse: bool = False) -> History:
        """Messages after `since` (None: all kept), oldest first; `reverse`: those before `since`, newest first."""

    async def top(self, topic: str) -> Position:
        """The newest position; offset 0 for a topic without messages."""

    def attach(self, sink: Sink) -> Callable[[], None]:
        """Deliver all later messages of all topics to `sink`; call the result to stop."""

    def topics(self) -> Mapping[str, Position]:
        """The topics that have messages here, with their newest positions (a snapshot)."""

    async def renew(self) -> None:
        """Start a new epoch on every topic: history is dropped, offsets restart (a recording starts over)."""

    async def close(self) -> None:
        """Release what it holds; later calls raise TransientError."""


BUSES: Final[Mapping[str, str]] = MappingProxyType({"memory": "headrace.bus.memory:MemoryBus"})
"""Name → "module:Class", imported when first used."""
