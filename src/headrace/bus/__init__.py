"""The bus carries messages from the flows to the gateway and keeps each topic's recent past: port and register."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from headrace.adapters import Register
from headrace.config import Setting
from headrace.model.events import Message, Position, Publication

Lane: TypeAlias = Literal["ingest", "orders", "broadcasts"]
"""The topics that one writer publishes on; `lanes.lane_of` names the lane of a topic."""


class BusSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[bus]`: which bus, and the bounds that every bus keeps. The settings of a bus extend these."""

    kind: Annotated[str, Setting("the bus, by its name in the register", env=("BUS_KIND",))] = "memory"

    lanes: Annotated[
        tuple[Lane, ...],
        Setting(
            "lanes that this process publishes on, each of which one process on a bus can; `ingest` is left out on a"
            " shared bus while the stream is off at the start",
            env=("BUS_LANES",),
        ),
    ] = ("ingest", "orders", "broadcasts")
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
"""Gets live messages in batches, on the event loop; must be quick, must not raise, and must not keep the sequence.

If a sink raises all the same, the other sinks still get the batch, which stays appended; then the error is passed on.
"""


class Change(NamedTuple):
    """Change of logs, apart from messages.

    `new_epoch`: the log of each topic began anew; its history is gone and its next message has offset 1 of another
    epoch. `incomplete`: messages of these topics were lost on their way to this process; the next message of each does
    not follow on the last. Topics that have no messages here are not among them.
    """

    kind: Literal["new_epoch", "incomplete"]
    topics: Collection[str]


ChangeSink: TypeAlias = Callable[[Change], None]
"""Gets changes at once, between the last message before the change and the first after it; else as `Sink`."""


class Batch(NamedTuple):
    """Publications of one lane that are appended together or not at all.

    `id` is unique among the batches of one writer. With `new_epoch` every topic of the lane begins a new epoch first.
    `positions`: the writer asks for the position of each message, which few need.
    """

    id: int
    publications: Sequence[Publication]
    new_epoch: bool = False
    positions: bool = False


class History(NamedTuple):
    """A page of a topic's log. `top` is the log's newest position.

    `complete` is False when messages right after `since` are gone (size, age, another epoch): then `messages` is empty,
    never a part passed off as the whole.
    """

    messages: list[Message]
    top: Position
    complete: bool


class Writer(Protocol):
    """The one writer of a lane, until another writer claims the lane with a greater token."""

    @property
    def lane(self) -> Lane:
        """The lane that was claimed."""

    def batch(self, publications: Sequence[Publication], *, new_epoch: bool = False, positions: bool = False) -> Batch:
        """Return a batch of this writer under an id of its own. Nothing is published yet."""

    async def publish(self, batch: Batch) -> Sequence[Position]:
        """Append the batch; return the position of each publication on each of its topics, if the batch asks.

        Raises TransientError when the answer is unknown: the batch may have been appended, now or later. Publish the
        same batch again then: a batch that was appended is answered with its first positions and appends nothing, as
        long as fewer than `REPEATS` other batches of the lane were appended since (InvariantError beyond). Raises
        FencedError, having appended nothing, when another writer has the lane: stop then.
        """


class Subscription(Protocol):
    """The interest of one sink, which may change at any time; every change of it holds from the next message on."""

    def add(self, topic: str) -> None:
        """Deliver the messages of this topic, too."""

    def remove(self, topic: str) -> None:
        """Deliver the messages of this topic no longer, unless its kind is subscribed."""

    def close(self) -> None:
        """Deliver nothing any more. Idempotent."""


class Bus(Protocol):
    """Every topic is a log: offsets count from 1 without a hole within an epoch.

    A message is carried as it was published, body and label; neither is looked at. A publication on several topics is
    one message of each, with one body, in the order of its topics.
    Handles: of one topic any number may be in use, on any number of buses. One whose topic was forgotten, or began a
    new epoch, publishes on the topic that has the name now.
    Lanes: a topic belongs to one lane, and a lane has one writer. A writer whose lane was claimed with a greater token
    is refused, wherever that happened.
    Order: the batches of a writer are appended in the order in which they are first answered, each in its own order.
    Every sink sees each topic in offset order, without repeats; holes are reported as `incomplete` before the message
    after the hole. Nothing is promised about the order of two lanes.
    Atomicity: a batch is appended as one. A batch concerns one lane.
    Delivery: `history`, `top` and `topics` answer from this process's view of the logs, which is also what sinks see: a
    message is in the history exactly if the sinks had it, and what `history` returned and what a sink gets next fit
    together by offset. The view may lag behind `publish`; `open` returns when it has caught up.
    Epochs: opaque to readers, never one that the topic had before. A new epoch is reported as `new_epoch`.
    Bounds: each topic keeps at most `history_size` messages for at most `history_ttl_s`, all together `history_bytes`;
    fewer is always reported (`complete`). Topics are bounded in number; a topic that was forgotten begins a new epoch.
    Slow consumers: there is no queue here. A slow sink slows the view, and loses nothing; patience with slow clients
    is the sink's own affair.
    """

    @property
    def shared(self) -> bool:
        """Return whether other processes may be on this bus."""

    async def claim(self, lane: Lane, token: int | None = None) -> Writer:
        """Become the writer of a lane. The token comes from the lease that makes this process the writer.

        Without a token the newest claim wins. Raises FencedError unless the token is greater than all before it.
        """

    def subscribe(
        self, sink: Sink, *, kinds: Collection[str] | None = (), changed: ChangeSink | None = None
    ) -> Subscription:
        """Deliver later messages of all topics of these kinds (None: of every topic), and of topics that are added.

        The kind of a topic is its name up to the colon. `changed` gets the changes of the same topics.
        """

    async def history(self, topic: str, since: Position | None, limit: int, *, reverse: bool = False) -> History:
        """Return messages after `since` (None: all kept), oldest first; `reverse`: before `since`, newest first."""

    async def top(self, topic: str) -> Position:
        """Return the newest position; offset 0 for a topic without messages."""

    def topics(self) -> Mapping[str, Position]:
        """Return the topics that have messages here, with their newest positions."""

    async def close(self) -> None:
        """Release what it holds; later calls raise TransientError."""


REPEATS: Final = 64
"""Batches of a lane that are remembered, so that a repeat is recognised."""

BUSES: Final = Register[Bus]("bus", {"memory": "headrace.bus.memory:MemoryBus"})
"""All buses. `[bus] kind` names the one that is used."""
