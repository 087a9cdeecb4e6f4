"""Filters over real sockets: who gets what, what is shared, and that nothing of them stays behind."""

import gc
import json
import tracemalloc
from typing import Any

import pytest

from headrace.fanout.feeds import Feed
from headrace.fanout.groups import Group
from headrace.model.events import Message, MessageKind
from headrace.protocol.frames import event_frame
from headrace.protocol.selection import Selection
from tests.gateway.running_gateway import Raw, RunningGateway, join, run_gateway

TOPIC = "trades:pump"


def mint_is(*mints: str) -> dict[str, Any]:
    return {"key": "mint", "cmp": "in", "vals": list(mints)}


async def listen(running: RunningGateway, path: str = "/ws", **wishes: Any) -> Raw:
    raw = await join(running, path)
    raw.ask("subscribe", 1, topic=TOPIC, **wishes)
    answer = await raw.json()
    assert answer["type"] == "subscribed", answer
    return raw


async def offsets(raw: Raw, count: int) -> list[int]:
    return [int((await raw.json())["offset"]) for _ in range(count)]


def feed_of(running: RunningGateway) -> Feed:
    return running.gateway.hub._feeds[TOPIC]


async def test_passing_events_and_every_record_are_delivered() -> None:
    async with run_gateway() as running:
        raw = await listen(
            running, filter={"op": "and", "nodes": [mint_is("A"), {"key": "sol", "cmp": "gte", "val": "1"}]}
        )
        await running.tell(TOPIC, {"mint": "A", "sol": "0.99"}, {"mint": "A", "sol": "1.0"}, {"mint": "B", "sol": "7"})
        records: list[MessageKind] = ["promote", "retract", "gap"]
        for kind in records:
            await running.tell(TOPIC, {"mint": "B"}, kind=kind)
        await running.tell(TOPIC, {"mint": "A", "sol": "18446744073709551616"})
        assert await offsets(raw, 5) == [2, 4, 5, 6, 7]


async def test_a_client_without_a_filter_gets_everything() -> None:
    async with run_gateway() as running:
        everything, some, batched = (
            await listen(running),
            await listen(running, filter=mint_is("A")),
            await listen(running, "/ws?batch=1", filter=mint_is("A", "B")),
        )
        await running.tell(TOPIC, *({"mint": mint} for mint in "ABCABC"))
        assert await offsets(everything, 6) == [1, 2, 3, 4, 5, 6]
        assert await offsets(some, 2) == [1, 4]
        opcode_and_lines = await batched.receive()
        assert [json.loads(line)["offset"] for line in opcode_and_lines[1].split(b"\n")] == ["1", "2", "4", "5"]


async def test_equal_filters_are_one_and_a_message_is_framed_once_for_all() -> None:
    framed: list[int] = []

    def counting(message: Message) -> bytes:
        framed.append(message.offset)
        return event_frame(message)

    async with run_gateway(framer=counting) as running:
        clients = [await listen(running, filter=mint_is("A", f"M{n}")) for n in range(5)]
        again = [await listen(running, filter={"op": "or", "nodes": [mint_is(f"M{n}", "A")]}) for n in range(5)]
        clients.append(await listen(running))
        assert len(feed_of(running).groups()) == 6
        await running.tell(TOPIC, {"mint": "A"}, {"mint": "B"}, {"mint": "A"})
        for raw in [*clients[:5], *again]:
            assert await offsets(raw, 2) == [1, 3]
        assert await offsets(clients[5], 3) == [1, 2, 3]
        assert framed == [1, 2, 3]


async def test_unwanted_messages_are_not_framed_nor_decoded_without_filters() -> None:
    framed: list[int] = []

    def counting(message: Message) -> bytes:
        framed.append(message.offset)
        return b"{}"

    async with run_gateway(framer=counting) as running:
        raw = await listen(running, filter=mint_is("A"))
        await running.tell(TOPIC, {"mint": "B"}, {"mint": "A"})
        assert (await raw.receive())[1] == b"{}"
        assert framed == [2]


async def test_recovery_applies_the_filter_and_says_how_many_follow() -> None:
    async with run_gateway() as running:
        await running.tell(TOPIC, *({"mint": mint} for mint in "ABABABAB"))
        raw = await join(running)
        raw.ask("subscribe", 1, topic=TOPIC, filter=mint_is("A"), recover={"epoch": "g", "offset": "2"})
        data = (await raw.json())["data"]
        assert (data["offset"], data["recovered"], data["replayed"]) == ("8", True, 3)
        await running.tell(TOPIC, {"mint": "B"}, {"mint": "A"})
        assert await offsets(raw, 4) == [3, 5, 7, 10]


async def test_a_ping_has_the_newest_offset_although_nothing_passed() -> None:
    async with run_gateway(ping_s=0.3) as running:
        raw = await listen(running, filter=mint_is("A"))
        await running.tell(TOPIC, {"mint": "A"}, {"mint": "B"}, {"mint": "B"})
        assert await offsets(raw, 1) == [1]
        ping = await raw.json()
        assert (ping["type"], ping["data"]["tops"]) == ("ping", {TOPIC: "3"})


