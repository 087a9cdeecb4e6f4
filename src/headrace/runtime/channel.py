"""Bounded queues between tasks. Each defines what happens when it is full, and counts the items that it dropped."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Literal, TypeAlias, TypeVar

T = TypeVar("T")
WhenFull: TypeAlias = Literal["block", "drop_oldest", "disconnect"]


class ChannelClosed(Exception):  # noqa: N818  (the end of a channel, not an error)
    """The channel is closed. A receiver gets this error only once the channel is also empty."""


class ChannelFull(Exception):  # noqa: N818
    """A channel with `disconnect` overflowed. It is now closed, and its consumer must be disconnected."""


class Channel(Generic[T]):
    """A queue of many producers and one consumer on one event loop. Items keep their order.

    `when_full` decides what `put` does when `capacity` items wait. `block` waits for space. `drop_oldest` discards the
    oldest item and counts it in `dropped`. `disconnect` closes the channel and raises ChannelFull. Blocked producers
    get space in the order in which they asked, so none starves. `put` yields to the event loop only when it waits.
    With `weigh`, the waiting items also weigh at most `weight_max` together. A single heavier item is accepted when the
    channel is empty.
    """

    def __init__(
        self,
        capacity: int,
        when_full: WhenFull = "block",
        *,
        name: str = "",
        weigh: Callable[[T], int] | None = None,
        weight_max: int = 0,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}, expected 1 or more")
        self.capacity, self.when_full, self.name = capacity, when_full, name
        self.received = self.dropped = self.weight = 0
        self._weigh, self._weight_max = weigh, weight_max
        self._items: deque[T] = deque()
        self._weights: deque[int] = deque()
        self._blocked: deque[tuple[asyncio.Future[None], T]] = deque()
        self._readable = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        return self._closed

    async def put(self, item: T) -> None:
        """Append an item. Waits, drops or raises ChannelFull, depending on `when_full`.

        Raises ChannelClosed after `close`, even in a call that is waiting at that time. A call that is cancelled while
        it waits does not append the item. If space was made in the same turn of the event loop, the item is appended in
        spite of the cancellation.
        """
        if self.put_nowait(item):
            return
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (room, item)
        self._blocked.append(entry)
        try:
            await room
        except asyncio.CancelledError:
            if room.cancelled():
                self._blocked = deque(waiting for waiting in self._blocked if waiting is not entry)
            raise

    def put_nowait(self, item: T) -> bool:
        """Append without waiting. False means that a `block` channel has no space. Raises the same errors as `put`."""
        if self._closed:
            raise ChannelClosed(self.name)
        while self._blocked or not self._has_room(item):  # a light item must not overtake a waiting heavy item
            if self.when_full == "block":
                return False
            if self.when_full == "disconnect":
                self.close()
                raise ChannelFull(self.name)
            self._take()
            self.dropped += 1
        self._append(item)
        return True

    async def get_batch(self, limit: int = 1024) -> list[T]:
        """Return the oldest items, 1 to `limit`, once there is at least one. Raises ChannelClosed if closed and empty.

        A cancelled call loses no item.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}, expected 1 or more")
        while not self._items:
            if self._closed:
                raise ChannelClosed(self.name)
            self._readable.clear()
            await self._readable.wait()
        batch = [self._take() for _ in range(min(limit, len(self._items)))]
        self._admit()
        return batch

    def close(self) -> None:
        """Refuse new items, and the items of blocked producers. Items in the channel can still be read. Idempotent."""
        self._closed = True
        self._readable.set()
        for room, _ in self._blocked:
            if not room.done():
                room.set_exception(ChannelClosed(self.name))
        self._blocked.clear()

    def _admit(self) -> None:
        """Append items of blocked producers while there is space, so that no later item precedes theirs."""
        while self._blocked and self._has_room(self._blocked[0][1]):
            room, item = self._blocked.popleft()
            if not room.done():  # done: the producer was cancelled, and its task has not run yet
                room.set_result(None)
                self._append(item)

    def _has_room(self, item: T) -> bool:
        if not self._items:
            return True
        if len(self._items) >= self.capacity:
            return False
        return self._weigh is None or self.weight + self._weigh(item) <= self._weight_max

    def _take(self) -> T:
        if self._weigh is not None:
            self.weight -= self._weights.popleft()
        return self._items.popleft()

    def _append(self, item: T) -> None:
        if self._weigh is not None:
            weight = self._weigh(item)
            self._weights.append(weight)
            self.weight += weight
        self._items.append(item)
        self.received += 1
        self._readable.set()
