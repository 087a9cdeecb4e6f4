"""Who may come in over `/ws`: every way to show a credential, every way to fail, and what happens when it expires."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
import pytest
import pytest_asyncio

from headrace.gateway.auth.settings import AuthSettings
from headrace.model.credentials import Credential
from headrace.runtime.clock import ManualClock
from tests.gateway.issuer import AUDIENCE, HS256, SECRET, issuer, jwk, raw_token, rsa_key, token
from tests.gateway.running_gateway import TEXT, Raw, RunningGateway, frame, run_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW_S: Final = 1_700_000_000
SMALL: Final = msgspec.structs.replace(HS256, token_bytes_max=4096)
HOUR: Final = 3600


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running() -> AsyncIterator[RunningGateway]:
    async with run_gateway(clock=ManualClock(NOW_S * 10**9), auth=SMALL, cmd_per_s=1000, ping_s=1e6) as running:
        yield running


def clock_of(running: RunningGateway) -> ManualClock:
    clock = running.gateway.keeper.clock
    assert isinstance(clock, ManualClock)
    return clock


def made(running: RunningGateway, **more: Any) -> str:
    return token(**{"now_s": clock_of(running).wall_ns() / 1e9, **more})


def offer(text: str) -> str:
    return f"Sec-WebSocket-Protocol: stream.v1, jwt.{text}\r\n"


async def enter(running: RunningGateway, path: str = "/ws", **more: Any) -> Raw:
    """Connect with a token as subprotocol, and read the welcome."""
    raw = await Raw.open(running.port, path, offer(made(running, **more)))
    welcome = await raw.json()
    assert welcome["type"] == "welcome", welcome
    return raw


async def code(raw: Raw, answer_to: Any = None) -> int:
    answer = await raw.json()
    assert (answer["type"], answer.get("id")) == ("error", answer_to), answer
    return int(answer["data"]["code"])


async def has(raw: Raw, topic: str, request_id: Any = 9) -> bool:
    """Whether a subscription is granted."""
    raw.ask("subscribe", request_id, topic=topic)
    answer = await raw.json()
    assert answer["id"] == request_id
    return bool(answer["type"] == "subscribed")


async def test_a_token_as_subprotocol_is_accepted(running: RunningGateway) -> None:
    raw = await Raw.open(running.port, "/ws?subscriptions=slots", offer(made(running)))
    assert b"Sec-WebSocket-Protocol: stream.v1\r\n" in raw.head
    assert b"jwt" not in raw.head
    welcome = await raw.json()
    assert (welcome["type"], welcome["data"]["user_id"]) == ("welcome", "42")
    assert (await raw.json())["type"] == "subscribed"
    assert running.gateway.admission.users == {"42": 1}
    raw.leave()
    await running.clients(0)
    assert not running.gateway.admission.users


async def test_a_message_to_all_reaches_only_those_who_were_welcomed(running: RunningGateway) -> None:
    stranger, known = await Raw.open(running.port, "/ws?user_id=42"), await enter(running, topics=[])
    assert await has(known, "all")
    assert not await has(known, "slots")
    other = await enter(running, topics=[])
    await running.tell("all", {"n": 1})
    assert [(await raw.json())["data"] for raw in (known, other)] == [{"n": 1}, {"n": 1}]
    stranger.ask("auth", 1, token=made(running))
    assert (await stranger.json())["type"] == "welcome"
    assert (await stranger.json())["type"] == "authenticated"
    stranger.ask("subscribe", 2, topic="slots")
    assert (await stranger.json())["id"] == 2
    for raw in (stranger, known, other):
        raw.leave()
    await running.clients(0)


async def test_a_token_in_the_first_frame_is_accepted(running: RunningGateway) -> None:
    raw = await Raw.open(running.port, "/ws?user_id=42&subscriptions=slots")
    raw.ask("auth", 1, token=made(running))
    welcome, answer, subscribed = await raw.json(), await raw.json(), await raw.json()
    assert (welcome["type"], welcome["data"]["user_id"]) == ("welcome", "42")
    assert answer == {"type": "authenticated", "id": 1, "data": {"user_id": "42", "expires_in_s": HOUR + 5}}
    assert (subscribed["type"], subscribed["topic"]) == ("subscribed", "slots")
    raw.leave()


async def test_commands_right_behind_the_token_wait_for_it(running: RunningGateway) -> None:
    raw = await Raw.open(running.port)
    auth = {"type": "auth", "data": {"token": made(running)}}
    commands = [auth, {"type": "subscribe", "id": 1, "data": {"topic": "slots"}}, {"type": "nonsense", "id": 2}]
    raw.send(*(frame(TEXT, json.dumps(command).encode()) for command in commands))
    assert [(await raw.json())["type"] for _ in range(4)] == ["welcome", "authenticated", "error", "subscribed"]
    raw.leave()


async def ticket(running: RunningGateway, **more: Any) -> str:
    auth = running.gateway.sessions.auth
    assert auth is not None
    return await auth.tickets.issue(await auth.identify(Credential("token", made(running, **more))))


async def test_a_ticket_is_accepted_once(running: RunningGateway) -> None:
    given = await ticket(running, topics=["slots"])
    raw = await Raw.open(running.port, f"/ws?ticket={given}")
    assert (await raw.json())["data"]["user_id"] == "42"
    assert await has(raw, "slots")
    assert not await has(raw, "trades:pump")
    raw.leave()
    again = await Raw.open(running.port, f"/ws?ticket={given}")
    assert await code(again) == 101
    assert await again.closed() == 4500
    again.leave()


async def test_an_expired_ticket_is_refused(running: RunningGateway) -> None:
    given = await ticket(running)
    await clock_of(running).advance(31)
    raw = await Raw.open(running.port, f"/ws?ticket={given}")
    assert await code(raw) == 101
    assert await raw.closed() == 4500
    raw.leave()


async def test_a_ticket_of_another_user_is_denied(running: RunningGateway) -> None:
    raw = await Raw.open(running.port, f"/ws?user_id=43&ticket={await ticket(running)}")
    assert await raw.closed() == 4507
    raw.leave()


@pytest.mark.parametrize("user_id", ["43", "4", "42%20", "admin"])
@pytest.mark.parametrize("by_frame", [True, False])
async def test_another_user_in_the_url_is_denied(running: RunningGateway, user_id: str, by_frame: bool) -> None:
    more = "" if by_frame else offer(made(running))
    raw = await Raw.open(running.port, f"/ws?user_id={user_id}&subscriptions=slots", more)
    if by_frame:
        raw.ask("auth", 1, token=made(running))
    assert await raw.receive() == (8, (4507).to_bytes(2, "big") + b"denied")
    raw.leave()


WRONG: Final[dict[str, tuple[dict[str, Any], int, int]]] = {
    "another secret": ({"key": "x" * 32}, 101, 4500),
    "alg none": ({"key": None, "algorithm": "none"}, 101, 4500),
    "another algorithm": ({"key": SECRET * 2, "algorithm": "HS512"}, 101, 4500),
    "no exp": ({"without": ("exp",)}, 101, 4500),
    "no sub": ({"without": ("sub",)}, 101, 4500),
    "another audience": ({"aud": "another"}, 101, 4500),
    "not yet": ({"nbf": 2**40}, 101, 4500),
    "expired": ({"ttl_s": -10}, 109, 4005),
    "huge": ({"pad": "x" * 4000}, 101, 4500),
}


@pytest.mark.parametrize("by_frame", [True, False])
@pytest.mark.parametrize(("more", "error", "close"), WRONG.values(), ids=WRONG.keys())
async def test_wrong_tokens_are_refused_and_closed(
    running: RunningGateway, by_frame: bool, more: dict[str, Any], error: int, close: int
) -> None:
    text = made(running, **more)
    raw = await Raw.open(running.port, "/ws?subscriptions=slots", "" if by_frame else offer(text))
    if by_frame:
        raw.ask("auth", 1, token=text)
    assert await code(raw, 1 if by_frame else None) == error
    assert await raw.closed() == close
    raw.leave()


@pytest.mark.parametrize("by_frame", [True, False])
async def test_a_token_that_is_not_yet_valid_comes_in_later(running: RunningGateway, by_frame: bool) -> None:
    """The issuer's clock is ahead, by more than the leeway: the connection stays, and the same token counts later."""
    text = made(running, nbf=clock_of(running).wall_ns() / 1e9 + 8)
    raw = await Raw.open(running.port, "/ws", "" if by_frame else offer(text))
    if by_frame:
        raw.ask("auth", 1, token=text)
    data = (await raw.json())["data"]
    assert (data["code"], data["message"], data["temporary"]) == (108, "token not valid yet", True)
    assert 2900 <= data["retry_after_ms"] <= 3100
    await clock_of(running).advance(data["retry_after_ms"] / 1000)
    raw.ask("auth", 2, token=text)
    assert (await raw.json())["type"] == "welcome"
    raw.leave()


