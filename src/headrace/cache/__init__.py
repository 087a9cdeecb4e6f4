"""The cache keeps the state that a topic's messages add up to, for clients that come later: port and register."""

from collections.abc import Collection, Sequence
from typing import Annotated, Final, NamedTuple, Protocol

import msgspec

from headrace.adapters import Register
from headrace.config import Setting
from headrace.model.events import Message, Position


class CacheSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[cache]`: which cache, and the bounds that every cache keeps. The settings of a cache extend these."""

    kind: Annotated[str, Setting("the cache, by its name in the register", env=("CACHE_KIND",))] = "memory"

    items_max: Annotated[
        int,
        msgspec.Meta(ge=0),
        Setting(
            "most items kept for snapshots, and most topics; beyond it the item unchanged longest is dropped",
            env=("CACHE_MAX_ITEMS",),
        ),
    ] = 200_000
    bytes_max: Annotated[
        int,
        msgspec.Meta(ge=0),
        Setting(
            "most bytes of all items kept; beyond it the item unchanged longest is dropped", env=("CACHE_MAX_BYTES",)
        ),
    ] = 256 * 1024 * 1024


class Snapshot(NamedTuple):
    """The state of a topic directly after the message at `at`.

    For each key, `items` has its newest event, preceded by events that would count again if the newest were retracted.
    Keys without an event for the longest time come first. `complete`: nothing that was published in this epoch, and not
    retracted, is missing. `as_of_slot` is the highest slot of the topic's events, None if none has a slot.
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
        Raises TransientError if the cache is unavailable: then apply the same messages again. Raises FencedError, with
        nothing changed, if another writer has the state: then stop.
        """

    async def forget(self, topics: Collection[str]) -> None:
        """Forget the state of topics whose logs started again or lost messages. Raises the same errors as `apply`."""


class Snapshots(Protocol):
    """Where the state of topics can be read."""

    async def snapshot(self, topic: str) -> Snapshot | None:
        """Return the state of a topic; None if nothing of it is known.

        Raises TransientError if the cache is unavailable.
        """


class Cache(Snapshots, Protocol):
    """The state is a fold over a topic's messages in the order of their offsets, by the keys of their labels.

    A newer event of a key replaces the older one. An event that comes again under the same id replaces itself, as far
    back as events are remembered. A `retract` takes events back, and the events before them count again. A new epoch
    begins with an empty state.
    Consistency: a snapshot is the fold of all messages up to its `at` and of none after it. The state may lag behind
    the bus; `at` says where it is.
    Writer: one in a cluster; claims are fenced as on the bus.
    Bounds: if the state is too large, the key that has not changed for longest is forgotten. Snapshots of its topic are
    then no longer `complete` in this epoch. The same holds for a topic that the cache did not get from its first
    message on, and for a topic with a retract that reached back further than is remembered: 16 events of a key, and
    none before a certain event.
    """

    async def claim(self, token: int | None = None) -> CacheWriter:
        """Become the writer. Without a token the newest claim wins.

        Raises FencedError unless the token is greater than all earlier ones.
        """

    async def close(self) -> None:
        """Release what the cache holds."""


CACHES: Final = Register[Cache]("cache", {"memory": "headrace.cache.memory:MemoryCache"})
"""All caches. `[cache] kind` names the one that is used."""
