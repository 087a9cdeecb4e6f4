"""A subscription: iterates over the values of one topic, and has the position to store."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from headrace.model.events import Position
from headrace.sdk.feed import Feed
from headrace.sdk.values import Value


class Subscription:
    """`async for value in subscription` yields every value of the topic, in order, none twice, to one reader.

    At most `Client(queue=…)` values wait for the reader. If there are more, the connection is not read for at most two
    seconds. After that, the subscription leaves its topic, and recovers once the reader has read all its values. A
    stuck reader therefore does not delay other readers, and still gets every value, or NotRecovered.
    End a subscription with `close()`, or use it as a context manager. A subscription without a reader leaves its topic
    once it is full.
    """

    def __init__(self, feed: Feed, emptied: Callable[[Feed], None], leave: Callable[[Feed], None]) -> None:
        self._feed, self._emptied, self._leave = feed, emptied, leave
        self._position = feed.last
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()

    @property
    def topic(self) -> str:
        return self._feed.wanted.topic

    @property
    def position(self) -> Position | None:
        """Position of the last value that the reader got.

        Store the position once the value is processed; `recover` continues after it. None until the server has sent the
        topic's position, and while a snapshot is read.
        """
        self._skip()
        return self._position

    @property
    def catching_up(self) -> bool:
        """True if the last value that the reader got had been missed, and came by recovery."""
        here, to = self._position, self._feed.missed_to
        return here is not None and to is not None and here.epoch == to.epoch and here.offset <= to.offset

    async def started(self) -> Self:
        """Wait until the server has accepted the subscription. Raises Refused."""
        while not self._feed.began:
            if self._feed.failure:
                raise self._feed.failure
            await self._wait()
        return self

    def close(self) -> None:
        """Stop following the topic. The iteration ends."""
        self._feed.closed = True
        self._feed.items.clear()
        self._leave(self._feed)
        self.wake()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Value:
        """Return the next value. Raises Refused after a final refusal of the topic or the client."""
        feed = self._feed
        while True:
            self._skip()
            if feed.items:
                value, self._position = feed.items.popleft()
                self._read()
                if value is not None:
                    return value
            elif feed.closed:
                raise StopAsyncIteration
            elif feed.failure:
                raise feed.failure
            else:
                await self._wait()

    def wake(self) -> None:
        """Make the reader check again, because the feed has changed."""
        self._changed.set()

    async def room(self) -> None:
        """Wait until the reader has taken a value."""
        while self._feed.full and not self._feed.closed:
            self._taken.clear()
            await self._taken.wait()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _skip(self) -> None:
        """Advance the position past items without a value."""
        items = self._feed.items
        while items and items[0].value is None:
            self._position = items.popleft().position
            self._read()

    def _read(self) -> None:
        self._taken.set()
        if not self._feed.items:
            self._emptied(self._feed)
