"""The state of a topic on its way to one client: read as of a place in the log, sent page by page."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

from headrace.bus import Bus
from headrace.cache import Snapshot, Snapshots
from headrace.fanout.catch_up import PAGE, CatchUp, Sift, catch_up
from headrace.model.errors import TransientError
from headrace.model.events import Message
from headrace.protocol import frames
from headrace.protocol.frames import Framer

PAGE_BYTES: Final = 65_536
"""Frames in one page; a single item may be longer."""

READS_MAX: Final = 8


class Pages:
    """What is left of a snapshot: at least one page, so that also an empty state is told."""

    def __init__(self, topic: str, snapshot: Snapshot) -> None:
        self._topic, self._snapshot = topic, snapshot
        self._items = deque(snapshot.items)
        self._number = 1
        self.left = True

    def next_page(self, framer: Framer) -> bytes:
        """The frame of the next page; after the last, `left` is False."""
        items: list[bytes] = []
        room = PAGE_BYTES
        while self._items:
            item = framer(self._items[0])
            room -= len(item)
            if items and room < 0:
                break
            items.append(item)
            self._items.popleft()
        self.left = bool(self._items)
        self._number += 1
        at, slot, complete = self._snapshot.at, self._snapshot.as_of_slot, self._snapshot.complete
        following = self._number if self.left else None
        return frames.snapshot(self._topic, at, slot, items, following, complete=complete)


async def read_state(
    bus: Bus, cache: Snapshots, topic: str, held: Sequence[Message], replay_max: int, sift: Sift
) -> tuple[Snapshot, CatchUp]:
    """The state, and what follows it: the log after it joined to `held`, as `catch_up` says. Both are sifted.

    Raises TransientError when bus or cache is away, or when the log never reaches back to the state.
    """
    for _ in range(READS_MAX):
        top = await bus.top(topic)  # before the cache is asked: what comes in between is in the log after it
        snapshot = await cache.snapshot(topic) or Snapshot(top, [], top.offset == 0, None)
        pages = [await sift(page) for page in _in_pages(snapshot.items)]
        found = await catch_up(bus, topic, snapshot.at, held, replay_max, sift)
        if found.recovered:
            return snapshot._replace(items=list(chain.from_iterable(pages))), found
    raise TransientError("the topic's state and its log could not be joined")


def _in_pages(items: Sequence[Message]) -> Iterator[list[Message]]:
    return (list(items[start : start + PAGE]) for start in range(0, len(items), PAGE))
