"""The cache keeps the state that the messages of a topic add up to, for those who come later: port and register."""

from collections.abc import Collection, Sequence
from typing import Annotated, Final, NamedTuple, Protocol

import msgspec

from headrace.adapters import Register
from headrace.config import Setting
from headrace.model.events import Message, Position


class CacheSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[cache]`: which cache, and the bounds that every cache keeps. The settings of a cache extend these."""

    kind: Annotated[str, Setting("the cache, by its name in the register", env=("CACHE_KIND",))] = "memory"

    items_max: Annotated[
        int,
        msgspec.Meta(ge=0),
        Setting("items kept for snapshots, and topics; the one unchanged longest goes", env=("CACHE_MAX_ITEMS",)),
    ] = 200_000
    bytes_max: Annotated[
        int,
        msgspec.Meta(ge=0),
        Setting("bytes of all items kept; the one unchanged longest goes", env=("CACHE_MAX_BYTES",)),
    ] = 256 * 1024 * 1024


class Snapshot(NamedTuple):
    """The state of a topic just after the message at `at`.

    `items` are, for each key, its newest event, after those that would stand again if it were retracted; keys that had
    no event for longest come first. `complete`: nothing is missing that was published in this epoch and still stands.
    `as_of_slot` is the highest slot of the topic's events, None where none has a slot.
    """

    at: Position
    items: Sequence[Message]
    complete: bool
    as_of_slot: int | None


class CacheWriter(Protocol):
    """The one writer of the state, until another writer claims it with a greater token."""

    async def apply(self, messages: Sequence[Message]) -> None:
        """Add messages to the state, each topic's in the order of their offsets; wait while the cache is slow.

        Messages that were applied before change nothing. A message that can't be read makes its topic incomplete.
        Raises TransientError when the cache is away: apply the same messages again then. Raises FencedError, having
        changed nothing, when another writer has the state: stop then.
        """

    async def forget(self, topics: Collection[str]) -> None:
        """Forget the state of topics whose logs began anew or lost messages. Raises as `apply` does."""


class Snapshots(Protocol):
    """Where the state of topics can be read."""

    async def snapshot(self, topic: str) -> Snapshot | None:
        """Return the state of a topic; None if nothing is known of it. Raises TransientError if the cache is away."""


class Cache(Snapshots, Protocol):
    """State is a fold: of a topic's messages in the order of their offsets, by the keys of their labels.

    A newer event of the same key takes the place of the older; an event that comes again under its id takes its own, as
    far back as is remembered. A `retract` takes events back: what stood before them stands again. A new epoch begins
    with nothing.
    Consistency: a snapshot is the fold of all messages up to its `at` and of none after it. The state may lag behind
    the bus; `at` says where it is.
    Writer: one in a cluster, whose claims are fenced as those of the bus.
    Bounds: when there is too much, the key that is unchanged longest is forgotten; snapshots of its topic are no longer
    `complete`, in this epoch. So are those of a topic that the cache did not get from its first message on, and of one
    where a retract reached back further than is remembered: 16 events of a key, and none before one that is certain.
    """

    async def claim(self, token: int | None = None) -> CacheWriter:
        """Become the writer. Without a token the newest claim wins.

        Raises FencedError unless the token is greater than all before it.
        """

    async def close(self) -> None:
        """Release what it holds."""


CACHES: Final = Register[Cache]("cache", {"memory": "headrace.cache.memory:MemoryCache"})
"""All caches. `[cache] kind` names the one that is used."""
