"""Orders through the whole service, over real sockets, as existing clients use them."""

import json
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.facts import traded
from tests.flow.desk import BODY, KEY, WAY, desk


@pytest.mark.parametrize("path", ["/api/orders/{}/stream", "/ws/{}"])
async def test_an_existing_client_places_an_order_and_sees_it_through(tmp_path: Path, path: str) -> None:
    async with desk(tmp_path) as client:
        answer = await client.post(BODY)
        assert (answer.status_code, answer.json()["status"]) == (201, "PENDING")
        order_id = answer.json()["orderId"]
        snapshot, *updates = await client.follow(path.format(order_id))
        assert (snapshot["type"], snapshot["seq"], snapshot["order"]["amount"]) == ("snapshot", 0, "1500000000")
        assert [update["status"] for update in updates] == WAY
        assert [update["seq"] for update in updates] == [1, 2, 3, 4, 5]
        order = (await client.http.get(f"/api/orders/{order_id}")).json()
        assert (order["status"], order["fate"], order["seq"]) == ("CONFIRMED", "executed", 5)
        assert order["txHash"] == updates[-1]["txHash"]
        assert {quote["dex"] for quote in order["quotes"]} == {"raydium", "meteora"}
        # Opened late, or again from where it was, a stream loses nothing.
        resumed = await client.follow(path.format(order_id) + "?fromSeq=3")
        assert [frame["status"] for frame in resumed] == ["BUILDING", "SUBMITTED", "CONFIRMED"]
        log = (await client.http.get(f"/api/orders/{order_id}/events")).json()
        assert log["events"] == updates


async def test_a_stream_from_memory_says_what_one_from_the_database_says(tmp_path: Path) -> None:
    async with desk(tmp_path) as client:
        order_id = await client.place()
        await client.follow(f"/ws/{order_id}")
        assert client.service.gateway is not None and client.service.gateway.order_streams is not None
        known = client.service.gateway.order_streams.intake.recent.get(order_id)
        assert known is not None and [event.seq for event in known.events] == [1, 2, 3, 4, 5]
        from_memory = [await client.follow(f"/ws/{order_id}?fromSeq={seq}") for seq in range(7)]
    async with desk(tmp_path) as client:
        assert [await client.follow(f"/ws/{order_id}?fromSeq={seq}") for seq in range(7)] == from_memory


async def test_the_owner_hears_of_all_orders_on_one_topic(tmp_path: Path) -> None:
    async with desk(tmp_path) as client:
        async with connect(f"ws://127.0.0.1:{client.port}/ws?subscriptions=orders:ann") as socket:
            while json.loads(await socket.recv())["type"] != "subscribed":
                pass
            order_id = await client.place(userId="ann")
            told: list[dict[str, Any]] = []
            while not told or told[-1]["type"] != "Notification":
                told.append(json.loads(await socket.recv())["data"])
        updates = [data for data in told if data["type"] == "update"]
        assert [(data["orderId"], data["status"]) for data in updates] == [(order_id, status) for status in WAY]
        assert [data for data in told if data["type"] == "TransactionUpdate"] == [
            {"type": "TransactionUpdate", "transaction_id": order_id, "status": status, "user_id": "ann"}
            for status in WAY
        ]
        assert told[-1] == {
            "type": "Notification",
            "user_id": "ann",
            "title": "Order executed",
            "message": f"Order {order_id} was executed.",
            "notification_type": "order_confirmed",
        }


async def test_an_idempotency_key_gives_the_first_answer_again(tmp_path: Path) -> None:
    async with desk(tmp_path) as client:
        first = await client.post(BODY, **{"Idempotency-Key": "k1"})
        await client.follow(f"/ws/{first.json()['orderId']}")
        again = await client.post(BODY, **{"Idempotency-Key": "k1"})
        assert (again.status_code, again.json()) == (201, first.json())
        assert again.headers["Idempotency-Replayed"] == "true"
        other = await client.post({**BODY, "amount": 2}, **{"Idempotency-Key": "k1"})
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
        two = await client.http.post("/api/orders/execute", json=BODY, headers=[("idempotency-key", k) for k in "ab"])
        assert (two.status_code, two.json()["code"]) == (400, "invalid_idempotency_key")
        named = [await client.place(clientOrderId="mine") for _ in range(2)]
        assert named[0] == named[1]


