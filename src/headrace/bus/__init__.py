"""The bus carries messages to the gateway and keeps each topic's recent history: port and register."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from headrace.adapters import Register
from headrace.config import Setting
from headrace.model.errors import ConfigError
from headrace.model.events import Message, Position, Publication

Lane: TypeAlias = Literal["ingest", "orders", "broadcasts"]
"""The topics that one writer publishes on; `lanes.lane_of` returns the lane of a topic."""


class BusSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[bus]`: which bus, and the bounds that every bus keeps. The settings of a bus extend these."""

    kind: Annotated[
        str,
        Setting(
            "the bus, by its name in the register (`memory`, `redis`); `auto`: as MESSAGE_BROKER_ENABLED says",
            env=("BUS_KIND",),
        ),
    ] = "auto"

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
            "most bytes of all messages kept; beyond it the least recently used topic loses its own",
            env=("BUS_HISTORY_BYTES",),
        ),
    ] = 512 * 1024 * 1024
    topics_max: Annotated[
        int,
        msgspec.Meta(ge=1),
        Setting("most topics kept; beyond it the least recently used is forgotten", env=("BUS_TOPICS_MAX",)),
    ] = 50_000


Sink: TypeAlias = Callable[[Sequence[Message]], None]
"""Takes live messages in batches, on the event loop; must be quick, must not raise, and must not keep the sequence.

If a sink raises all the same, the other sinks still get the batch, which stays appended. Then the error is raised
again.
"""


class Change(NamedTuple):
    """Change of logs, other than by messages.

    `new_epoch`: the log of each topic started again. Its history is gone, and its next message has offset 1 of another
    epoch. `incomplete`: messages of these topics were lost on their way to this process, so the next message of each
    does not follow the last. Only topics that have messages here are named.
    """

    kind: Literal["new_epoch", "incomplete"]
    topics: Collection[str]


ChangeSink: TypeAlias = Callable[[Change], None]
"""Takes a change at once: after the last message before it, and before the first message after it."""


class Batch(NamedTuple):
    """Publications of one lane that are appended together or not at all.

    `id` is unique among the batches of one writer. With `new_epoch` every topic of the lane first starts a new epoch.
    `positions`: the writer asks for the position of each message, which few writers need.
    """

    id: int
    publications: Sequence[Publication]
    new_epoch: bool = False
    positions: bool = False


class History(NamedTuple):
    """A page of a topic's log. `top` is the log's newest position.

    `complete` is False if messages directly after `since` are gone (size, age, another epoch). Then `messages` is
    empty: a page never has only a part of what was asked for.
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
        """Return a batch of this writer with a new id. Nothing is published yet."""

    async def publish(self, batch: Batch) -> Sequence[Position]:
        """Append the batch; return the position of each publication on each of its topics, if the batch asks.

        Raises TransientError if the outcome is unknown: the batch may have been appended, now or later. Then publish
        the same batch again. If it was appended, the repeat returns the first positions and appends nothing, as long as
        fewer than `REPEATS` other batches of the lane were appended since (after that: InvariantError). Raises
        FencedError, with nothing appended, if another writer has the lane: then stop.
        """


class Subscription(Protocol):
    """The topics that one sink wants. They may change at any time; a change takes effect with the next message."""

    def add(self, topic: str) -> None:
        """Deliver the messages of this topic, too."""

    def remove(self, topic: str) -> None:
        """Stop delivering the messages of this topic, unless its kind is subscribed."""

    def close(self) -> None:
        """Stop delivering. Idempotent."""


class Bus(Protocol):
    """Every topic is a log: within an epoch, offsets count from 1 without a gap.

    A message is carried as it was published, body and label, without being read. A publication on several topics
    becomes one message on each, with the same body, in the order of its topics.
    Handles: any number of handles of a topic may be in use, on any number of buses. If a handle's topic was forgotten,
    or started a new epoch, the handle publishes on the topic that now has the name.
    Lanes: a topic belongs to one lane, and a lane has one writer. A writer is refused once its lane was claimed with a
    greater token, in whichever process.
    Order: the batches of a writer that awaits each answer are appended in its order, and a batch's messages in its own
    order. Every sink gets each topic in offset order, without repeats. Missing messages are reported as
    `incomplete` before the message after them. The order between two lanes is not defined.
    Atomicity: a batch is appended as a whole. A batch belongs to one lane.
    Delivery: `history`, `top` and `topics` answer from this process's view of the logs, which is also what sinks get. A
    message is in the history exactly if the sinks had it, so what `history` returned and what a sink gets next fit
    together by offset. The view may lag behind `publish`; `open` returns once it has caught up.
    Epochs: readers can only compare them for equality. A topic never gets an epoch that it had before. A new epoch is
    reported as `new_epoch`.
    Bounds: each topic keeps at most `history_size` messages for at most `history_ttl_s`, and all topics together at
    most `history_bytes`. If messages are missing, `complete` says so. The number of topics is bounded; a forgotten
    topic starts a new epoch.
    Slow consumers: there is no queue here. A slow sink slows the view but loses nothing. Slow clients are up to the
    sink.
    """

    @property
    def shared(self) -> bool:
        """Return whether other processes may be on this bus."""

    async def claim(self, lane: Lane, token: int | None = None) -> Writer:
        """Become the writer of a lane. The token comes from the lease that makes this process the writer.

        Without a token the newest claim wins. Raises FencedError unless the token is greater than all earlier ones.
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

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError while messages do not reach all processes on this bus."""

    async def close(self) -> None:
        """Release what the bus holds; later calls raise TransientError."""


REPEATS: Final = 64
"""Number of a lane's last batches that are remembered, so that a repeat is recognised."""

BUSES: Final = Register[Bus]("bus", {"memory": "headrace.bus.memory:MemoryBus", "redis": "headrace.bus.redis:RedisBus"})
"""All buses. `bus_kind` returns the name of the one that is used."""


def bus_kind(settings: BusSettings, *, broker: bool | None, redis_url: str | None) -> str:
    """Return the bus to use: the one that `[bus] kind` names, else `redis` or `memory` as `broker` says.

    `broker` is MESSAGE_BROKER_ENABLED; unset (None), the bus is on Redis if there is a REDIS_URL. Raises ConfigError if
    `broker` and `[bus] kind` contradict each other.
    """
    if settings.kind == "auto":
        return "redis" if broker or (broker is None and redis_url) else "memory"
    if broker is not None and broker == (settings.kind == "memory"):
        given = f"{settings.kind}, and MESSAGE_BROKER_ENABLED={str(broker).lower()}"
        raise ConfigError("bus.kind", given, "one of the two alone (MESSAGE_BROKER_ENABLED is enough)")
    return settings.kind
