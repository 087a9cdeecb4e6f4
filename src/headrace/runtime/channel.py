"""Bounded queues between tasks that say what they do when full, and count what they did."""

import asyncio
from collections import deque
from typing import Generic, Literal, TypeAlias, TypeVar

T = TypeVar("T")
WhenFull: TypeAlias = Literal["block", "drop_oldest", "disconnect"]


class ChannelClosed(Exception):  # noqa: N818  (an ending, not an error)
    """The channel is closed and, for a receiver, empty."""


class ChannelFull(Exception):  # noqa: N818
    """A `disconnect` channel overflowed: its consumer must be cut off. It is closed from then on."""


class Channel(Generic[T]):
    """Many producers, one consumer, one event loop, order kept.

    When `capacity` items wait, `put` under `block` waits for room, under `drop_oldest` discards the oldest item and
    counts it in `dropped`, under `disconnect` closes the channel and raises ChannelFull.
    """

    def __init__(self, capacity: int, when_full: WhenFull = "block", *, name: str = "") -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}, expected 1 or more")
        self.capacity, self.when_full, self.name = capacity, when_full, name
        self.received = self.dropped = 0
        self._items: deque[T] = deque()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        return self._closed

    async def put(self, item: T) -> None:
        """Append. Raises ChannelClosed after `close`, ChannelFull as the class says."""
        while not self.put_nowait(item):
            self._writable.clear()
            await self._writable.wait()

    def put_nowait(self, item: T) -> bool:
        """Append without waiting; False means a `block` channel has no room. Raises as `put` does."""
        if self._closed:
            raise ChannelClosed(self.name)
        if len(self._items) >= self.capacity:
            if self.when_full == "block":
                return False
            if self.when_full == "disconnect":
                self.close()
                raise ChannelFull(self.name)
            self._items.popleft()
            self.dropped += 1
        self._items.append(item)
        self.received += 1
        self._readable.set()
        return True

    async def get_batch(self, limit: int = 1024) -> list[T]:
        """The oldest items, 1 to `limit`; waits for the first. Raises ChannelClosed when closed and empty."""
        while not self._items:
            if self._closed:
                raise ChannelClosed(self.name)
            self._readable.clear()
            await self._readable.wait()
        items = self._items
        batch = [items.popleft() for _ in range(min(limit, len(items)))]
        self._writable.set()
        return batch

    def close(self) -> None:
        """Refuse new items; what waits can still be read. Idempotent."""
        self._closed = True
        self._readable.set()
        self._writable.set()
