"""Broadcasts with `all`: every welcomed connection gets them, subscribed or not, and misses nothing silently."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from headrace.model.events import Publication
from tests.fanout.test_slow_clients import SMALL, narrow_client
from tests.gateway.running_gateway import PATIENCE_S, RunningGateway, join, run_gateway


@pytest.fixture
async def running() -> AsyncIterator[RunningGateway]:
    async with run_gateway() as running:
        yield running


async def post(running: RunningGateway, **body: Any) -> httpx.Response:
    base_url = f"http://127.0.0.1:{running.port}"
    async with httpx.AsyncClient(base_url=base_url, verify=False, timeout=10) as client:
        return await client.post("/api/ws/broadcast", json={"data": {"n": 1}, **body})


async def to_all(running: RunningGateway, **data: Any) -> dict[str, Any]:
    answer = await post(running, all=True, data=data)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_message_to_all_reaches_connections_without_subscriptions(running: RunningGateway) -> None:
    raws = [await join(running), await join(running, "/ws?batch=1"), await join(running, "/ws?user_id=42")]
    answer = await to_all(running, type="Notification", user_id="", title="t", message="m", notification_type="info")
    assert (answer["epoch"], answer["offset"], answer["users"]) == ("g", "1", {})
    for raw in raws:
        got = await raw.json()
        assert (got["type"], got["topic"], got["offset"], got["data"]["title"]) == ("event", "all", "1", "t")


async def test_a_subscriber_to_all_gets_each_message_once(running: RunningGateway) -> None:
    raw = await join(running, "/ws?subscriptions=all")
    assert (await raw.json())["data"]["offset"] == "0"
    for n in range(3):
        await to_all(running, n=n)
    assert [(await raw.json())["offset"] for _ in range(3)] == ["1", "2", "3"]
    raw.ask("unsubscribe", 1, topic="all")
    assert (await raw.json())["type"] == "unsubscribed"
    await to_all(running, n=3)
    assert (await raw.json())["offset"] == "4", "without the subscription, as before"


async def test_a_client_that_comes_later_recovers_the_messages_to_all(running: RunningGateway) -> None:
    for n in range(3):
        await to_all(running, n=n)
    raw = await join(running)
    raw.ask("subscribe", 1, topic="all", recover={"epoch": "g", "offset": "1"})
    assert (await raw.json())["data"]["recovered"] is True
    assert [(await raw.json())["offset"] for _ in range(2)] == ["2", "3"]


async def test_a_message_that_waits_for_its_tick_reaches_a_client_that_subscribes_meanwhile() -> None:
    async with run_gateway(tick_ms=100) as running:
        raw = await join(running)
        for n in range(20):
            await running.bus.publish([Publication.on("all", "event", b'"event_id":"e%d","data":{}' % n)])
        raw.ask("subscribe", 1, topic="all")
        received = [await raw.json() for _ in range(21)]
        assert [int(got["offset"]) for got in received if got["type"] == "event"] == list(range(1, 21))


async def test_a_slow_client_is_sent_the_range_it_missed() -> None:
    async with run_gateway(slow_abort_s=30, **SMALL) as running:
        slow, quick = await narrow_client(running), await join(running)
        for n in range(60):
            await to_all(running, n=n, pad="x" * 10_000)
        assert [(await quick.json())["offset"] for _ in range(60)] == [str(n + 1) for n in range(60)]
        assert running.metric("gateway_paused_total") >= 1
        first = [await slow.json()]
        while first[-1]["type"] == "event":
            first.append(await slow.json())
        *events, lag = first
        got = [int(each["offset"]) for each in events]
        assert got == list(range(1, len(got) + 1))
        assert lag == {
            "type": "lag",
            "topic": "all",
            "data": {"epoch": "g", "from_offset": str(len(got) + 1), "to_offset": "60", "dropped": 60 - len(got)},
        }
        assert running.metric("gateway_dropped_messages_total") == 60 - len(got)
        await to_all(running, n=60)
        assert (await slow.json())["offset"] == "61"


async def test_with_server_ids_only_the_clients_of_these_servers_get_it(running: RunningGateway) -> None:
    raw = await join(running)
    await running.bus.publish([Publication.on("server:other", "event", b'"event_id":"e","data":{"n":0}')])
    assert (await post(running, all=True, server_ids=["server-1", "server-1"])).json()["offset"] == "1"
    assert (await raw.json())["topic"] == "server:server-1"
    for kind in ("subscribe", "history"):
        raw.ask(kind, 1, topic="server:server-1")
        assert (await raw.json())["data"]["code"] == 102


async def test_topics_of_servers_are_not_listed(running: RunningGateway) -> None:
    await post(running, all=True, server_ids=["server-1"])
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", verify=False) as client:
        assert (await client.get("/api/topics", params={"prefix": "server"})).json()["total"] == 0


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"all": True, "topic": "app:x"}, {"topic"}),
        ({"all": True, "ack": True}, {"ack"}),
        ({"all": True, "server_ids": ["elsewhere"]}, {"server_ids"}),
        ({"all": True, "data": {"type": "UserActivity"}}, {"data.user_id", "data.activity_type", "data.data"}),
        ({"topic": "all"}, {"topic"}),
        ({"topic": "server:server-1"}, {"topic"}),
        ({"all": False}, {"topic"}),
    ],
)
async def test_what_contradicts_all_is_named(running: RunningGateway, body: dict[str, Any], names: set[str]) -> None:
    answer = await post(running, **body)
    assert answer.status_code == 422
    assert {wrong["name"] for wrong in answer.json()["errors"]} == names


async def test_a_client_that_left_gets_nothing_and_nothing_is_kept_for_it(running: RunningGateway) -> None:
    raw, other = await join(running), await join(running)
    raw.leave()
    async with asyncio.timeout(PATIENCE_S):
        await running.clients(1)
    await to_all(running, n=1)
    assert (await other.json())["offset"] == "1"
    assert not running.gateway.hub.busy
