"""What only PostgreSQL can do to a store: commits out of order, connections that break, sessions that stand still."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from headrace.database.postgres_session import connect
from headrace.model.errors import ConfigError, InvariantError, TransientError
from headrace.model.orders import EventKind, OrderEvent, OrderStatus
from headrace.orders.store import Rate
from headrace.orders.store.postgres import PostgresStore
from headrace.orders.store.postgres import tail as postgres_tail
from headrace.orders.store.unreadable import Unreadable, UnreadableOrders
from headrace.runtime.clock import SystemClock
from headrace.testing.orders import new_order
from tests.orders.store.servers import empty_database

LEASE_MS = 60_000


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with empty_database(postgres_url) as url:
        yield url


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.at(url, SystemClock())
    yield store
    await store.close()


@pytest.fixture
async def others(url: str, store: PostgresStore) -> AsyncIterator[list["asyncpg.Connection[Any]"]]:
    """Sessions of other processes."""
    sessions = [await asyncpg.connect(url, server_settings={"search_path": "headrace"}) for _ in range(3)]
    yield sessions
    for session in sessions:
        await session.close()


async def append(session: "asyncpg.Connection[Any]", order_id: str, seq: int) -> None:
    columns = "order_id, user_id, seq, kind, status, at, data"
    sql = f"insert into order_events ({columns}) values ($1, 'u', $2, 'quoted', 'ROUTING', 1, '{{}}')"
    await session.execute(sql, order_id, seq)


def names(events: Sequence[OrderEvent | Unreadable]) -> list[str]:
    return [f"{event.order_id}{event.seq}" for event in UnreadableOrders().leave_out(events)]


async def test_rows_that_become_visible_late_are_news_once(others: list["asyncpg.Connection[Any]"]) -> None:
    early, late, reader = others
    mark = await postgres_tail.mark(reader)
    slow = early.transaction()
    await slow.start()
    await append(early, "a", 1)  # has the lower number, and commits last
    await append(late, "b", 1)
    first, mark = await postgres_tail.news(reader, mark, postgres_tail.Delivered())
    await append(late, "b", 2)
    second, mark = await postgres_tail.news(reader, mark, postgres_tail.Delivered())
    await slow.commit()
    third, mark = await postgres_tail.news(reader, mark, postgres_tail.Delivered())
    fourth, mark = await postgres_tail.news(reader, mark, postgres_tail.Delivered())
    assert [names(found) for found in (first, second, third, fourth)] == [["b1"], ["b2"], ["a1"], []]


async def test_one_look_gives_an_order_in_its_order_whatever_the_transactions_numbers(
    others: list["asyncpg.Connection[Any]"],
) -> None:
    numbered_first, other, reader = others
    mark = await postgres_tail.mark(reader)
    slow = numbered_first.transaction()
    await slow.start()
    await append(numbered_first, "z", 1)
    await append(other, "a", 1)
    await append(numbered_first, "a", 2)
    await slow.commit()
    found, _ = await postgres_tail.news(reader, mark, postgres_tail.Delivered())
    assert names(found) == ["a1", "a2", "z1"]


async def test_rows_of_a_restored_copy_are_not_news_for_ever(others: list["asyncpg.Connection[Any]"]) -> None:
    session, _, reader = others
    mark = await postgres_tail.mark(reader)
    await append(session, "a", 1)
    await session.execute("update order_events set txid = '9000000000'::xid8")
    assert (await postgres_tail.news(reader, mark, postgres_tail.Delivered()))[0] == []


async def test_a_broken_connection_is_transient_and_the_next_call_has_a_new_one(
    store: PostgresStore, others: list["asyncpg.Connection[Any]"]
) -> None:
    heard: list[OrderEvent] = []
    news = asyncio.Event()

    def hear(events: Sequence[OrderEvent]) -> None:
        heard.extend(events)
        news.set()

    store.attach(hear)
    following = asyncio.create_task(store.follow())
    await store.accept(new_order("a", 1), [], "")
    await others[0].execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'headrace'"
    )
    with pytest.raises(TransientError):
        await following
    for number in range(20):  # how soon the broken connection is noticed is the driver's business
        try:
            await store.accept(new_order(f"b{number}", 1), [], "")
        except TransientError:
            continue
        break
    else:
        raise AssertionError("never came back")
    assert await store.get("a") is not None
    async with asyncio.timeout(10):
        while names(heard)[-1:] != [f"b{number}1"]:  # who asked has the answer before anyone hears of it
            news.clear()
            await news.wait()
    assert names(heard)[0] == "a1"


async def test_a_session_that_stands_still_in_a_transaction_does_not_keep_its_orders(
    url: str, store: PostgresStore
) -> None:
    await store.accept(new_order("a", 1), [], "")
    await store.claim(1, 0, Rate(0))
    frozen = await connect(url)  # as a process that is stopped between two of its statements
    try:
        await frozen.execute("set idle_in_transaction_session_timeout = '100ms'")
        await frozen.execute("begin")
        await frozen.fetch("select id from orders for update")
        async with asyncio.timeout(10):
            while not await store.claim(1, LEASE_MS, Rate(0)):  # noqa: ASYNC110  (the server's clock ends it)
                await asyncio.sleep(0.02)
    finally:
        frozen.terminate()
    shown = await connect(url)
    assert await shown.fetchval("show idle_in_transaction_session_timeout") == "2s"
    shown.terminate()


async def test_a_process_that_follows_is_seen_by_the_others_until_it_ends(
    others: list["asyncpg.Connection[Any]"],
) -> None:
    session, reader = others[0], others[1]
    await postgres_tail.join(reader)
    assert not await postgres_tail.others_follow(reader)
    await postgres_tail.join(session)
    assert await postgres_tail.others_follow(reader)
    await session.close()
    async with asyncio.timeout(30):
        while await postgres_tail.others_follow(reader):  # noqa: ASYNC110  (the server ends the session when it likes)
            await asyncio.sleep(0.02)


async def test_a_value_that_the_database_cannot_take_fails_alone(store: PostgresStore) -> None:
    await store.accept(new_order("a", 1), [], "")
    results = await asyncio.gather(
        *[store.accept(new_order(order_id, 1), [], "") for order_id in ("b", "a", "c\0", "d")], return_exceptions=True
    )
    assert [type(result) is InvariantError for result in results] == [False, True, True, False]
    assert await store.get("d") is not None
    assert await store.get("a\0") is None
    assert await store.cancel("a\0", None) is None


async def test_many_processes_may_create_the_tables_at_once(postgres_url: str) -> None:
    async with empty_database(postgres_url) as url:
        stores = await asyncio.gather(*[PostgresStore.at(url, SystemClock()) for _ in range(5)])
        for store in stores:
            await store.close()


async def test_a_list_leaves_out_what_can_not_be_read(
    store: PostgresStore, others: list["asyncpg.Connection[Any]"]
) -> None:
    for order_id in "abcd":
        await store.accept(new_order(order_id, 1), [], "print")
    await others[0].execute("update orders set outcome = 'garbage' where id = 'c'")
    page = await store.list(user_id="u", status=None, mint=None, cursor=None, limit=2)
    assert ([order.id for order in page.orders], page.cursor) == (["d"], "c")
    page = await store.list(user_id="u", status=None, mint=None, cursor=page.cursor, limit=2)
    assert ([order.id for order in page.orders], page.cursor) == (["b", "a"], None)


async def test_a_newer_schema_and_a_wrong_url_are_configuration_errors(
    url: str, others: list["asyncpg.Connection[Any]"]
) -> None:
    await others[0].execute("insert into schema_version values (9999)")
    with pytest.raises(ConfigError, match="9999"):
        await PostgresStore.at(url, SystemClock())
    with pytest.raises(ConfigError):
        await PostgresStore.at(url.replace("headrace_test", "nowhere"), SystemClock())
    with pytest.raises(ConfigError):
        await PostgresStore.at("mysql://127.0.0.1/x", SystemClock())
    with pytest.raises(TransientError):
        await PostgresStore.at("postgresql://127.0.0.1:1/x", SystemClock())


KIND = EventKind.QUOTED


def event(order_id: str, seq: int) -> OrderEvent:
    return OrderEvent(
        order_id=order_id, user_id="u", seq=seq, kind=EventKind.QUOTED, status=OrderStatus.ROUTING, at_ms=1
    )


def test_every_event_is_delivered_once_and_in_order() -> None:
    told = postgres_tail.Delivered()
    assert names(told.next_of([event("a", 1), event("a", 2), event("b", 4)])) == ["a1", "a2"], "b3 is somebody else's"
    assert names(told.beyond([event("a", 1), event("a", 2), event("b", 3), event("b", 4)])) == ["b3", "b4"]
    assert names(told.beyond([event("a", 3), event("a", 4)])) == ["a3", "a4"]
    assert names(told.next_of([event("a", 3), event("b", 5)])) == ["b5"], "a3 was found before we knew it committed"


async def test_events_that_two_processes_commit_in_turn_are_delivered_in_order(url: str, store: PostgresStore) -> None:
    other = await PostgresStore.at(url, SystemClock())
    heard: list[OrderEvent] = []
    store.attach(heard.extend)
    following = asyncio.create_task(store.follow())
    try:
        await store.accept(new_order("a", 1), [], "")
        await other.claim(1, LEASE_MS, Rate(0))
        await store.cancel("a", None)
        async with asyncio.timeout(10):
            while len(heard) < 3:
                await store.get("a")
        assert names(heard) == ["a1", "a2", "a3"]
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await other.close()