async def test_orders_are_listed_page_by_page_and_cancelled_while_they_wait(tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client:
        placed = [await client.place(userId="ann", priority=n) for n in range(3)]
        page = (await client.http.get("/api/orders", params={"user": "ann", "limit": 2})).json()
        assert [order["orderId"] for order in page["orders"]] == placed[:0:-1]
        rest = (await client.http.get("/api/orders", params={"cursor": page["nextCursor"], "mint": "SOL"})).json()
        assert [order["orderId"] for order in rest["orders"]] == placed[:1]
        done = await client.http.post(f"/api/orders/{placed[0]}/cancel")
        assert (done.status_code, done.json()["status"]) == (200, "CANCELLED")
        over = await client.http.post(f"/api/orders/{placed[0]}/cancel")
        assert (over.status_code, over.json()["code"], over.json()["fate"]) == (409, "order_over", "not_executed")
        frames = await client.follow(f"/ws/{placed[0]}")
        assert [frame.get("status") for frame in frames] == [None, "PENDING", "CANCELLED"]


async def test_the_portfolio_is_what_the_orders_came_to(tmp_path: Path) -> None:
    async with desk(tmp_path, MOCK_DRIFT_BPS="0", MOCK_VARIANCE="0") as client:
        for body in ({"tokenIn": "USDC", "tokenOut": "SOL", "amount": 300}, {"amount": 0.5}):
            await client.follow(f"/ws/{await client.place(userId='ann', **body)}")
        found = (await client.http.get("/api/portfolio", params={"user": "ann"})).json()
        [holding] = found["holdings"]
        bought = 2 * 9975 * 10**5  # 0.25 % is the cheaper venue's fee
        got = 75 * 9975 * 10**2
        assert found["fills"] == 2
        assert (int(holding["units"]), holding["averageCost"]) == (bought - 5 * 10**8, "150.375939799")
        assert int(holding["realised"]) == got - -(-3 * 10**8 * 5 * 10**8 // bought)
        assert {int(balance["units"]) for balance in found["balances"]} == {bought - 5 * 10**8, got - 3 * 10**8}
        assert (await client.http.get("/api/portfolio", params={"user": "bob"})).json()["fills"] == 0
        for wrong in ({}, {"user": ""}, {"user": "a\nb"}, {"user": "é"}):
            assert (await client.http.get("/api/portfolio", params=wrong)).status_code == 400


async def test_an_executed_order_becomes_final(tmp_path: Path) -> None:
    async with desk(tmp_path, MOCK_FINALITY_BLOCKS="0", ORDER_FINALITY_MS="1") as client:
        order_id = await client.place()
        async with connect(f"ws://127.0.0.1:{client.port}/ws/{order_id}") as socket:
            async for text in socket:
                frame = json.loads(text)
                if frame.get("event") == "finalized":
                    break
        assert (frame["seq"], frame["status"], frame["finality"]) == (6, "CONFIRMED", "finalized")
        assert (await client.http.get(f"/api/orders/{order_id}")).json()["finality"] == "finalized"


async def test_a_limit_order_waits_for_a_trade(tmp_path: Path) -> None:
    async with desk(tmp_path) as client:
        body = {"type": "limit", "limitPrice": "100", "slippage": None, "clientOrderId": "limit-1"}
        order_id = await client.place(**body)
        assert await client.place(**body) == order_id
        order = (await client.http.get(f"/api/orders/{order_id}")).json()
        assert (order["resting"], order["minOut"]) == (True, None)
        assert order["trigger"] == {"when": "at_least", "out": "1", "per": "10", "price": "100"}
        for quote in (99, 101):
            trade = traded(order["mintIn"], order["mintOut"], 1000, quote, event_id=f"e{quote}")
            client.service.pipeline.consumers.deliver([trade])
        frames = await client.follow(f"/ws/{order_id}")
        assert [frame.get("event") for frame in frames[1:4]] == ["accepted", "triggered", "claimed"]
        assert frames[2]["trigger"] == {"out": "101", "per": "1000", "price": "101", "eventId": "e101"}
        assert frames[-1]["status"] == "CONFIRMED"


async def test_orders_on_their_way_when_the_server_stopped_are_finished_by_the_next(tmp_path: Path) -> None:
    async with desk(tmp_path, MOCK_EXECUTION_MS="600") as client:
        placed = [await client.place() for _ in range(5)]
        frames = await client.http.get(f"/api/orders/{placed[0]}/events")
        assert frames.status_code == 200
    async with desk(tmp_path, MOCK_EXECUTION_MS="600") as client:
        for order_id in placed:
            assert [frame.get("status") for frame in await client.follow(f"/ws/{order_id}")][-1] == "CONFIRMED"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"amount": 0}, "amount"),
    ({"amount": -1}, "amount"),
    ({"amount": "1.5"}, "amount"),
    ({"amount": "١٢"}, "amount"),
    ({"amount": True}, "amount"),
    ({"amount": [1]}, "amount"),
    ({"amount": None}, "amount"),
    ({"amount": 1e300}, "amount"),
    ({"amount": 0.0000000001}, "amount"),
    ({"amount": str(2**64)}, "amount"),
    ({"uiAmount": "1"}, "amount"),
    ({"slippage": 1.01}, "slippage"),
    ({"slippage": "0.1"}, "slippage"),
    ({"slippageBps": 10}, "slippage"),
    ({"tokenOut": "SOL"}, "tokenOut"),
    ({"tokenIn": "' or 1=1 --"}, "tokenIn"),
    ({"tokenIn": KEY}, "amount"),  # its decimals are not known
    ({"type": "sniper"}, "type"),
    ({"priority": 10}, "priority"),
    ({"priority": "1"}, "priority"),
    ({"expiresAt": 1}, "expiresAt"),
    ({"userId": "a\u202eb"}, "userId"),
    ({"userId": None}, "userId"),
    ({"userId": "a" * 129}, "userId"),
    ({"clientOrderId": "x" * 129}, "clientOrderId"),
    ({"execution": {"mode": "live"}}, "execution"),
    ({"minOut": 5}, "minOut"),
    ({"type": "limit"}, "limitPrice"),
    ({"type": "limit", "limitPrice": "0"}, "limitPrice"),
    ({"type": "stop", "stopRate": "1/0"}, "stopRate"),
    ({"limitPrice": "1"}, "limitPrice"),
]
"""What is changed in an order, and the field that is then wrong."""