async def test_a_client_with_a_token_not_yet_valid_is_asked_to_come_back(running: RunningGateway) -> None:
    raw = await Raw.open(running.port, "/ws", offer(made(running, nbf=clock_of(running).wall_ns() / 1e9 + 60)))
    assert await code(raw) == 108
    await clock_of(running).advance(11)
    assert await raw.closed() == 4002
    raw.leave()


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        ("/ws?token={token}", "", 401),
        ("/ws?jwt={token}", "", 401),
        ("/ws?access_token={token}", "", 401),
        ("/ws?token=", "", 401),
        ("/ws?token={token}", "Sec-WebSocket-Protocol: stream.v1, jwt.{token}\r\n", 401),
        ("/ws?ticket=a&ticket=b", "", 400),
        ("/ws?ticket=a", "Sec-WebSocket-Protocol: stream.v1, jwt.{token}\r\n", 400),
        ("/ws", "Sec-WebSocket-Protocol: jwt.{token}, jwt.{token}\r\n", 400),
        ("/ws", "Sec-WebSocket-Protocol: stream.v1, jwt." + "a" * 17_000 + "\r\n", 431),
    ],
)
async def test_credentials_in_the_url_are_refused(running: RunningGateway, path: str, more: str, status: int) -> None:
    text = made(running)
    raw = await Raw.open(running.port, path.format(token=text), more.format(token=text) if "{" in more else more)
    assert raw.head.startswith(b"HTTP/1.1 %d " % status)
    assert text.encode() not in raw.head + await raw.reader.read(1000)
    raw.leave()