PATHOLOGICAL: list[Any] = [
    {"op": "not", "nodes": [{"op": "not", "nodes": [{"key": "a" * 200, "cmp": "ex"}]}]},
    {"op": "and", "nodes": [{"key": "a", "cmp": "ex"}] * 2000},
    {"key": "a", "cmp": "in", "vals": [str(n) for n in range(5000)]},
    {"key": "a", "cmp": "ct", "val": "x" * 60_000},
    {"key": "a", "cmp": "gt", "val": "9" * 101},
    [[[[[[[[[[]]]]]]]]]],
    True,
    "mint = 'A'",
]


@pytest.mark.parametrize("tree", PATHOLOGICAL, ids=range(len(PATHOLOGICAL)))
async def test_a_pathological_filter_is_refused_and_another_accepted(tree: Any) -> None:
    async with run_gateway() as running:
        raw = await join(running)
        raw.ask("subscribe", 1, topic=TOPIC, filter=tree)
        answer = await raw.json()
        assert (answer["type"], answer["id"], answer["data"]["code"]) == ("error", 1, 120), answer
        raw.ask("subscribe", 2, topic=TOPIC, filter=mint_is("A"))
        assert (await raw.json())["type"] == "subscribed"


async def test_filters_of_a_topic_are_bounded_together() -> None:
    async with run_gateway(filter_nodes_max=3) as running:
        first = await listen(
            running, filter={"op": "or", "nodes": [mint_is("A"), {"key": "sol", "cmp": "gt", "val": 1}]}
        )
        raw = await join(running)
        raw.ask("subscribe", 1, topic=TOPIC, filter=mint_is("B"))
        answer = (await raw.json())["data"]
        assert (answer["code"], answer["temporary"]) == (106, True)
        first.ask("unsubscribe", 2, topic=TOPIC)
        assert (await first.json())["type"] == "unsubscribed"
        raw.ask("subscribe", 3, topic=TOPIC, filter=mint_is("B"))
        assert (await raw.json())["type"] == "subscribed"


async def test_a_value_counts_as_much_as_a_node() -> None:
    async with run_gateway(filter_nodes_max=5) as running:
        await listen(running, filter=mint_is("A", "B", "C"))
        raw = await join(running)
        raw.ask("subscribe", 1, topic=TOPIC, filter=mint_is("D", "E", "F"))
        assert (await raw.json())["data"]["code"] == 106
        raw.ask("subscribe", 2, topic=TOPIC, filter=mint_is("D", "E"))
        assert (await raw.json())["type"] == "subscribed"


async def test_filters_of_a_connection_are_bounded_together() -> None:
    """Each of a hundred topics could have one that takes a hundred kilobytes."""
    largest = mint_is(*(f"M{number}" for number in range(256)))
    async with run_gateway(cmd_per_s=1000) as running:
        raw = await join(running)
        for number in range(4):
            raw.ask("subscribe", number, topic=f"app:{number}", filter=largest)
            assert (await raw.json())["type"] == "subscribed"
        raw.ask("subscribe", 4, topic="app:4", filter=mint_is("A"))
        assert (await raw.json())["data"] == {
            "code": 106, "message": "too many filters on this connection", "temporary": False, "retry_after_ms": None,
        }  # fmt: skip
        raw.ask("subscribe", 5, topic="app:5")
        assert (await raw.json())["type"] == "subscribed"
        raw.ask("unsubscribe", 6, topic="app:0")
        assert (await raw.json())["type"] == "unsubscribed"
        raw.ask("subscribe", 7, topic="app:4", filter=mint_is("A"))
        assert (await raw.json())["type"] == "subscribed"


async def come_and_go(raw: Raw, running: RunningGateway, numbers: range) -> None:
    for number in numbers:
        wishes: dict[str, Any] = {"filter": mint_is(f"M{number}", "A")}
        if number % 2:
            wishes["conflate"] = {"key": "mint", "every_ms": 60_000}
        raw.ask("subscribe", 1, topic=TOPIC, **wishes)
        assert (await raw.json())["type"] == "subscribed"
        await running.tell(TOPIC, {"mint": "A"})
        raw.ask("unsubscribe", 1, topic=TOPIC)
        while (await raw.json())["type"] != "unsubscribed":
            pass


async def test_ended_subscriptions_leave_nothing_behind() -> None:
    async with run_gateway(cmd_per_s=1_000_000, history_size=10, ping_s=3600) as running:
        raw = await join(running)
        await come_and_go(raw, running, range(300))
        gc.collect()
        tracemalloc.start(1)
        try:
            before, _ = tracemalloc.get_traced_memory()
            await come_and_go(raw, running, range(300, 1300))
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 100_000, "a hundred bytes a pair would be too much"
        assert not running.gateway.hub.topics()
        assert not len(running.gateway.hub.windows)
        left = [thing for thing in gc.get_objects() if isinstance(thing, Feed | Group | Selection)]
        assert len(left) <= 6, left