async def test_a_wrong_order_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client:
        for change, field in WRONG:
            answer = await client.post({**BODY, **change})
            problem = answer.json()
            assert (answer.status_code, problem["code"], problem["fate"]) == (400, "invalid_order", "not_executed"), (
                change
            )
            assert answer.headers["content-type"] == "application/problem+json"
            assert (change, [error["name"] for error in problem["errors"]]) == (change, [field])


NO_ORDER: list[tuple[bytes, str, int]] = [
    (b'{"amount":1,"amount":2}', "application/json", 400),
    (b'{"amount":NaN}', "application/json", 400),
    (b'{"amount":' + b"9" * 5000 + b"}", "application/json", 400),
    (b'{"amount":1e' + b"9" * 30 + b"}", "application/json", 400),
    (b"[" * 60_000, "application/json", 400),
    (b"\xff\xfe", "application/json", 400),
    (b'{"tokenIn":"\\ud800"}', "application/json", 400),
    (b"[]", "application/json", 400),
    (b"", "application/json", 400),
    (b"{}", "text/plain", 415),
    (b" " * 70_000, "application/json", 413),
]
"""A body, its content type, and the status of the answer."""


async def test_what_is_no_order_at_all_is_refused(tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client:
        for body, content_type, status in NO_ORDER:
            headers = {"content-type": content_type}
            answer = await client.http.post("/api/orders/execute", content=body, headers=headers)
            assert answer.status_code == status, (body[:80], answer.text)


async def test_unknown_orders_are_unknown_everywhere(tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client:
        for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
            answer = await client.http.request(method, f"/api/orders/nothing{path}")
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_order")
        async with connect(f"ws://127.0.0.1:{client.port}/ws/nothing") as socket:
            assert json.loads(await socket.recv())["type"] == "error"
            await socket.wait_closed()
            assert socket.close_code == 4507