@pytest.mark.parametrize(
    "data",
    [b"{}", b'{"token":7}', b'{"token":""}', b'{"token":null}', b"[]", b'{"token":"%b"}' % (b"x" * 16_385)],
)
async def test_an_auth_without_a_token_is_a_bad_request(running: RunningGateway, data: bytes) -> None:
    raw = await Raw.open(running.port)
    raw.send(frame(TEXT, b'{"type":"auth","id":1,"data":%b}' % data))
    assert await code(raw, 1) == 107
    raw.ask("auth", 2, token=made(running))
    assert (await raw.json())["type"] == "welcome"
    raw.leave()


async def test_commands_before_the_token_are_refused(running: RunningGateway) -> None:
    raw = await Raw.open(running.port, "/ws?subscriptions=slots")
    for number, (kind, data) in enumerate(
        {
            "subscribe": {"topic": "slots"},
            "unsubscribe": {"topic": "slots"},
            "history": {"topic": "slots"},
            "order.execute": {},
            "ack": {"topic": "user:42", "offset": "1"},
            "nonsense": {},
        }.items()
    ):
        raw.ask(kind, number, **data)
        assert await code(raw, number) == 101
    raw.send(frame(TEXT, b'{"type":"pong"}'))
    await running.publish("slots", 3)
    assert running.gateway.hub.topics() == {}
    raw.ask("auth", 1, token=made(running))
    assert [(await raw.json())["type"] for _ in range(3)] == ["welcome", "authenticated", "subscribed"]
    raw.leave()


async def test_a_client_that_does_not_authenticate_is_closed(running: RunningGateway) -> None:
    silent, chatty = await Raw.open(running.port), await Raw.open(running.port)
    for _ in range(3):
        await clock_of(running).advance(3)
        chatty.ask("subscribe", 1, topic="slots")
        assert await code(chatty, 1) == 101
    assert len(running.gateway.keeper.alarms) == 2
    await clock_of(running).advance(2.5)
    for raw in (silent, chatty):
        assert await raw.receive() == (8, (4002).to_bytes(2, "big") + b"authentication timed out")
        raw.leave()
    await running.clients(0)
    assert len(running.gateway.keeper.alarms) == 0


