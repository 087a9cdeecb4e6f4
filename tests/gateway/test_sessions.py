"""The wire protocol over real sockets: every command, every answer, every limit of a connection."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import pytest_asyncio

from headrace.model.events import Publication
from headrace.model.topics import TOPIC_LENGTH_MAX
from tests.gateway.running_gateway import BINARY, TEXT, Raw, RunningGateway, frame, join, run_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running() -> AsyncIterator[RunningGateway]:
    async with run_gateway(topics_max=4) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def raw(running: RunningGateway) -> AsyncIterator[Raw]:
    raw = await join(running)
    yield raw
    raw.leave()


async def subscribed(raw: Raw, topic: str, **data: Any) -> Any:
    raw.ask("subscribe", 1, topic=topic, **data)
    answer = await raw.json()
    assert answer["type"] == "subscribed", answer
    return answer["data"]


async def test_metrics_are_read_while_topics_come_and_go() -> None:
    """In a thread: what the loop changes meanwhile must not be walked through."""
    async with run_gateway(cmd_per_s=1_000_000, topics_max=1000) as running:
        raw = await join(running)
        for number in range(300):
            raw.ask("subscribe", topic=f"app:{number}")
        await running.subscriptions(300)

        def read() -> None:
            for _ in range(300):
                running.metrics.registry.get_sample_value("headrace_gateway_subscriptions")

        reading = asyncio.create_task(asyncio.to_thread(read))
        while not reading.done():
            raw.ask("unsubscribe", topic="app:7")
            raw.ask("subscribe", topic="app:7")
            await asyncio.sleep(0)
        await reading
        raw.leave()


async def test_welcome_has_the_user_and_the_limits(running: RunningGateway) -> None:
    raw = await Raw.open(running.port, "/ws?user_id=42")
    welcome = await raw.json()
    assert welcome["data"].pop("connection_id").startswith("c")
    assert welcome == {
        "type": "welcome",
        "data": {
            "user_id": "42",
            "server_id": "server-1",
            "ping_s": 30,
            "pong_s": 8,
            "limits": {"topics": 4, "frame": 65536, "cmd_per_s": 20},
        },
    }
    raw.leave()


async def test_the_promised_forms_of_subscribing(running: RunningGateway) -> None:
    raw = await join(running)
    raw.send(frame(TEXT, b'{"type":"subscribe","data":{"topic":"token_updates"}}'))
    answer = await raw.json()
    assert (answer["type"], answer["topic"]) == ("subscribed", "token_updates")
    assert "id" not in answer
    await running.publish("token_updates")
    assert (await raw.json())["topic"] == "token_updates"
    raw.leave()


async def test_subscriptions_in_the_url_are_answered_by_topic(running: RunningGateway) -> None:
    raw = await join(running, "/ws?subscriptions=token_updates,nonsense,slots,slots")
    answers = [await raw.json() for _ in range(4)]
    seen = {(answer["type"], answer["topic"], answer["data"].get("code")) for answer in answers}
    assert seen == {
        ("subscribed", "token_updates", None),
        ("error", "nonsense", 102),
        ("subscribed", "slots", None),
        ("error", "slots", 105),
    }
    raw.leave()


async def test_any_printable_user_in_the_url_is_accepted(running: RunningGateway) -> None:
    every = "".join(map(chr, range(32, 127)))
    topics = [f"orders:{every}", "orders:,", "orders:%2C", "orders:%"]
    listed = ",".join(quote(topic, safe="") for topic in topics)
    raw = await join(running, "/ws?" + urlencode({"subscriptions": listed}))
    assert {(await raw.json())["topic"] for _ in topics} == set(topics)
    raw.leave()
    plain = await join(running, f"/ws?subscriptions=orders:100%25,slots%2Ctoken_updates,orders:{quote('a b')}")
    assert {(await plain.json())["topic"] for _ in range(4)} == {"orders:100%", "slots", "token_updates", "orders:a b"}
    plain.leave()


async def test_an_event_frame_is_exactly_as_promised(running: RunningGateway, raw: Raw) -> None:
    topic = f"account:{KEY}"
    top = await subscribed(raw, topic)
    assert {key: top[key] for key in ("was_recovering", "recovered", "replayed")} == {
        "was_recovering": False,
        "recovered": False,
        "replayed": 0,
    }
    body = b'"event_id":"1:5s:3.1:0","data":{"type":"Trade"},"chain":{"slot":"1"}'
    [position] = await running.bus.publish([Publication.on(topic, "event", body)])
    _, payload = await raw.receive()
    expected = b'{"type":"event","topic":"%b","epoch":"%b","offset":"%d",%b}'
    assert payload == expected % (topic.encode(), position.epoch.encode(), position.offset, body)
    assert json.loads(payload)["data"] == {"type": "Trade"}


@pytest.mark.parametrize("kind", ["promote", "retract", "gap"])
async def test_records_take_offsets_like_events(running: RunningGateway, raw: Raw, kind: Any) -> None:
    top = await subscribed(raw, "trades:pump")
    await running.bus.publish([Publication.on("trades:pump", kind, b'"data":{"slot":"9"}')])
    await running.publish("trades:pump")
    record, event = await raw.json(), await raw.json()
    assert (record["type"], record["data"]) == (kind, {"slot": "9"})
    assert [int(record["offset"]), int(event["offset"])] == [int(top["offset"]) + 1, int(top["offset"]) + 2]


async def test_unsubscribe_ends_delivery_and_allows_another_subscribe(running: RunningGateway, raw: Raw) -> None:
    await subscribed(raw, "slots")
    raw.ask("unsubscribe", "x", topic="slots")
    assert await raw.json() == {"type": "unsubscribed", "id": "x", "topic": "slots"}
    await running.publish("slots", 3)
    top = await subscribed(raw, "slots")
    await running.publish("slots")
    assert int((await raw.json())["offset"]) == int(top["offset"]) + 1


async def test_recover_replays_exactly_what_was_missed(running: RunningGateway) -> None:
    first = await join(running)
    top = await subscribed(first, "trades:raydium")
    first.leave()
    await running.publish("trades:raydium", 5)
    raw = await join(running)
    again = await subscribed(raw, "trades:raydium", recover={"epoch": top["epoch"], "offset": top["offset"]})
    assert (again["was_recovering"], again["recovered"], again["replayed"]) == (True, True, 5)
    await running.publish("trades:raydium", 2)
    start = int(top["offset"])
    assert [int((await raw.json())["offset"]) for _ in range(7)] == list(range(start + 1, start + 8))
    assert int(again["offset"]) == start + 5
    raw.leave()


@pytest.mark.parametrize(
    "position", [{"epoch": "other", "offset": "0"}, {"epoch": "g", "offset": "18446744073709551615"}]
)
async def test_an_unrecoverable_position_is_not_recovered(running: RunningGateway, raw: Raw, position: Any) -> None:
    await running.publish("events:pump", 3)
    top = await subscribed(raw, "events:pump", recover=position)
    assert (top["was_recovering"], top["recovered"], top["replayed"]) == (True, False, 0)
    await running.publish("events:pump")
    assert int((await raw.json())["offset"]) == int(top["offset"]) + 1


async def test_history_pages_forwards_and_backwards(running: RunningGateway, raw: Raw) -> None:
    positions = await running.publish("tx:pump", 5)
    epoch = positions[0].epoch
    raw.ask("history", 5, topic="tx:pump", since={"epoch": epoch, "offset": "1"}, limit=2)
    page = await raw.json()
    assert (page["type"], page["id"], page["topic"]) == ("history", 5, "tx:pump")
    assert (page["data"]["epoch"], page["data"]["offset"]) == (epoch, "5")
    assert [item["offset"] for item in page["data"]["items"]] == ["2", "3"]
    assert page["data"]["items"][0]["type"] == "event"
    raw.ask("history", 6, topic="tx:pump", reverse=True, limit=3)
    assert [item["offset"] for item in (await raw.json())["data"]["items"]] == ["5", "4", "3"]
    raw.ask("history", 7, topic="tx:pump", since={"epoch": "gone", "offset": "1"})
    assert (await raw.json())["data"]["code"] == 112


BAD_DATA: list[tuple[str, int]] = [
    ('{"type":"nonsense"}', 107),
    ('{"type":"subscribe"}', 107),
    ('{"type":"subscribe","data":null}', 107),
    ('{"type":"subscribe","data":[]}', 107),
    ('{"type":"subscribe","data":{"topic":7}}', 107),
    ('{"type":"subscribe","data":{"topic":""}}', 107),
    ('{"type":"subscribe","data":{"topic":"%s"}}' % ("a" * (TOPIC_LENGTH_MAX + 1)), 107),
    ('{"type":"subscribe","data":{"topic":"*"}}', 102),
    ('{"type":"subscribe","data":{"topic":"trades:"}}', 102),
    ('{"type":"subscribe","data":{"topic":"trades:*"}}', 102),
    ('{"type":"subscribe","data":{"topic":"trades:PUMP"}}', 102),
    ('{"type":"subscribe","data":{"topic":"Trades:pump"}}', 102),
    ('{"type":"subscribe","data":{"topic":" slots"}}', 102),
    ('{"type":"subscribe","data":{"topic":"slots\\u0000"}}', 102),
    ('{"type":"subscribe","data":{"topic":"sl\\u043ets"}}', 102),
    ('{"type":"subscribe","data":{"topic":"slots:1"}}', 102),
    ('{"type":"subscribe","data":{"topic":"user:42"}}', 102),
    ('{"type":"subscribe","data":{"topic":"account:../../etc"}}', 102),
    ('{"type":"subscribe","data":{"topic":"slots","recover":7}}', 107),
    ('{"type":"subscribe","data":{"topic":"slots","recover":{"epoch":"e","offset":"-1"}}}', 107),
    ('{"type":"subscribe","data":{"topic":"slots","recover":{"epoch":"e","offset":"1\\n"}}}', 107),
    ('{"type":"subscribe","data":{"topic":"slots","recover":{"epoch":"e","offset":"18446744073709551616"}}}', 107),
    ('{"type":"subscribe","data":{"topic":"slots","recover":{"epoch":"e","offset":1}}}', 107),
    ('{"type":"subscribe","data":{"topic":"slots","recover":{"epoch":"","offset":"1"}}}', 107),
    ('{"type":"subscribe","data":{"topic":"slots","filter":{"op":"and","nodes":[]}}}', 120),
    ('{"type":"subscribe","data":{"topic":"slots","conflate":{"key":"mint","every_ms":9}}}', 107),
    ('{"type":"subscribe","data":{"topic":"slots","conflate":{"key":"mint","every_ms":60001}}}', 107),
    ('{"type":"subscribe","data":{"topic":"slots","conflate":{"key":"mint..x","every_ms":250}}}', 107),
    ('{"type":"subscribe","data":{"topic":"slots","conflate":{"every_ms":250}}}', 107),
    ('{"type":"subscribe","data":{"topic":"slots","conflate":["mint"]}}', 107),
    ('{"type":"subscribe","data":{"topic":"slots","snapshot":true}}', 107),
    ('{"type":"subscribe","data":{"topic":"slots","on_slow":"conflate"}}', 107),
    ('{"type":"subscribe","data":{"topic":"slots","on_slow":"never"}}', 107),
    ('{"type":"unsubscribe","data":{"topic":"slots"}}', 107),
    ('{"type":"history","data":{"topic":"nonsense"}}', 102),
    ('{"type":"history","data":{"topic":"slots","limit":0}}', 107),
    ('{"type":"history","data":{"topic":"slots","limit":1001}}', 107),
    ('{"type":"history","data":{"topic":"slots","limit":1e300}}', 107),
    ('{"type":"auth","data":{"token":"x"}}', 107),
    ('{"type":"ack","data":{"topic":"user:42","offset":"17"}}', 103),
    ('{"type":"ack","data":{"topic":"user:42","offset":17}}', 107),
    ('{"type":"ack","data":{"topic":"user:42","offset":"-1"}}', 107),
    ('{"type":"ack"}', 107),
    ("[" * 30_000, 107),
    ('{"type":"subscribe","data":' + '{"a":' * 10_000, 107),
    ('{"type":"subscribe","data":{"topic":"slots","filter":' + "[" * 5_000 + "]" * 5_000 + "}}", 107),
    ("", 107),
    ("null", 107),
    ("[]", 107),
    ("{", 107),
    ('{"type":7}', 107),
    ('{"type":"subscribe","id":{},"data":{"topic":"slots"}}', 107),
    ('{"type":"subscribe","id":%s,"data":{"topic":"slots"}}' % ("9" * 5000), 107),
    ('{"type":"subscribe","id":"%s","data":{"topic":"slots"}}' % ("9" * 65), 107),
    ('{"type":"pong"}{"type":"pong"}', 107),
]


@pytest.mark.parametrize(("text", "code"), BAD_DATA, ids=[text[:70] for text, _ in BAD_DATA])
async def test_wrong_commands_are_answered_and_the_connection_lives_on(
    running: RunningGateway, raw: Raw, text: str, code: int
) -> None:
    raw.send(frame(TEXT, text.encode()))
    answer = await raw.json()
    assert (answer["type"], answer["data"]["code"]) == ("error", code), answer
    assert set(answer["data"]) == {"code", "message", "temporary", "retry_after_ms"}
    assert len(answer["data"]["message"]) < 60
    await subscribed(raw, "token_updates")


@pytest.mark.parametrize("request_id", [0, 7, -1, 2**53 - 1, "seven", "", '"}\\'])
async def test_ids_are_echoed_unchanged(raw: Raw, request_id: Any) -> None:
    raw.ask("subscribe", request_id, topic="nonsense")
    assert (await raw.json())["id"] == request_id


async def test_a_second_subscribe_to_a_topic_is_refused(raw: Raw) -> None:
    await subscribed(raw, "slots")
    raw.ask("subscribe", 2, topic="slots")
    answer = await raw.json()
    assert (answer["id"], answer["data"]["code"]) == (2, 105)


async def test_topics_of_a_connection_are_limited(raw: Raw) -> None:
    for program in ("a", "b", "c", "d"):
        await subscribed(raw, f"trades:{program}")
    raw.ask("subscribe", 5, topic="trades:e")
    assert (await raw.json())["data"]["code"] == 106
    raw.ask("unsubscribe", 6, topic="trades:a")
    assert (await raw.json())["type"] == "unsubscribed"
    await subscribed(raw, "trades:e")


async def test_binary_frames_are_not_commands(raw: Raw) -> None:
    raw.send(frame(BINARY, b'{"type":"subscribe","data":{"topic":"slots"}}'))
    assert (await raw.json())["data"]["code"] == 107


async def test_garbage_without_end_is_malformed(raw: Raw) -> None:
    raw.send(frame(TEXT, b"garbage") * 10)
    assert [(await raw.json())["data"]["code"] for _ in range(10)] == [107] * 10
    assert await raw.closed() == 4501


async def test_the_command_rate_is_held_and_in_the_end_enforced(raw: Raw) -> None:
    raw.send(frame(TEXT, b'{"type":"unsubscribe","data":{"topic":"slots"}}') * 200)
    codes: list[int] = []
    while True:
        opcode, payload = await raw.receive()
        if opcode != TEXT:
            break
        codes.append(json.loads(payload)["data"]["code"])
        if codes[-1] == 111:
            failure = json.loads(payload)["data"]
            assert failure["temporary"]
            assert 0 < failure["retry_after_ms"] <= 51
    assert codes[:20] == [107] * 20
    assert set(codes[25:]) == {111}
    assert int.from_bytes(payload[:2], "big") == 4013


async def test_batch_frames_hold_an_object_a_line(running: RunningGateway) -> None:
    raw = await join(running, "/ws?batch=1")
    await subscribed(raw, "slots")
    await running.publish("slots", 50)
    offsets: list[int] = []
    frames = 0
    while len(offsets) < 50:
        opcode, payload = await raw.receive()
        assert opcode == TEXT
        frames += 1
        offsets += [int(json.loads(line)["offset"]) for line in payload.split(b"\n")]
    assert offsets == list(range(offsets[0], offsets[0] + 50))
    assert frames == 1
    raw.leave()


async def test_one_client_of_two_topics_gets_each_in_order(running: RunningGateway, raw: Raw) -> None:
    await subscribed(raw, "slots")
    await subscribed(raw, "token_updates")
    for _ in range(20):
        await running.publish("slots", 2)
        await running.publish("token_updates", 3)
    seen: dict[str, list[int]] = {"slots": [], "token_updates": []}
    for _ in range(100):
        event = await raw.json()
        seen[event["topic"]].append(int(event["offset"]))
    assert all(offsets == list(range(offsets[0], offsets[0] + len(offsets))) for offsets in seen.values())


async def test_many_subscriptions_leave_nothing_behind() -> None:
    async with run_gateway(cmd_per_s=1_000_000) as quiet:
        raw = await join(quiet)
        for _ in range(40):
            for number in range(250):
                raw.ask("subscribe", number, topic=f"trades:p{number % 50}")
                raw.ask("unsubscribe", number, topic=f"trades:p{number % 50}")
            for _ in range(500):
                await raw.json()
        hub = quiet.gateway.hub
        assert (hub.subscriptions, hub.topics()) == (0, {})
        ending = [task for task in asyncio.all_tasks() if "catch_up" in task.get_name()]
        if ending:  # the last answers may be here before the tasks that wrote them have ended
            _, pending = await asyncio.wait(ending, timeout=5)
            assert not pending
        raw.leave()


async def test_connections_are_limited_with_4504() -> None:
    async with run_gateway(connections_max=2) as small:
        first, second = await join(small), await join(small)
        third = await Raw.open(small.port)
        assert await third.closed() == 4504
        third.leave()
        first.leave()
        await small.clients(1)
        (await join(small)).leave()
        second.leave()


async def test_a_start_without_authentication_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    async with run_gateway():
        pass
    captured = capsys.readouterr()
    assert "no_authentication" in captured.out + captured.err
