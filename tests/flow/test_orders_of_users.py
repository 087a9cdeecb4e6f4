"""With authentication on, an order is its owner's: nobody else places, sees, cancels or follows it, in any way."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.flow.desk import BODY, Desk, ask, desk
from tests.gateway.issuer import SECRET, token

ON: Final = {"AUTH_MODE": "hs256", "JWT_SECRET": SECRET}


def made(sub: str) -> str:
    return token(sub, now_s=time.time())


def signed_in(sub: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {made(sub)}"}


async def place(shop: Desk, sub: str, **more: Any) -> httpx.Response:
    return await shop.post({**BODY, **more}, **signed_in(sub))


@asynccontextmanager
async def stream(shop: Desk, path: str, sub: str | None) -> AsyncIterator[ClientConnection]:
    offered = [Subprotocol("stream.v1"), *([Subprotocol(f"jwt.{made(sub)}")] if sub else [])]
    async with connect(f"ws://127.0.0.1:{shop.port}{path}", subprotocols=offered) as socket:
        yield socket


async def test_over_http(tmp_path: Path) -> None:
    async with desk(tmp_path, **ON) as shop:
        assert (await shop.post(BODY)).status_code == 401
        placed = await place(shop, "alice")
        assert (placed.status_code, placed.json()["userId"]) == (201, "alice")
        assert (await place(shop, "alice", userId="alice")).status_code == 201
        assert (await place(shop, "alice", userId="bob")).status_code == 403
        path = f"/api/orders/{placed.json()['orderId']}"
        for method, where in (("GET", path), ("GET", f"{path}/events"), ("POST", f"{path}/cancel")):
            mine = await shop.http.request(method, where, headers=signed_in("alice"))
            theirs = await shop.http.request(method, where, headers=signed_in("bob"))
            nobody = await shop.http.request(method, where)
            assert (mine.status_code in (200, 202, 409), theirs.status_code, nobody.status_code) == (True, 404, 401)
        for sub, count in (("alice", 2), ("bob", 0)):
            listed = await shop.http.get("/api/orders", headers=signed_in(sub))
            assert len(listed.json()["orders"]) == count
        assert (await shop.http.get("/api/orders?user=alice", headers=signed_in("bob"))).status_code == 403
        assert (await shop.http.get("/api/portfolio?user=alice", headers=signed_in("bob"))).status_code == 403
        assert (await shop.http.get("/api/portfolio?user=alice", headers=signed_in("alice"))).status_code == 200
        assert (await shop.http.get("/api/portfolio", headers=signed_in("alice"))).json()["userId"] == "alice"


@pytest.mark.parametrize("sub", ["auth0|123", 'google-oauth2|7 "\\:/=', "s" * 128])
async def test_whoever_a_token_can_name_has_orders(tmp_path: Path, sub: str) -> None:
    async with desk(tmp_path, **ON) as shop, stream(shop, "/ws", sub) as socket:
        subscribed = await ask(socket, "subscribe", {"topic": f"orders:{sub}"})
        assert (subscribed["type"], subscribed["topic"]) == ("subscribed", f"orders:{sub}")
        placed = await place(shop, sub)
        assert (placed.status_code, placed.json()["userId"]) == (201, sub)
        async for text in socket:
            if (frame := json.loads(text))["type"] == "event":
                break
        assert (frame["topic"], frame["data"]["orderId"]) == (f"orders:{sub}", placed.json()["orderId"])
        for path in ("orders", "portfolio"):
            assert (await shop.http.get(f"/api/{path}", params={"user": sub}, headers=signed_in(sub))).is_success


async def test_over_the_stream_of_the_order(tmp_path: Path) -> None:
    async with desk(tmp_path, **ON) as shop:
        order = (await place(shop, "alice")).json()["orderId"]
        for path in (f"/api/orders/{order}/stream", f"/ws/{order}"):
            async with stream(shop, path, "alice") as socket:
                snapshot = json.loads(await socket.recv())
                assert (snapshot["type"], snapshot["orderId"]) == ("snapshot", order)
            async with stream(shop, path, "bob") as socket:
                assert await last_words(socket) == (["error"], 4507)
            with pytest.raises(InvalidStatus, match="401"):
                async with stream(shop, path, None):
                    pass
            offered = [Subprotocol("stream.v1"), Subprotocol("jwt.a.b.c")]
            async with connect(f"ws://127.0.0.1:{shop.port}{path}", subprotocols=offered) as socket:
                assert await last_words(socket) == (["error"], 4500)
        given = await shop.http.post("/api/ws/tickets", headers=signed_in("alice"))
        async with connect(f"ws://127.0.0.1:{shop.port}/ws/{order}?ticket={given.json()['ticket']}") as socket:
            assert json.loads(await socket.recv())["type"] == "snapshot"


async def test_a_stream_ends_with_its_credential(tmp_path: Path) -> None:
    quick = {**ON, "AUTH_LEEWAY_S": "0", "AUTH_GRACE_S": "0.01"}
    async with desk(tmp_path, **quick) as shop:
        order = (await place(shop, "alice")).json()["orderId"]
        short = token("alice", now_s=time.time(), ttl_s=1)
        offered = [Subprotocol("stream.v1"), Subprotocol(f"jwt.{short}")]
        async with connect(f"ws://127.0.0.1:{shop.port}/ws/{order}", subprotocols=offered) as socket:
            kinds, code = await last_words(socket)
        assert (kinds[0], code) == ("snapshot", 4005)


async def last_words(socket: ClientConnection) -> tuple[list[str], int]:
    """The types of all frames, and the code that followed."""
    kinds: list[str] = []
    try:
        async with asyncio.timeout(30):
            while True:
                kinds.append(json.loads(await socket.recv())["type"])
    except ConnectionClosed as closed:
        return kinds, closed.rcvd.code if closed.rcvd else 0


async def test_over_ws(tmp_path: Path) -> None:
    async with desk(tmp_path, **ON) as shop, stream(shop, "/ws", "alice") as alice, stream(shop, "/ws", "bob") as bob:
        placed = await ask(alice, "order.execute", BODY, 1)
        assert placed["data"]["userId"] == "alice"
        assert (await ask(alice, "order.execute", {**BODY, "userId": "bob"}, 2))["data"]["status"] == 403
        about = {"orderId": placed["data"]["orderId"]}
        assert (await ask(alice, "order.get", about, 3))["type"] == "order"
        assert (await ask(bob, "order.get", about, 3))["data"]["status"] == 404
        assert (await ask(bob, "order.cancel", about, 4))["data"]["status"] == 404
        assert (await ask(alice, "subscribe", {"topic": "orders:alice"}, 5))["type"] == "subscribed"
        assert (await ask(bob, "subscribe", {"topic": "orders:alice"}, 5))["data"]["code"] == 103
        topic = {"topic": f"order:{about['orderId']}"}
        assert (await ask(bob, "subscribe", topic, 6))["data"]["code"] == 103
        assert (await ask(alice, "subscribe", topic, 6))["type"] == "subscribed"
        assert (await ask(alice, "history", topic, 7))["data"]["items"][0]["data"]["orderId"] == about["orderId"]


async def test_streams_of_orders_count_for_their_user_while_they_last(tmp_path: Path) -> None:
    async with desk(tmp_path, **ON, WEBSOCKET_MAX_PER_USER="2") as shop:
        assert shop.service.gateway is not None
        users = shop.service.gateway.admission.users
        order = (await place(shop, "alice")).json()["orderId"]
        path = f"/api/orders/{order}/stream"
        async with stream(shop, path, "alice") as one, stream(shop, f"/ws/{order}", "alice") as two:
            assert [json.loads(await socket.recv())["type"] for socket in (one, two)] == ["snapshot", "snapshot"]
            async with stream(shop, path, "alice") as socket:
                assert await last_words(socket) == (["error"], 4504)
            async with stream(shop, "/ws", "alice") as socket:
                assert (await last_words(socket))[1] == 4504
            async with stream(shop, path, "bob") as socket:
                assert await last_words(socket) == (["error"], 4507)
        async with asyncio.timeout(30):
            while users:
                await shop.http.get("/health/live")
        async with stream(shop, path, "alice") as socket:
            assert json.loads(await socket.recv())["type"] == "snapshot"