async def test_unauthenticated_connections_count_against_the_limit() -> None:
    async with run_gateway(auth=HS256, connections_max=2) as small:
        raws = [await Raw.open(small.port) for _ in range(3)]
        assert await raws[2].closed() == 4504


async def test_a_stop_closes_unauthenticated_clients() -> None:
    async with run_gateway(auth=HS256) as running:
        raw = await Raw.open(running.port)
        stopping = asyncio.create_task(running.gateway.stop(5.0))
        assert await raw.closed() == 4001
        raw.leave()
        await stopping


async def test_topics_beyond_the_token_are_denied(running: RunningGateway) -> None:
    raw = await enter(running, "/ws?subscriptions=slots,trades:pump", topics=["trades:*"])
    told = [await raw.json(), await raw.json()]
    seen = {(one["type"], one["topic"], one["data"].get("code")) for one in told}
    assert seen == {("error", "slots", 103), ("subscribed", "trades:pump", None)}
    for topic in ("slots", "tx:pump", "orders:43", "order:1"):
        raw.ask("subscribe", 1, topic=topic)
        assert await code(raw, 1) == 103
        raw.ask("history", 2, topic=topic)
        assert await code(raw, 2) == 103
    raw.ask("subscribe", 1, topic="trades:*")
    assert await code(raw, 1) == 102
    raw.ask("history", 2, topic="trades:pump")
    assert (await raw.json())["type"] == "history"
    assert await has(raw, "orders:42")
    raw.leave()


async def test_a_credential_is_valid_then_warned_then_expired(running: RunningGateway) -> None:
    clock = clock_of(running)
    raw = await enter(running, "/ws?subscriptions=slots", ttl_s=100)
    assert (await raw.json())["type"] == "subscribed"
    await clock.advance(44)
    assert await has(raw, "token_updates")
    await clock.advance(2)
    assert await raw.json() == {"type": "auth_expiring", "data": {"in_s": 59}}
    assert await has(raw, "trades:pump")
    await clock.advance(60)
    for kind in ("subscribe", "unsubscribe", "history", "order.get", "nonsense"):
        raw.ask(kind, 3, topic="slots")
        assert await code(raw, 3) == 109
    raw.send(frame(TEXT, b'{"type":"pong"}'))
    await running.publish("slots")
    await clock.advance(0.1)
    assert (await raw.json())["type"] == "event"  # what was subscribed goes on in the grace
    await clock.advance(25)
    assert await raw.receive() == (8, (4005).to_bytes(2, "big") + b"token expired")
    raw.leave()
    await running.clients(0)


@pytest.mark.parametrize("wait_s", [0, 50, 110])
async def test_a_newer_token_is_accepted_at_any_time(running: RunningGateway, wait_s: int) -> None:
    raw = await enter(running, ttl_s=100)
    await clock_of(running).advance(wait_s)
    if wait_s:
        assert (await raw.json())["type"] == "auth_expiring"
    raw.ask("auth", 7, token=made(running, ttl_s=HOUR))
    assert await raw.json() == {"type": "authenticated", "id": 7, "data": {"user_id": "42", "expires_in_s": HOUR + 5}}
    assert await has(raw, "slots")
    await clock_of(running).advance(100)
    assert await has(raw, "token_updates")
    raw.leave()
    await running.clients(0)


async def test_a_bad_newer_token_changes_nothing(running: RunningGateway) -> None:
    raw = await enter(running)
    for more, error in (
        ({"key": "x" * 32}, 101),
        ({"ttl_s": -10}, 109),
        ({"sub": "43"}, 103),
        ({"pad": "x" * 4000}, 101),
    ):
        raw.ask("auth", 1, token=made(running, **more))
        assert await code(raw, 1) == error
    assert await has(raw, "orders:42")
    assert not await has(raw, "orders:43")
    assert running.gateway.admission.users == {"42": 1}
    raw.leave()
    await running.clients(0)


