"""The state of a topic on its way to one client, page by page."""

from collections import deque
from typing import Final

from headrace.cache import Snapshot
from headrace.protocol import frames
from headrace.protocol.frames import Framer

PAGE_BYTES: Final = 65_536
"""Bytes of the frames in one page; a single longer item is sent all the same."""


class Pages:
    """The part of a snapshot that is yet to send: at least one page, so that a client hears of an empty state too."""

    def __init__(self, topic: str, snapshot: Snapshot) -> None:
        self._topic, self._snapshot = topic, snapshot
        self._items = deque(snapshot.items)
        self._number = 1
        self.left = True

    def next_page(self, framer: Framer) -> bytes:
        """Take the frame of the next page; after the last, `left` is False."""
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
