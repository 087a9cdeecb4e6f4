"""Orders over `/ws`: the same verbs, answers and refusals as over HTTP."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.flow.desk import BODY, answer_to, ask, desk


async def test_the_verbs_answer_as_http_does(tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client, client.connect() as socket:
        placed = await ask(socket, "order.execute", BODY)
        assert (placed["type"], placed["replayed"], placed["data"]["status"]) == ("order", False, "PENDING")
        order_id = placed["data"]["orderId"]
        got = await ask(socket, "order.get", {"orderId": order_id})
        assert got["data"] == (await client.http.get(f"/api/orders/{order_id}")).json() == placed["data"]
        cancelled = await ask(socket, "order.cancel", {"orderId": order_id})
        assert (cancelled["requested"], cancelled["data"]["status"]) == (False, "CANCELLED")
        over = await ask(socket, "order.cancel", {"orderId": order_id})
        assert over["type"] == "error"
        told = {name: over["data"][name] for name in ("code", "status", "reason", "retryable", "fate")}
        assert told == {
            "code": 107,
            "status": 409,
            "reason": "order_over",
            "retryable": False,
            "fate": "not_executed",
        }


async def test_an_order_over_ws_is_executed_and_told_on_the_same_connection(tmp_path: Path) -> None:
    async with desk(tmp_path) as client, client.connect("?user_id=ann&subscriptions=orders:ann") as socket:
        placed = await ask(socket, "order.execute", BODY)
        assert placed["data"]["userId"] == "ann"
        async for text in socket:
            frame = json.loads(text)
            if frame["type"] == "event" and frame["data"].get("status") == "CONFIRMED":
                break


async def test_a_key_makes_one_order_of_many_commands_and_of_a_repeat_over_http(tmp_path: Path) -> None:
    async with desk(tmp_path, WEBSOCKET_COMMANDS_PER_S="100") as client, client.connect() as socket:
        command = {"type": "order.execute", "data": {**BODY, "idempotencyKey": "k"}}
        for number in range(50):
            await socket.send(json.dumps({**command, "id": number}))
        answers = [await answer_to(socket, number) for number in range(50)]
        assert len({answer["data"]["orderId"] for answer in answers}) == 1
        assert [answer["replayed"] for answer in answers] == [False] + [True] * 49
        again = await client.post(BODY, **{"Idempotency-Key": "k"})
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.json() == answers[0]["data"]


async def test_a_connection_acts_for_its_user_only(tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client, client.connect("?user_id=ann") as socket:
        bobs = await client.place(userId="bob")
        for kind in ("order.get", "order.cancel"):
            refused = await ask(socket, kind, {"orderId": bobs})
            assert refused["data"]["reason"] == "unknown_order"
        refused = await ask(socket, "order.execute", {**BODY, "userId": "bob"})
        assert (refused["data"]["status"], refused["data"]["reason"]) == (403, "not_your_user")


@pytest.mark.parametrize(
    ("kind", "data", "reason"),
    [
        ("order.execute", {**BODY, "amount": -1}, "invalid_order"),
        ("order.execute", [], "invalid_body"),
        ("order.execute", None, "invalid_body"),
        ("order.execute", {**BODY, "idempotencyKey": 7}, "invalid_body"),
        ("order.execute", {**BODY, "idempotencyKey": "\u202e"}, "invalid_idempotency_key"),
        ("order.get", {"orderId": ["a"]}, "invalid_body"),
        ("order.get", {}, "invalid_body"),
        ("order.cancel", {"orderId": "' or 1=1 --"}, "unknown_order"),
    ],
)
async def test_what_is_wrong_is_named(tmp_path: Path, kind: str, data: Any, reason: str) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client, client.connect() as socket:
        refused = await ask(socket, kind, data)
        assert (refused["type"], refused["data"]["reason"]) == ("error", reason)
        assert (refused["data"]["fate"], refused["data"]["retryable"]) == ("not_executed", False)


async def test_a_key_given_twice_is_refused_here_too(tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client, client.connect() as socket:
        await socket.send('{"type":"order.execute","id":1,"data":{"amount":1,"amount":2}}')
        assert (await answer_to(socket, 1))["data"]["reason"] == "malformed_json"


async def test_a_server_without_orders_says_so(tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_ENABLED="false") as client, client.connect() as socket:
        refused = await ask(socket, "order.execute", BODY)
        assert refused["data"] == {
            "code": 107,
            "message": "this server takes no orders",
            "temporary": False,
            "retry_after_ms": None,
        }


async def test_an_order_that_can_not_be_read_is_the_trouble_of_who_asks_for_it_alone(tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client:
        broken, whole = await client.place(), await client.place()
    with closing(sqlite3.connect(tmp_path / "orders.db")) as db, db:
        db.execute("update orders set request = '{}' where id = ?", (broken,))
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client, client.connect() as socket:
        for verb in ("order.get", "order.cancel"):
            answer = await ask(socket, verb, {"orderId": broken})
            assert (answer["type"], answer["data"]["code"], answer["data"]["message"]) == (
                "error",
                100,
                "internal error",
            )
        async with client.connect_to(f"/api/orders/{broken}/stream") as stream:
            with pytest.raises(ConnectionClosed):
                await stream.recv()
            assert stream.close_code == 1011
        assert (await client.http.get(f"/api/orders/{broken}")).status_code == 500
        assert (await ask(socket, "order.get", {"orderId": whole}))["data"]["orderId"] == whole
