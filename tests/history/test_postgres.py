"""Test the tables of a PostgreSQL history: segments that begin and go, and a server that is killed in mid-stream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any

import asyncpg
import pytest

from headrace.history import HISTORIES, Kept
from headrace.history.feed import HistoryFeed
from headrace.history.postgres.adapter import PostgresHistory
from headrace.history.rows import Extent, GapQuery, TradeQuery
from headrace.model.errors import ConfigError, TransientError
from headrace.model.facts import SlotChanged
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.testing import postgres
from tests.contracts.contexts import Opener
from tests.history_facts import key, trade
from tests.orders.store.servers import empty_database

START_S = 1_790_000_040
MIB = 1024 * 1024

Open = Callable[..., Awaitable[Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.running() as started:
        yield started


@pytest.fixture
async def place(server: postgres.Server) -> AsyncIterator[str]:
    async with empty_database(server.url) as url:
        yield url


@pytest.fixture
async def open_one(place: str) -> AsyncIterator[Open]:
    """Opens the same history each time, as another process would."""
    async with Opener(HISTORIES, "postgres") as opener:
        yield partial(opener.open, database_url=place)


def many(first_slot: int, count: int) -> list[Kept]:
    """Trades of so many slots, one a second, each slot announced."""
    facts: list[Kept] = []
    for slot in range(first_slot, first_slot + count):
        facts += [
            trade(slot, f"{slot}", time_s=START_S + slot, user=f"u{slot}"),
            SlotChanged(slot, "confirmed", None, "s"),
        ]
    return facts


async def slots_of(history: PostgresHistory, **query: Any) -> list[int]:
    found, before = list[int](), None
    while True:
        page = await history.trades(TradeQuery(before=before, limit=1000, **query))
        found += [item.slot for item in page.items]
        if page.next is None:
            return found
        before = page.next


async def names(place: str) -> list[str]:
    """The names of the tables of trades that are there."""
    db = await asyncpg.connect(place)
    try:
        sql = "select tablename from pg_tables where tablename like 'history\\_trades\\__%' order by 1"
        return [row[0] for row in await db.fetch(sql)]
    finally:
        await db.close()


async def test_a_full_segment_is_followed_by_another_and_the_oldest_goes(open_one: Open, place: str) -> None:
    history = await open_one(bytes_max=16 * MIB, age_s=2_500.0)
    await shorten(history, trades=1_000, measured=500)
    for start in range(0, 6_000, 500):
        await history.write(many(start, 500))
    kept = await slots_of(history)
    assert kept == list(range(5_999, kept[-1] - 1, -1))
    assert 2_500 < len(kept) < 5_000
    tables = await names(place)
    assert "history_trades_1" not in tables
    assert len(tables) == len(kept) // 1_000 + 1
    assert await history.extent() == Extent(kept[-1], 5_999)
    assert await slots_of(history, user=key(f"u{kept[-1]}")) == [kept[-1]]
    assert await slots_of(history, user=key("u0")) == []
    await history.close()
    again = await open_one()
    await again.write(many(5_990, 20))
    assert (await slots_of(again))[:11] == list(range(6_009, 5_998, -1))


async def test_a_segment_that_is_read_goes_later(open_one: Open, place: str) -> None:
    history = await open_one(age_s=60.0)
    await shorten(history, trades=10, measured=1)
    await history.write(many(0, 10))
    reader = await asyncpg.connect(place, server_settings={"search_path": "headrace"})
    async with reader.transaction():
        await reader.fetch("select * from history_trades_1")
        await history.write(many(1_000, 10))
        await history.write(many(1_010, 1))
        assert "history_trades_1" in await names(place)
    await reader.close()
    await shorten(history, trades=10, measured=1)
    await history.write(many(2_000, 1))
    assert "history_trades_1" not in await names(place)
    assert (await slots_of(history))[0] == 2_000


async def test_a_killed_server_loses_and_repeats_nothing(server: postgres.Server) -> None:
    async with Opener(HISTORIES, "postgres") as opener:
        await survive_a_kill(server, await opener.open(database_url=server.url))  # type: ignore[arg-type]


async def survive_a_kill(server: postgres.Server, history: PostgresHistory) -> None:
    feed = HistoryFeed(history, SystemClock(), Metrics(), buffer_bytes=64 * MIB)
    task = asyncio.create_task(feed.run())
    told: Sequence[Kept] = many(0, 4_000)
    async with asyncio.timeout(60):
        for start in range(0, len(told), 400):
            feed.hear(told[start : start + 400])
            await asyncio.sleep(0)
            if start == 2_000:
                await until(lambda: written(history))
                await asyncio.to_thread(server.kill)
                await until(lambda: faulty(feed))
                feed.hear(told[start : start + 400])  # once more, as after a reconnect of the source
                await asyncio.to_thread(server.start)
        feed.close()
        await task
        assert await slots_of(history) == list(range(3_999, -1, -1))
        assert (await history.gaps(GapQuery())).items == []
        await history.check(thorough=True)


async def test_another_process_reads_and_follows_the_writer(open_one: Open) -> None:
    first, second = await open_one(), await open_one()
    await first.write([trade(7, "a")])
    assert await slots_of(second) == [7]
    await second.check(thorough=False)
    with pytest.raises(TransientError, match="another process"):
        await second.write([trade(8, "b")])
    await first._clock.advance(29.0)
    await first.check(thorough=False)
    with pytest.raises(TransientError, match="another process"):
        await second.write([trade(8, "b")])
    await first._clock.advance(2.0)
    await first.check(thorough=False)  # idle for long, as a server that does not lead any more
    await second.write([trade(7, "a"), trade(8, "b")])
    assert await slots_of(first) == [8, 7]


async def test_a_newer_schema_is_refused(open_one: Open, place: str) -> None:
    await (await open_one()).close()
    db = await asyncpg.connect(place, server_settings={"search_path": "headrace"})
    await db.execute("insert into schema_version values (9999)")
    await db.close()
    with pytest.raises(ConfigError, match=r"DATABASE_URL: got a schema of version 9999, expected version \d+ or older"):
        await open_one()


async def shorten(history: PostgresHistory, *, trades: int, measured: int) -> None:
    """Let segments be full, and sizes be measured, after so few facts."""
    await history.write([])
    assert history._writing is not None
    history._writing._segment_trades, history._writing._measured_facts = trades, measured


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    while not await true():  # noqa: ASYNC110  (the feed reports to nobody)
        await asyncio.sleep(0.005)


async def written(history: PostgresHistory) -> bool:
    return (await history.extent()).last is not None


async def faulty(feed: HistoryFeed) -> bool:
    try:
        await feed.check(thorough=False)
    except TransientError:
        return True
    return False
