"""The queue between bus and cache: who waits for a slow cache, and what is said about a loss."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import pytest

from headrace.bus import BusSettings
from headrace.cache import CacheSettings, CacheWriter, Snapshot
from headrace.cache.feed import CacheFeed
from headrace.cache.memory import MemoryCache
from headrace.model.errors import FencedError, TransientError
from headrace.model.events import Label, Message, Position, Publication
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from tests.local_bus import LocalBus

TOPIC = "accounts:pump"


class SlowWriter:
    """A writer that waits until it is let go, and is away as often as `failures` says."""

    def __init__(self, inner: CacheWriter) -> None:
        self.inner, self.open, self.failures = inner, asyncio.Event(), 0
        self.open.set()

    async def apply(self, messages: Sequence[Message]) -> None:
        await self._wait()
        await self.inner.apply(messages)

    async def forget(self, topics: Collection[str]) -> None:
        await self._wait()
        await self.inner.forget(topics)

    async def _wait(self) -> None:
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise TransientError("the cache is away")


class FedCache:
    """A memory cache, fed from a bus through a slow writer."""

    def __init__(self, writer: SlowWriter, feed: CacheFeed, cache: MemoryCache, bus: LocalBus) -> None:
        self.writer, self.feed, self.cache, self.bus = writer, feed, cache, bus

    async def put(self, key: str, size: int = 1, topic: str = TOPIC) -> None:
        label = Label(key, f"{key}-id", 1, certain=False)
        await self.bus.publish([Publication.on(topic, "event", b"x" * size, label)])


@asynccontextmanager
async def fed_cache(queue_bytes: int = 1000, clock: ManualClock | None = None) -> AsyncIterator[FedCache]:
    clock, metrics = clock or ManualClock(), Metrics()
    bus, cache = LocalBus(BusSettings(), clock, "gen"), MemoryCache(CacheSettings(), metrics)
    writer = SlowWriter(await cache.claim())
    feed = CacheFeed(bus, cache, writer, clock, metrics, queue_bytes)
    running = asyncio.create_task(feed.run())
    try:
        yield FedCache(writer, feed, cache, bus)
    finally:
        running.cancel()
        await asyncio.wait([running])
        feed.close()


def keys(snapshot: Snapshot | None) -> list[str]:
    assert snapshot is not None
    return [message.label.key for message in snapshot.items if isinstance(message.label, Label)]


async def test_a_slow_cache_holds_up_no_publisher_but_whoever_wants_a_snapshot() -> None:
    async with fed_cache() as fed:
        fed.writer.open.clear()
        await fed.put("A")
        await fed.put("B")
        assert await fed.cache.snapshot(TOPIC) is None
        asked = asyncio.create_task(fed.feed.snapshot(TOPIC))
        await asyncio.sleep(0.01)
        assert not asked.done()
        fed.writer.open.set()
        assert keys(await asked) == ["A", "B"]


async def test_a_snapshot_has_everything_that_was_delivered_before_the_question() -> None:
    async with fed_cache() as fed:
        for number in range(20):
            await fed.put(f"key {number}")
            found = await fed.feed.snapshot(TOPIC)
            assert found is not None
            assert (found.at, len(found.items)) == (Position("gen", number + 1), number + 1)


async def test_a_queue_that_is_full_makes_snapshots_incomplete_instead_of_wrong() -> None:
    async with fed_cache(queue_bytes=100) as fed:
        await fed.put("A")
        assert keys(await fed.feed.snapshot(TOPIC)) == ["A"]
        fed.writer.open.clear()
        for key in "BCDE":
            await fed.put(key, size=60)
        await fed.put("other", topic="account:X")
        fed.writer.open.set()
        assert await fed.feed.snapshot(TOPIC) is None, "D and E were dropped, and nobody knows what they retracted"
        assert await fed.feed.snapshot("account:X") is None
        await fed.put("F")
        found = await fed.feed.snapshot(TOPIC)
        assert found is not None
        assert (keys(found), found.complete) == (["F"], False)


async def test_a_cache_that_is_away_refuses_snapshots_and_gets_every_message_later() -> None:
    clock = ManualClock()
    async with fed_cache(clock=clock) as fed:
        fed.writer.failures = 2
        await fed.put("A")
        with pytest.raises(TransientError, match="away"):
            await fed.feed.snapshot(TOPIC)
        with pytest.raises(TransientError, match="away"):
            await fed.feed.snapshot(TOPIC)
        await fed.put("B")
        for _ in range(3):
            await clock.advance(5.0)
        assert keys(await fed.feed.snapshot(TOPIC)) == ["A", "B"]


async def test_a_new_epoch_empties_the_state_without_a_message() -> None:
    async with fed_cache() as fed:
        await fed.put("A")
        await fed.bus.renew()
        assert await fed.feed.snapshot(TOPIC) is None
        await fed.put("B")
        found = await fed.feed.snapshot(TOPIC)
        assert found is not None
        assert (keys(found), found.complete, found.at) == (["B"], True, Position("gen-1", 1))


async def test_a_feed_ends_when_another_writer_has_the_state() -> None:
    clock, metrics = ManualClock(), Metrics()
    bus, cache = LocalBus(BusSettings(), clock, "gen"), MemoryCache(CacheSettings(), metrics)
    feed = CacheFeed(bus, cache, await cache.claim(), clock, metrics)
    await cache.claim()
    await bus.publish([Publication.on(TOPIC, "event", b"x", Label("A", "a", 1, certain=False))])
    with pytest.raises(FencedError):
        await feed.run()
