"""Garbage in the row of one order: that order is left alone and told, the others and the stream go on."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from tests.flow.desk import BODY, WAY, Desk, desk

LIMIT: Final = {"type": "limit", "limitPrice": "100", "slippage": None}
IDLE: Final = {"ORDERS_WORK_HERE": "false"}
BUSY: Final = {"QUEUE_MAX_CONCURRENCY": "1", "ORDER_FINALITY_MS": "1", "ORDER_SCAN_MS": "5", "ORDER_LEASE_MS": "100"}


def write(folder: Path, sql: str, *values: Any) -> None:
    with closing(sqlite3.connect(folder / "orders.db", timeout=30)) as db, db:
        assert db.execute(sql, values).rowcount == 1


async def until_told(client: Desk) -> None:
    shown: dict[str, Any] = {}
    async with asyncio.timeout(30):
        while "orders" not in shown:
            shown = (await client.http.get("/health/ready")).json()["components"]
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
    tmp_path: Path, column: str, more: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    async with desk(tmp_path, **IDLE) as client:
        spoilt = await client.place(**more)
    if column == "status":
        write(tmp_path, "update order_events set status = 'garbage' where order_id = ?", spoilt)
        column = "outcome"
    write(tmp_path, f"update orders set {column} = '{{garbage' where id = ?", spoilt)
    async with desk(tmp_path, **BUSY) as client:
        await until_told(client)
        await is_well(client)
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
async def test_an_order_that_was_begun(tmp_path: Path, status: str, sql: str) -> None:
    async with desk(tmp_path) as client:
        spoilt = await client.place()
        await client.follow(f"/ws/{spoilt}")
    write(tmp_path, "update orders set status = ?, lease_until = 1 where id = ?", status, spoilt)
    write(tmp_path, sql, spoilt)
    async with desk(tmp_path, **BUSY) as client:
        await until_told(client)
        await is_well(client)
        assert client.service.health.ready


async def test_an_order_and_an_event_that_others_write_while_we_run(tmp_path: Path) -> None:
    async with desk(tmp_path, **IDLE) as client:
        spoilt = (await client.post(BODY)).json()["orderId"]
        columns = "order_id, user_id, seq, kind, status, at, data"
        write(
            tmp_path,
            f"insert into order_events ({columns}) values (?, 'ann', 2, 'garbage', 'garbage', 0, '{{}}')",
            spoilt,
        )
        await until_told(client)
        resting = await client.place(**LIMIT)
        assert (await client.http.get(f"/api/orders/{resting}")).status_code == 200


async def test_a_database_that_refuses_to_be_written(tmp_path: Path) -> None:
    """What breaks all orders breaks them alone, and only as long as it lasts."""
    async with desk(tmp_path, **IDLE) as client:
        waiting = await client.place()
    with closing(sqlite3.connect(tmp_path / "orders.db")) as db:
        db.execute("create trigger no before update on orders begin select raise(abort, 'garbage'); end")
    async with desk(tmp_path, **BUSY) as client:
        shown: dict[str, Any] = {}
        async with asyncio.timeout(30):
            while "orders" not in shown:
                shown = (await client.http.get("/health/ready")).json()["components"]
        assert not shown["orders"]["ready"]
        with closing(sqlite3.connect(tmp_path / "orders.db", timeout=30)) as db:
            db.execute("drop trigger no")
        await client.follow(f"/ws/{waiting}")
