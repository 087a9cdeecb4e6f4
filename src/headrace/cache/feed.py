"""Feeds a cache from the bus through a bounded queue, so that a slow cache slows this reader and not the bus."""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from typing import Final, TypeAlias

import structlog

from headrace.bus import Bus, Change
from headrace.cache import CacheWriter, Snapshot, Snapshots
from headrace.model.errors import TransientError
from headrace.model.events import Message
from headrace.model.states import STATEFUL
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics

QUEUE_BYTES: Final = 32 * 1024 * 1024
"""Maximum number of bytes of bodies, and of names of topics to forget, that wait for the cache."""

_Entry: TypeAlias = "list[Message] | frozenset[str] | asyncio.Future[None]"
"""Messages to apply, topics to forget, or the place in the queue of a caller that waits for a snapshot."""

_log = structlog.get_logger("cache")


class CacheFeed:
    """Reads the topics that have a state, and applies their messages to the cache as its writer.

    Queue: messages and changes wait, at most `queue_bytes` of bodies and names of topics. If the queue is full,
    everything that comes until it is empty is dropped and counted. The topics concerned are then forgotten, so that
    their snapshots have `complete` false instead of silently lacking messages.
    Consistency: `snapshot` returns a state that contains everything that the bus had delivered before the call.
    """

    def __init__(
        self,
        bus: Bus,
        cache: Snapshots,
        writer: CacheWriter,
        clock: Clock,
        metrics: Metrics,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self._cache, self._writer, self._clock, self._queue_bytes = cache, writer, clock, queue_bytes
        self._entries: deque[_Entry] = deque()
        self._bytes = 0
        self._dropped: set[str] = set()
        self._wake = asyncio.Event()
        self._away: TransientError | None = None
        self._busy = False
        self._dropped_messages = metrics.counter("cache_dropped", "Messages that came faster than the cache took them")
        self._subscription = bus.subscribe(self._take, kinds=STATEFUL, changed=self._change)

    async def run(self) -> None:
        """Apply what comes, until cancelled. Raises FencedError if another writer has the state."""
        while True:
            if not self._entries and self._dropped:
                self._entries.append(frozenset(self._dropped))
                self._bytes += sum([len(topic) for topic in self._dropped])
                self._dropped.clear()
            if not self._entries:
                self._wake.clear()
                await self._wake.wait()
                continue
            entry = self._entries.popleft()
            if isinstance(entry, asyncio.Future):
                if not entry.done():  # otherwise the caller no longer waits
                    entry.set_result(None)
                continue
            self._busy = True
            await self._apply(entry)
            self._busy = False
            self._bytes -= _bytes_of(entry) if isinstance(entry, list) else sum([len(topic) for topic in entry])

    async def snapshot(self, topic: str) -> Snapshot | None:
        """Return the state with everything that the bus had delivered before the call; None if nothing is known.

        Raises TransientError while the cache is unavailable.
        """
        if self._away is not None:
            raise self._away
        if self._entries or self._busy or self._dropped:
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._entries.append(place)
            self._wake.set()
            await place
        return await self._cache.snapshot(topic)

    def close(self) -> None:
        """Take no more messages from the bus."""
        self._subscription.close()

    async def _apply(self, entry: "list[Message] | frozenset[str]") -> None:
        backoff = Backoff(initial_s=0.05, max_s=5.0)
        while True:
            try:
                if isinstance(entry, list):
                    await self._writer.apply(entry)
                else:
                    await self._writer.forget(entry)
            except TransientError as error:
                if not backoff.tries:
                    _log.warning("cache_away", error=str(error))
                self._refuse(error)
                await self._clock.sleep(backoff.next_s())
            else:
                self._away = None
                return

    def _refuse(self, error: TransientError) -> None:
        """Fail the callers that wait for a snapshot while the cache is unavailable."""
        self._away = error
        for entry in self._entries:
            if isinstance(entry, asyncio.Future) and not entry.done():
                entry.set_exception(error)

    def _take(self, messages: Sequence[Message]) -> None:
        size = _bytes_of(messages)
        if self._dropped or (self._bytes and self._bytes + size > self._queue_bytes):
            self._dropped.update(message.topic for message in messages)
            self._dropped_messages.inc(len(messages))
            return
        self._bytes += size
        self._entries.append(list(messages))
        self._wake.set()

    def _change(self, change: Change) -> None:
        size = sum([len(topic) for topic in change.topics])
        if self._dropped or (self._bytes and self._bytes + size > self._queue_bytes):
            self._dropped.update(change.topics)
            return
        self._bytes += size
        self._entries.append(frozenset(change.topics))
        self._wake.set()


def _bytes_of(messages: Collection[Message]) -> int:
    return sum([len(message.body) for message in messages])