async def test_topics_that_the_newer_token_no_longer_allows_end(running: RunningGateway) -> None:
    raw = await enter(running, "/ws?subscriptions=slots,trades:pump,orders:42")
    assert {(await raw.json())["topic"] for _ in range(3)} == {"slots", "trades:pump", "orders:42"}
    raw.ask("auth", 1, token=made(running, topics=["slots"]))
    assert (await raw.json())["type"] == "authenticated"
    ended = await raw.json()
    assert (ended["type"], ended["topic"], ended["data"]["code"]) == ("error", "trades:pump", 103)
    assert set(running.gateway.hub.topics()) == {"slots", "orders:42"}
    assert not await has(raw, "trades:pump")
    raw.ask("auth", 2, token=made(running, topics=["trades:pump", "slots"]))
    assert (await raw.json())["type"] == "authenticated"
    assert await has(raw, "trades:pump")
    raw.leave()
    await running.clients(0)


async def test_commands_held_before_a_first_token_are_bounded() -> None:
    """An issuer that stalls: commands wait up to a bound, then are refused, and all are answered in the end."""
    async with issuer() as served:
        served.stall()
        auth = AuthSettings(mode="rs256", jwks_url=served.url, jwt_audience=AUDIENCE)
        async with run_gateway(auth=auth, cmd_per_s=1000) as running:
            more: dict[str, Any] = {
                "algorithm": "RS256",
                "key": rsa_key("one"),
                "header": {"kid": "k1"},
                "aud": AUDIENCE,
            }
            text = token(now_s=running.gateway.keeper.clock.wall_ns() / 1e9, **more)
            raw, other = await Raw.open(running.port, "/ws", offer(text)), await Raw.open(running.port)
            for number in range(40):
                raw.ask("subscribe", number, topic="slots")
            assert [await code(raw, number) for number in range(32, 40)] == [101] * 8
            other.send(frame(TEXT, b'{"type":"auth","data":{"token":"a.b.c"}}'))
            assert await code(other) == 101  # who needs no look at the issuer waits for none
            served.say(b"", "503 Busy")
            assert await code(raw) == 108
            assert [await code(raw, number) for number in range(32)] == [101] * 32
            raw.ask("auth", 1, token=text)
            assert (await raw.json())["data"]["temporary"]
            served.publish(jwk(rsa_key("one"), "k1"))
            raw.leave()
            other.leave()


async def test_keys_of_an_issuer_are_read_for_clients() -> None:
    async with issuer() as served:
        served.publish(jwk(rsa_key("one"), "k1"))
        auth = AuthSettings(mode="rs256", jwks_url=served.url, jwt_audience=AUDIENCE)
        async with run_gateway(auth=auth) as running:
            now_s = running.gateway.keeper.clock.wall_ns() / 1e9
            more: dict[str, Any] = {
                "algorithm": "RS256",
                "key": rsa_key("one"),
                "header": {"kid": "k1"},
                "aud": AUDIENCE,
            }
            raw = await Raw.open(running.port, "/ws?subscriptions=slots", offer(token(now_s=now_s, **more)))
            assert [(await raw.json())["type"] for _ in range(2)] == ["welcome", "subscribed"]
            raw.leave()


async def test_no_credential_in_any_log_line_or_answer(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    heard = b""
    async with run_gateway(auth=HS256) as running:
        now_s = running.gateway.keeper.clock.wall_ns() / 1e9
        good, bad = token(now_s=now_s), token(now_s=now_s, key="y" * 40)
        shown = [good, bad, raw_token(b'{"alg":"none"}', b"{}", b"signature"), "k3yk3yk3yk3yk3yk3yk3y"]
        for text in shown:
            for path, more in (("/ws", offer(text)), (f"/ws?ticket={text}", ""), (f"/ws?token={text}", "")):
                raw = await Raw.open(running.port, path, more)
                heard += raw.head
                if b" 101 " in raw.head:
                    raw.ask("auth", 1, token=text)
                    raw.ask(text, 1, token=text)
                    raw.send(frame(8))
                heard += await raw.reader.read()
                raw.leave()
            for header in (f"Bearer {text}", f"Basic {text}", text):
                raw = await Raw.connect(running.port)
                raw.send(
                    f"GET /api/topics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                    f"Authorization: {header}\r\n\r\n".encode()
                )
                heard += await raw.reader.read()
                raw.leave()
        metrics = running.metrics.render()
    told = "".join(capsys.readouterr())
    assert "credential_refused" in told
    for text in (*shown, SECRET):
        for part in text.split("."):
            assert part not in told or len(part) < 10
            assert part.encode() not in heard + metrics or len(part) < 10
    assert "no_authentication" not in told
