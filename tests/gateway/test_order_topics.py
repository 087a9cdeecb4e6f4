"""The topic of an order with authentication on: its owner has it in every way, nobody else in any."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest

from headrace.gateway import order_topics
from headrace.model.orders import Order
from headrace.orders.intake import Intake
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store.sqlite import SqliteStore
from headrace.runtime.clock import SystemClock
from headrace.testing.orders import new_order
from tests.gateway.issuer import HS256, token
from tests.gateway.running_gateway import Raw, RunningGateway, run_gateway

MINE, THEIRS, NOBODYS = "order:mine", "order:theirs", "order:nobodys"
DENIED: Final = {"code": 103, "message": "permission denied", "temporary": False, "retry_after_ms": None}
AWAY: Final = {"code": 108, "message": "temporarily unavailable", "temporary": True, "retry_after_ms": 1000}


class Slow(SqliteStore):
    """A store that looks an order up when it may; until then whoever asks waits."""

    def __init__(self, *opened: Any) -> None:
        super().__init__(*opened)
        self.may, self.waiting = asyncio.Event(), 0
        self.may.set()

    async def get(self, order_id: str) -> Order | None:
        self.waiting += 1
        try:
            await self.may.wait()
        finally:
            self.waiting -= 1
        return await super().get(order_id)


@asynccontextmanager
async def open_shop(folder: Path, **settings: Any) -> AsyncIterator[tuple[RunningGateway, Slow]]:
    """A gateway with one order of 42 and one of 43, each with three messages on its topic."""
    clock = SystemClock()
    store = await Slow.at(str(folder / "orders.db"), clock)
    assert isinstance(store, Slow)
    for order_id, user_id in (("mine", "42"), ("theirs", "43")):
        order = new_order(order_id, clock.wall_ns() // 1_000_000)
        request = msgspec.structs.replace(order.request, user_id=user_id)
        await store.accept(msgspec.structs.replace(order, request=request), [], "")
    intake = Intake(store, ExecutionSettings(), clock)
    try:
        async with run_gateway(orders=intake, auth=HS256, cmd_per_s=10_000, **settings) as running:
            for topic in (MINE, THEIRS, NOBODYS):
                await running.publish(topic, 3)
            yield running, store
    finally:
        await store.close()


async def enter(running: RunningGateway, path: str = "/ws", sub: str = "42", **claims: Any) -> Raw:
    text = token(sub, now_s=time.time(), **claims)
    raw = await Raw.open(running.port, path, f"Sec-WebSocket-Protocol: stream.v1, jwt.{text}\r\n")
    assert (await raw.json())["type"] == "welcome"
    return raw


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110  (the store tells nobody who waits)
            await asyncio.sleep(0.001)


async def refusal(raw: Raw) -> Any:
    answer = await raw.json()
    assert answer["type"] == "error", answer
    return answer["data"]


async def test_the_owner_of_an_order_gets_its_topic_over_ws(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (running, _):
        raw = await enter(running, f"/ws?subscriptions={MINE}")
        assert (await raw.json())["topic"] == MINE
        await running.publish(MINE)
        assert (await raw.json())["offset"] == "4"
        raw.ask("history", 1, topic=MINE, limit=10)
        assert len((await raw.json())["data"]["items"]) == 4
        raw.ask("unsubscribe", 2, topic=MINE)
        assert (await raw.json())["type"] == "unsubscribed"
        raw.ask("subscribe", 3, topic=MINE, recover={"epoch": "g", "offset": "3"})
        answer = await raw.json()
        assert (answer["id"], answer["data"]["replayed"]) == (3, 1)


@pytest.mark.parametrize("claims", [{}, {"admin": True, "topics": ["*", "order:*", THEIRS, NOBODYS]}])
async def test_orders_of_others_and_missing_orders_are_denied_alike(tmp_path: Path, claims: dict[str, Any]) -> None:
    async with open_shop(tmp_path) as (running, _):
        raw = await enter(running, f"/ws?subscriptions={THEIRS},{NOBODYS}", **claims)
        told = [await raw.json(), await raw.json()]
        assert {frame.pop("topic") for frame in told} == {THEIRS, NOBODYS}
        assert told == [{"type": "error", "data": DENIED}] * 2
        for topic in (THEIRS, NOBODYS, THEIRS):  # asked again, it is no other error than before
            for kind in ("subscribe", "history"):
                raw.ask(kind, 1, topic=topic)
                assert await raw.json() == {"type": "error", "id": 1, "data": DENIED}
        assert not running.gateway.hub.topics()
        raw.ask("subscribe", 2, topic="order:no such")
        assert (await refusal(raw))["code"] == 102


async def test_the_topic_of_an_order_is_its_owners_over_http(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (running, store):
        bearer = {"Authorization": f"Bearer {token('42', now_s=time.time())}"}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{running.port}/api/topics", headers=bearer, verify=False
        ) as http:
            assert len((await http.get(f"/{MINE}/history")).json()["items"]) == 3
            for way in ("history", "sse"):
                theirs, nobodys = [await http.get(f"/{topic}/{way}") for topic in (THEIRS, NOBODYS)]
                assert (theirs.status_code, theirs.content) == (nobodys.status_code, nobodys.content)
                assert (theirs.status_code, theirs.json()["detail"]) == (403, "permission denied")
            async with http.stream("GET", f"/{MINE}/sse") as answer:
                assert answer.status_code == 200
            assert (await http.get("")).json()["topics"] == []
            await store.close()
            for way in ("history", "sse"):
                away = await http.get(f"/{MINE}/{way}")
                assert (away.status_code, away.headers["retry-after"]) == (503, "1")


async def test_the_session_goes_on_while_the_store_takes_its_time(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (running, store):
        raw = await enter(running)
        store.may.clear()
        raw.ask("subscribe", 1, topic=MINE)
        raw.ask("history", 2, topic=MINE, limit=1)
        raw.ask("subscribe", 3, topic="slots")
        assert (await raw.json())["id"] == 3
        raw.ask("subscribe", 4, topic=MINE)
        assert (await refusal(raw))["code"] == 105
        store.may.set()
        assert {(await raw.json())["id"], (await raw.json())["id"]} == {1, 2}


async def test_a_subscription_withdrawn_undecided_never_begins(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (running, store):
        raw = await enter(running)
        store.may.clear()
        for number in (1, 3):
            raw.ask("subscribe", number, topic=MINE)
            raw.ask("unsubscribe", number + 1, topic=MINE)
            assert [(await raw.json())["type"] for _ in range(2)] == ["error", "unsubscribed"]
        raw.ask("subscribe", 5, topic=MINE)
        await eventually(lambda: store.waiting == 3)
        store.may.set()
        assert ((await raw.json())["id"], running.gateway.hub.topics()) == (5, {MINE: 1})
        raw.ask("subscribe", 6, topic="slots")
        assert (await raw.json())["id"] == 6  # and nothing before it


async def test_a_client_that_left_undecided_is_forgotten(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (running, store):
        raw = await enter(running)
        store.may.clear()
        raw.ask("subscribe", 1, topic=MINE)
        await eventually(lambda: store.waiting == 1)
        raw.leave()
        await running.clients(0)
        store.may.set()
        await eventually(lambda: store.waiting == 0)
        assert not running.gateway.hub.topics()


async def test_an_unavailable_store_is_answered_with_108(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (running, store):
        raw = await enter(running)
        await store.close()
        for topic in (MINE, THEIRS, NOBODYS):
            for kind in ("subscribe", "history"):
                raw.ask(kind, 1, topic=topic)
                assert await refusal(raw) == AWAY


async def test_owner_checks_at_once_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_topics, "AT_ONCE_MAX", 2)
    async with open_shop(tmp_path) as (running, store):
        raw = await enter(running)
        store.may.clear()
        for number in (1, 2, 3):
            raw.ask("history", number, topic=MINE, limit=1)
        assert await raw.json() == {"type": "error", "id": 3, "data": AWAY}
        bearer = {"Authorization": f"Bearer {token('42', now_s=time.time())}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", verify=False) as http:
            assert (await http.get(f"/api/topics/{MINE}/history", headers=bearer)).status_code == 503
        store.may.set()
        assert [(await raw.json())["type"] for _ in range(2)] == ["history"] * 2
        raw.ask("history", 4, topic=MINE, limit=1)
        assert (await raw.json())["type"] == "history"


async def test_a_renewed_credential_keeps_the_topic_of_an_order(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as (running, _):
        raw = await enter(running)
        raw.ask("subscribe", 1, topic=MINE)
        assert (await raw.json())["type"] == "subscribed"
        raw.ask("auth", 2, token=token("42", now_s=time.time(), topics=[]))
        assert (await raw.json())["type"] == "authenticated"
        await running.publish(MINE)
        assert (await raw.json())["offset"] == "4"
