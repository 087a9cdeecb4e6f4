"""What users are sent: at once to those who are there, until acknowledged to those who come; and broadcasts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from headrace.inbox import Inbox, InboxSettings, Letter
from headrace.inbox.sqlite import SqliteInbox
from headrace.model.errors import HeadraceError, InvariantError, TransientError
from headrace.model.events import Label
from headrace.runtime.clock import SystemClock
from tests.fanout.test_slow_clients import SMALL, narrow_client
from tests.gateway.running_gateway import Raw, RunningGateway, join, run_gateway

NOTICE = {"type": "Notification", "user_id": "42", "title": "t", "message": "m", "notification_type": "info"}

MARKET_MEMBERS = {"data.token_id", "data.price", "data.volume_24h", "data.market_cap"}


@pytest.fixture
async def inbox() -> AsyncIterator[Inbox]:
    inbox = await SqliteInbox.at(":memory:", SystemClock(), InboxSettings())
    yield inbox
    await inbox.close()


@pytest.fixture
async def running(inbox: Inbox) -> AsyncIterator[RunningGateway]:
    async with run_gateway(inbox=inbox) as running:
        yield running


async def post(running: RunningGateway, **body: Any) -> httpx.Response:
    async with client_of(running) as client:
        return await client.post("/api/ws/broadcast", json=body)


def client_of(running: RunningGateway) -> httpx.AsyncClient:
    """One without TLS, which takes long to set up."""
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", verify=False, timeout=10)


async def send(running: RunningGateway, *user_ids: str, ack: bool = True, **data: Any) -> dict[str, Any]:
    answer = await post(running, user_ids=user_ids or ["42"], ack=ack, data=data or NOTICE)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def enter(running: RunningGateway, user_id: str = "42") -> tuple[Raw, dict[str, Any]]:
    """Connect as a user; the connection, and what it is told of its topic."""
    raw = await join(running, f"/ws?user_id={user_id}")
    told = await raw.json()
    assert (told["type"], told["topic"]) == ("subscribed", f"user:{user_id}")
    return raw, told["data"]


async def acknowledge(raw: Raw, offset: int, topic: str = "user:42") -> Any:
    raw.ask("ack", "a", topic=topic, offset=str(offset))
    return await raw.json()


async def test_a_letter_reaches_every_connection_of_its_user_only(running: RunningGateway) -> None:
    (one, position), (two, _), (other, _) = await enter(running), await enter(running), await enter(running, "7")
    assert position == {"epoch": "0", "offset": "0", "was_recovering": False, "recovered": False, "replayed": 0}
    answer = await send(running)
    for raw in (one, two):
        got = await raw.json()
        event_id = got.pop("event_id")
        assert event_id.startswith("app:")
        assert got == {
            "type": "event",
            "topic": "user:42",
            "epoch": answer["epoch"],
            "offset": "1",
            "ack": True,
            "data": NOTICE,
        }
    await send(running, "7", ack=False, n=1)
    got = await other.json()
    assert (got["data"], got["offset"], "ack" in got) == ({"n": 1}, "1", False)


async def test_an_unacknowledged_letter_comes_again(running: RunningGateway) -> None:
    raw, _ = await enter(running)
    for n in range(4):
        await send(running, n=n, ack=n != 1)
        assert (await raw.json())["offset"] == str(n + 1)
    assert await acknowledge(raw, 1) == {
        "type": "acknowledged", "id": "a", "topic": "user:42", "data": {"offset": "1"}
    }  # fmt: skip
    raw.leave()
    again, position = await enter(running)
    assert (position["offset"], position["replayed"]) == ("4", 2)
    assert [(await again.json())["offset"] for _ in range(2)] == ["3", "4"], "what passes is not sent again"
    await acknowledge(again, 4)
    await acknowledge(again, 3)
    _, position = await enter(running)
    assert (position["offset"], position["replayed"]) == ("4", 0)
    await send(running, n=4)
    assert (await again.json())["offset"] == "5"


async def test_only_what_was_sent_here_can_be_acknowledged(running: RunningGateway) -> None:
    raw, _ = await enter(running)
    await send(running)
    await raw.json()
    assert (await acknowledge(raw, 2))["data"]["code"] == 107
    assert (await acknowledge(raw, 1, "user:7"))["data"]["code"] == 103
    nobody = await join(running)
    assert (await acknowledge(nobody, 1))["data"]["code"] == 103
    raw.ask("ack", "a", topic="user:42", offset="x")
    assert (await raw.json())["data"]["code"] == 107
    assert (await enter(running))[1]["replayed"] == 1


async def test_the_topic_of_another_user_is_denied(running: RunningGateway) -> None:
    await send(running)
    raw = await join(running)
    for kind in ("subscribe", "history"):
        raw.ask(kind, 1, topic="user:42")
        assert (await raw.json())["data"]["code"] == 102
    async with client_of(running) as client:
        assert (await client.get("/api/topics/user:42/history")).status_code == 404
        assert (await client.get("/api/topics", params={"prefix": "user"})).json()["total"] == 0


async def test_dropped_letters_are_reported() -> None:
    inbox = await SqliteInbox.at(":memory:", SystemClock(), InboxSettings(messages_max=2))
    async with run_gateway(inbox=inbox) as running:
        for n in range(5):
            await send(running, n=n)
        raw, position = await enter(running)
        assert (position["offset"], position["replayed"]) == ("5", 2)
        lag = await raw.json()
        assert (lag["type"], lag["data"]) == (
            "lag",
            {"epoch": position["epoch"], "from_offset": "1", "to_offset": "3", "dropped": 3},
        )
        assert [(await raw.json())["offset"] for _ in range(2)] == ["4", "5"]
    await inbox.close()


async def test_a_slow_client_gets_everything_from_the_log(inbox: Inbox) -> None:
    async with run_gateway(inbox=inbox, slow_abort_s=30, **SMALL) as running:
        slow = await narrow_client(running, "/ws?user_id=42")
        await slow.json()
        for n in range(60):
            await send(running, n=n, pad="x" * 10_000, ack=n % 2 == 0)
        assert running.metric("gateway_paused_total") >= 1
        assert [(await slow.json())["offset"] for _ in range(60)] == [str(n + 1) for n in range(60)]
        await send(running, n=60)
        assert (await slow.json())["offset"] == "61"


async def test_many_waiting_letters_all_come(running: RunningGateway, inbox: Inbox) -> None:
    await inbox.put([Letter("42", f"e{n}", "{}", ack=True) for n in range(1000)], None, lambda _: "")
    raw, position = await enter(running)
    assert position["replayed"] == 1000
    assert [int((await raw.json())["offset"]) for _ in range(1000)] == list(range(1, 1001))


class Away:
    """An inbox that can be taken away."""

    def __init__(self, inbox: Inbox, how: type[HeadraceError]) -> None:
        self._inbox, self.away, self._how = inbox, True, how

    def __getattr__(self, name: str) -> Any:
        if self.away:
            raise self._how("away")
        return getattr(self._inbox, name)


@pytest.mark.parametrize("how", [TransientError, InvariantError])
async def test_letters_come_once_the_inbox_is_back(inbox: Inbox, how: type[HeadraceError]) -> None:
    away: Any = Away(inbox, how)
    async with run_gateway(inbox=away) as running:
        raw = await join(running, "/ws?user_id=42&subscriptions=slots")
        assert (await raw.json())["topic"] == "slots", "the rest goes on"
        assert (await post(running, data={}, user_ids=["42"])).status_code == (503 if how is TransientError else 500)
        away.away = False
        assert (await raw.json())["topic"] == "user:42"
        await send(running)
        await raw.json()
        away.away = True
        assert (await acknowledge(raw, 1))["data"]["code"] == 108
        away.away = False
        assert (await acknowledge(raw, 1))["type"] == "acknowledged"


async def test_letters_outlive_the_gateway(tmp_path: Path) -> None:
    for life in range(2):
        inbox = await SqliteInbox.at(str(tmp_path / "inbox.db"), SystemClock(), InboxSettings())
        async with run_gateway(inbox=inbox) as running:
            if life == 0:
                first = await send(running)
            else:
                raw, position = await enter(running)
                assert (position["epoch"], position["replayed"]) == (first["epoch"], 1)
                assert (await raw.json())["data"] == NOTICE
        await inbox.close()


async def test_a_broadcast_to_a_topic_reaches_its_subscribers(running: RunningGateway) -> None:
    raw = await join(running)
    raw.ask("subscribe", 1, topic="token_updates")
    await raw.json()
    answer = await post(
        running, topic="token_updates", data={"type": "Mine", "n": 12345678901234567890123, "x": "a\nb"}
    )
    assert answer.json() == {"status": "ok", "epoch": "g", "offset": "1", "users": {}, "duplicate": False}
    got = await raw.json()
    assert (got["offset"], got["data"]) == ("1", {"type": "Mine", "n": 12345678901234567890123, "x": "a\nb"})


async def test_a_broadcast_belongs_to_the_state_of_its_topic(running: RunningGateway) -> None:
    for kind, mint in [("Mine", "M"), ("Mine", "N"), ("Mine", None)]:
        await post(running, topic="token_updates", data={"type": kind, "mint": mint})
    messages = (await running.bus.history("token_updates", None, 9)).messages
    ids = [msgspec.json.decode(b"{%b}" % message.body)["event_id"] for message in messages]
    labels = [Label("Mine M ", ids[0], None, certain=True), Label("Mine N ", ids[1], None, certain=True), None]
    assert [message.label for message in messages] == labels


async def test_a_broadcast_to_a_topic_and_users_reaches_both(running: RunningGateway) -> None:
    raw, _ = await enter(running)
    raw.ask("subscribe", 1, topic="app:news")
    await raw.json()
    body = {"topic": "app:news", "user_ids": ["42", "7", "42"], "data": {"n": 1}, "server_ids": ["server-1"]}
    answer = (await post(running, **body)).json()
    assert (answer["epoch"], answer["offset"], answer["users"]) == ("g", "1", {"42": "1", "7": "1"})
    both = [await raw.json(), await raw.json()]
    assert {got["topic"] for got in both} == {"app:news", "user:42"}
    assert both[0]["event_id"] == both[1]["event_id"]


async def test_data_is_one_line_for_clients_that_read_lines(running: RunningGateway) -> None:
    raw = await join(running, "/ws?batch=1&subscriptions=app:news")
    await raw.json()
    async with client_of(running) as client:
        url = "/api/ws/broadcast"
        content = b'{"topic":"app:news","data":{\n"a" :\n1}}'
        assert (await client.post(url, content=content, headers={"content-type": "application/json"})).is_success
    _, payload = await raw.receive()
    assert b"\n" not in payload
    assert b'"data":{"a":1}' in payload


async def test_an_idempotency_key_sends_once(running: RunningGateway) -> None:
    raw, _ = await enter(running)
    raw.ask("subscribe", 1, topic="app:news")
    await raw.json()
    body = {"topic": "app:news", "user_ids": ["42"], "data": {"n": 1}, "idempotency_key": "k"}
    answers = [(await post(running, **body)).json() for _ in range(2)]
    assert answers == [answers[0], answers[0] | {"duplicate": True}]
    assert {(await raw.json())["topic"] for _ in range(2)} == {"app:news", "user:42"}
    other = await post(running, **body | {"data": {"n": 2}})
    assert other.status_code == 422
    assert other.json()["errors"] == [{"name": "idempotency_key", "message": "was used for another message"}]
    await post(running, topic="app:news", data={"last": True})
    assert (await raw.json())["data"] == {"last": True}


async def test_the_same_key_at_once_sends_once(running: RunningGateway) -> None:
    body = {"user_ids": ["42"], "data": {"n": 1}, "idempotency_key": "k"}
    answers = await asyncio.gather(*(post(running, **body) for _ in range(10)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert sum(answer.status_code == 200 and not answer.json()["duplicate"] for answer in answers) == 1
    assert (await enter(running))[1]["offset"] == "1"


def nested(levels: int) -> Any:
    return {"mint": nested(levels - 1)} if levels > 1 else {}


async def test_data_that_is_deep_but_not_too_deep(running: RunningGateway) -> None:
    assert (await post(running, topic="token_updates", data=nested(64))).status_code == 200


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"data": {}}, {"topic"}),
        ({"data": {}, "all": True, "user_ids": ["42"]}, {"user_ids"}),
        ({"data": {}, "topic": "trades:pump"}, {"topic"}),
        ({"data": {}, "topic": "user:42"}, {"topic"}),
        ({"data": {}, "topic": "orders:42"}, {"topic"}),
        ({"data": {}, "topic": "app:*"}, {"topic"}),
        ({"data": {}, "topic": "app:" + "x" * 65}, {"topic"}),
        ({"data": [], "topic": "app:x"}, {"data"}),
        ({"data": 1, "topic": "app:x"}, {"data"}),
        ({"data": {"a": "x" * 32_768}, "topic": "app:x"}, {"data"}),
        ({"data": nested(65), "topic": "app:x"}, {"data"}),
        ({"data": {"mint": [[1], {"a": [nested(61)]}, 2]}, "topic": "app:x"}, {"data"}),
        ({"data": NOTICE | {"type": "MarketData"}, "topic": "app:x"}, MARKET_MEMBERS),
        ({"data": {"type": 5}, "topic": "nonsense", "server_ids": ["elsewhere"]}, {"topic", "server_ids"}),
    ],
)  # fmt: skip
async def test_wrong_members_are_named(running: RunningGateway, body: dict[str, Any], names: set[str]) -> None:
    answer = await post(running, **body)
    assert answer.status_code == 422
    assert {wrong["name"] for wrong in answer.json()["errors"]} == names


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"topic": "app:x"},
        {"data": {}, "topic": 5},
        {"data": {}, "topic": "app:x", "more": 1},
        {"data": {}, "user_ids": "42"},
        {"data": {}, "user_ids": [""]},
        {"data": {}, "user_ids": ["new\nline"]},
        {"data": {}, "user_ids": ["x" * 129]},
        {"data": {}, "user_ids": ["42"] * 1001},
        {"data": {}, "topic": "app:x", "idempotency_key": ""},
        {"data": {}, "topic": "app:x", "idempotency_key": "k" * 201},
        {"data": {}, "topic": "app:x", "ack": "yes"},
    ],
)
async def test_a_malformed_broadcast_is_refused(running: RunningGateway, body: dict[str, Any]) -> None:
    answer = await post(running, **body)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"data":{"a":"\xff"},"topic":"app:x"}', b'{"data":' + b"[" * 9999]
)
async def test_bytes_that_are_no_json_are_refused(running: RunningGateway, content: bytes) -> None:
    async with client_of(running) as client:
        url = "/api/ws/broadcast"
        answer = await client.post(url, content=content, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422)
        plain = await client.post(url, content=msgspec.json.encode({"topic": "app:x", "data": {}}))
        assert plain.status_code == 415


async def test_without_an_inbox_there_is_nothing_for_users() -> None:
    async with run_gateway() as running:
        raw = await join(running, "/ws?user_id=42")
        assert (await acknowledge(raw, 1))["data"]["code"] == 103
        assert (await post(running, data={}, user_ids=["42"])).status_code == 503
        assert (await post(running, data={}, topic="app:x", idempotency_key="k")).status_code == 503
        assert (await post(running, data={}, topic="app:x")).status_code == 200
