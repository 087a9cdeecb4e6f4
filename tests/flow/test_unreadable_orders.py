"""Garbage in the row of one order: that order is left alone and told, the others and the stream go on."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from tests.flow.desk import BODY, WAY, Desk, desk
from tests.orders.store.servers import write

LIMIT: Final = {"type": "limit", "limitPrice": "100", "slippage": None}
IDLE: Final = {"ORDERS_WORK_HERE": "false"}
BUSY: Final = {"QUEUE_MAX_CONCURRENCY": "1", "ORDER_FINALITY_MS": "1", "ORDER_SCAN_MS": "5", "ORDER_LEASE_MS": "100"}

OpenDesk: TypeAlias = Callable[..., AbstractAsyncContextManager[Desk]]


@pytest.fixture
def opened(store_place: str, tmp_path: Path) -> OpenDesk:
    """Opens a desk whose orders are there."""
    return partial(desk, tmp_path, DATABASE_URL=store_place if "://" in store_place else f"sqlite://{store_place}")


async def until_told(client: Desk) -> None:
    shown: dict[str, Any] = {}
    async with asyncio.timeout(60):
        while not shown or shown["orders"]["ready"]:
            shown = (await client.http.get("/health/ready")).json()["components"]
            await asyncio.sleep(0.05)
    told = client.service.health.components()["orders"]
    assert (told.ready, told.required) == (False, False)
    assert "headrace_orders_unreadable 1.0" in (await client.http.get("/metrics")).text


async def is_well(client: Desk) -> None:
    """The gateway answers, and another order goes its way, a resting one is taken."""
    assert (await client.http.get("/health/live")).status_code == 200
    updates = await client.follow(f"/ws/{await client.place()}")
    assert [update["status"] for update in updates[1:]] == WAY
    assert await client.place(**LIMIT)


@pytest.mark.parametrize("column", ["request", "outcome", "status"])
@pytest.mark.parametrize("more", [{}, LIMIT], ids=["waiting", "resting"])
async def test_an_order_that_waits(
    opened: OpenDesk, store_place: str, column: str, more: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    async with opened(**IDLE) as client:
        spoilt = await client.place(**more)
    if column == "status":
        await write(store_place, "update order_events set status = 'garbage' where order_id = ?", spoilt)
        column = "outcome"
    await write(store_place, f"update orders set {column} = '{{garbage' where id = ?", spoilt)
    async with opened(**BUSY) as client:
        await until_told(client)
        await is_well(client)
        listed = await client.http.get("/api/orders")
        assert spoilt not in [order["orderId"] for order in listed.json()["orders"]]
    said = [line for line in capfd.readouterr().err.splitlines() if "order_unreadable" in line]
    assert len(said) == 1
    assert spoilt in said[0]


@pytest.mark.parametrize(
    ("status", "sql"),
    [
        ("SUBMITTED", "update attempts set quote = '{garbage' where order_id = ?"),
        ("CONFIRMED", "update attempts set quote = '{garbage' where order_id = ?"),
        ("ROUTING", "update orders set request = '[]' where id = ?"),
        ("CONFIRMED", "update orders set outcome = '{garbage' where id = ?"),
    ],
)
async def test_an_order_that_was_begun(opened: OpenDesk, store_place: str, status: str, sql: str) -> None:
    async with opened() as client:
        spoilt = await client.place()
        await client.follow(f"/ws/{spoilt}")
    ended = "'epoch'" if "://" in store_place else "1"
    await write(store_place, f"update orders set status = ?, lease_until = {ended} where id = ?", status, spoilt)
    await write(store_place, sql, spoilt)
    async with opened(**BUSY) as client:
        await until_told(client)
        await is_well(client)
        assert client.service.health.ready


async def test_an_order_and_an_event_that_others_write_while_we_run(opened: OpenDesk, store_place: str) -> None:
    async with opened(**IDLE) as client:
        spoilt = (await client.post(BODY)).json()["orderId"]
        columns = "order_id, user_id, seq, kind, status, at, data"
        await write(
            store_place,
            f"insert into order_events ({columns}) values (?, 'ann', 2, 'garbage', 'garbage', 0, '{{}}')",
            spoilt,
        )
        await until_told(client)
        resting = await client.place(**LIMIT)
        assert (await client.http.get(f"/api/orders/{resting}")).status_code == 200


async def test_what_was_executed_and_can_not_be_read_is_missing_and_told(opened: OpenDesk, store_place: str) -> None:
    async with opened() as client:
        placed = [await client.place(userId="ann") for _ in range(3)]
        for order_id in placed:
            await client.follow(f"/ws/{order_id}")
        whole = (await client.http.get("/api/portfolio?user=ann")).json()
        assert (whole["fills"], whole["unreadable"]) == (3, 0)
        await write(store_place, "update orders set outcome = '{garbage' where id = ?", placed[1])
        page = (await client.http.get("/api/orders?user=ann")).json()
        assert [order["orderId"] for order in page["orders"]] == [placed[2], placed[0]]
        assert page["unreadable"] == 1
        left = (await client.http.get("/api/portfolio?user=ann")).json()
        assert (left["fills"], left["unreadable"]) == (2, 1)
        assert (await client.http.get("/api/orders?user=bob")).json()["unreadable"] == 0
        await until_told(client)


@pytest.fixture
def refusal(store_place: str) -> tuple[str, str]:
    """What makes the database refuse, and what ends that."""
    if "://" in store_place:
        table = "alter table orders"
        return f"{table} add constraint no check (seq < 0) not valid", f"{table} drop constraint no"
    return "create trigger no before update on orders begin select raise(abort, 'garbage'); end", "drop trigger no"


async def test_a_database_that_refuses_to_be_written(
    opened: OpenDesk, store_place: str, refusal: tuple[str, str]
) -> None:
    """What breaks all orders breaks them alone, and only as long as it lasts."""
    refuse, relent = refusal
    async with opened(**IDLE) as client:
        waiting = await client.place()
    await write(store_place, refuse)
    async with opened(**BUSY) as client:
        shown: dict[str, Any] = {}
        async with asyncio.timeout(60):
            while not shown or shown["orders"]["ready"]:
                shown = (await client.http.get("/health/ready")).json()["components"]
                await asyncio.sleep(0.05)
        assert not shown["orders"]["ready"]
        await write(store_place, relent)
        await client.follow(f"/ws/{waiting}")
