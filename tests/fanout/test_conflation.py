"""Conflation over real sockets: the latest of each key, records untouched, shared by those who ask for the same."""

import asyncio
from typing import Any

from headrace.fanout.feeds import Feed
from headrace.fanout.groups import Group
from headrace.fanout.windows import Windows
from headrace.model.events import Message, TopicEpoch
from headrace.protocol.selection import KEYS_MAX, Conflate
from headrace.runtime.clock import ManualClock
from tests.fanout.test_filters import TOPIC, feed_of, listen, mint_is, offsets
from tests.gateway.running_gateway import join, run_gateway

SLOWLY = {"key": "mint", "every_ms": 60_000}
"""A window that no test waits for: only what ends it before its time is seen."""

NODES_MAX = 1

QUICKLY = {"key": "mint", "every_ms": 50}


def mints(names: str) -> list[Any]:
    return [{"mint": name} for name in names]


async def test_the_latest_of_each_key_comes_at_the_end_of_the_window() -> None:
    async with run_gateway() as running:
        first, second = [await listen(running, conflate=QUICKLY) for _ in range(2)]
        assert len(feed_of(running).groups()) == 1
        await running.tell(TOPIC, *mints("ABCABA"))
        for raw in (first, second):
            assert await offsets(raw, 3) == [3, 5, 6]
        await running.tell(TOPIC, *mints("AA"))
        assert await offsets(first, 1) == [8]


async def test_records_and_events_without_the_key_are_never_left_out() -> None:
    async with run_gateway() as running:
        raw = await listen(running, conflate=QUICKLY)
        await running.tell(TOPIC, *mints("A"))
        await running.tell(TOPIC, {"event_ids": ["e"]}, kind="retract")
        await running.tell(TOPIC, {"mint": None}, {"other": 1}, {"mint": None}, *mints("AB"))
        await running.tell(TOPIC, {"gap_id": "g1"}, kind="gap")
        await running.tell(TOPIC, *mints("B"))
        assert await offsets(raw, 7) == [2, 3, 4, 5, 6, 8, 9]


async def test_a_filter_goes_first() -> None:
    async with run_gateway() as running:
        raw = await listen(running, conflate=QUICKLY, filter=mint_is("A", "B"))
        await running.tell(TOPIC, *mints("ACBCAC"))
        assert await offsets(raw, 2) == [3, 5]


async def test_a_client_that_joins_within_a_window_gets_only_newer_messages() -> None:
    async with run_gateway() as running:
        early = await listen(running, conflate={"key": "mint", "every_ms": 300})
        await running.tell(TOPIC, *mints("ABA"))
        late = await listen(running, conflate={"key": "mint", "every_ms": 300})
        await running.tell(TOPIC, *mints("C"))
        assert await offsets(early, 3) == [2, 3, 4]
        assert await offsets(late, 1) == [4]


async def test_recovery_is_one_window() -> None:
    async with run_gateway() as running:
        await running.tell(TOPIC, *mints("ABABAC"))
        raw = await join(running)
        raw.ask("subscribe", 1, topic=TOPIC, conflate=SLOWLY, recover={"epoch": "g", "offset": "1"})
        data = (await raw.json())["data"]
        assert (data["offset"], data["recovered"], data["replayed"]) == ("6", True, 3)
        assert await offsets(raw, 3) == [4, 5, 6]


async def test_more_keys_than_may_wait_end_the_window() -> None:
    async with run_gateway() as running:
        raw = await listen(running, conflate=SLOWLY)
        await running.tell(TOPIC, *({"mint": str(n)} for n in range(KEYS_MAX + 1)))
        assert await offsets(raw, KEYS_MAX + 1) == list(range(1, KEYS_MAX + 2))


def test_more_messages_than_may_wait_in_all_windows_end_them() -> None:
    """Each of many clients may ask for a window of its own, a minute long."""
    ended: list[Group] = []
    windows = Windows(ManualClock(), ended.append, held_max=5)
    feed = Feed(TOPIC, windows)
    groups = [feed.add(None, Conflate("mint", every_ms), NODES_MAX) for every_ms in (1000, 2000)]
    dirty: list[Group] = []

    def tell(mint: str, offset: int) -> None:
        feed.take(Message(TopicEpoch(TOPIC, "e"), "event", offset, b'"data":{"mint":"%b"}' % mint.encode()), dirty)

    for offset, mint in enumerate("ABBA", 1):
        tell(mint, offset)
    assert (windows.held, dirty) == (4, [])
    tell("C", 5)
    assert (windows.held, dirty) == (3, [groups[1]])
    assert [item.message.offset for item in groups[1].pending] == [3, 4, 5]
    for group in groups:
        feed.remove(group)
    assert (windows.held, len(windows), ended) == (0, 0, [])


async def test_stopping_sends_what_waits() -> None:
    async with run_gateway() as running:
        raw = await listen(running, conflate=SLOWLY)
        await running.tell(TOPIC, *mints("ABA"))
        stopping = asyncio.create_task(running.gateway.stop(5.0))
        assert await offsets(raw, 2) == [2, 3]
        assert await raw.closed() == 4001
        await stopping
