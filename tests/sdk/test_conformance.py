"""One list of scenarios over every client: what a lost connection missed comes, or its loss is told; a no is a no."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from headrace.bus import BusSettings
from headrace.model.events import MessageKind, Publication
from headrace.runtime.clock import SystemClock
from headrace.testing.proxy import TcpProxy
from tests.gateway.browser import needs_chromium
from tests.gateway.running_gateway import RunningGateway, join, run_gateway
from tests.local_bus import LocalBus
from tests.sdk.clients import NODE, Follower, Maker, Wanted, chromium, node, python
from tests.sdk.scripted import TOPIC, Visit, open_scripted

Scenario = Callable[[Maker], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}

needs_node = pytest.mark.skipif(not NODE, reason="no node on PATH: the JavaScript client is not run in it")


def scenario(run: Scenario) -> Scenario:
    SCENARIOS[getattr(run, "__name__", "")] = run
    return run


def url_of(running: RunningGateway | TcpProxy) -> str:
    return f"ws://127.0.0.1:{running.port}/ws"


def counted(follower: Follower, last: int) -> Callable[[], bool]:
    return lambda: bool(follower.offsets()) and follower.offsets()[-1] >= last


async def tell(running: RunningGateway, kind: MessageKind, data: str) -> None:
    await running.bus.publish([Publication.on(TOPIC, kind, f'"data":{data}'.encode())])


@scenario
async def begins_now_and_knows_the_past(open_client: Maker) -> None:
    async with run_gateway() as running:
        await running.publish(TOPIC, 3)
        wanted = Wanted(url_of(running), history={"limit": 2, "reverse": True})
        async with open_client(wanted) as client:
            await client.go_on()
            await client.until(lambda: bool(client.of("history")))
            await running.publish(TOPIC, 2)
            await client.until(counted(client, 5))
            assert client.offsets() == [4, 5]
            assert client.of("started")[0]["offset"] == "3"
            (page,) = client.of("history")
            assert (page["offset"], [item["offset"] for item in page["items"]]) == ("3", ["3", "2"])
            assert client.of("position")[-1] == {"epoch": client.values[-1]["epoch"], "offset": "5"}


@scenario
async def after_cuts_nothing_is_missing_and_nothing_comes_twice(open_client: Maker) -> None:
    async with (
        run_gateway() as running,
        TcpProxy("127.0.0.1", running.port) as proxy,
        open_client(Wanted(url_of(proxy))) as client,
    ):
        await client.go_on()
        for cut in range(6):
            proxy.cut_after(57 * cut)  # also in the middle of a frame
            await running.publish(TOPIC, 20)
            await client.until(lambda: len(client.of("lost")) > cut)  # noqa: B023  (asked at once)
        await client.until(counted(client, 120))
        assert client.offsets() == list(range(1, 121))
        assert client.values == client.of_type("event")


@scenario
async def each_connection_is_reported_and_what_was_missed_is_marked(open_client: Maker) -> None:
    async with (
        run_gateway() as running,
        TcpProxy("127.0.0.1", running.port) as proxy,
        open_client(Wanted(url_of(proxy))) as client,
    ):
        await client.go_on()
        await running.publish(TOPIC)
        await client.until(counted(client, 1))
        proxy.refuse = True
        proxy.cut()
        await client.until(lambda: bool(client.of("lost")))
        await running.publish(TOPIC, 2)
        proxy.refuse = False
        await client.until(counted(client, 3))
        await running.live(TOPIC)
        await running.publish(TOPIC)
        await client.until(counted(client, 4))
        assert client.of("catching_up") == [False, True, True, False]
        assert len(client.of("welcomed")) == 2


@scenario
async def a_stored_position_is_gone_on_from(open_client: Maker) -> None:
    async with run_gateway() as running:
        positions = await running.publish(TOPIC, 5)
        recover = {"epoch": positions[1].epoch, "offset": "2"}
        async with open_client(Wanted(url_of(running), options={"recover": recover})) as client:
            await client.go_on()
            await client.until(counted(client, 5))
            assert client.of("started") == [recover]
            assert client.offsets() == [3, 4, 5]


@scenario
async def a_server_that_restarts_within_the_epoch(open_client: Maker) -> None:
    bus = LocalBus(BusSettings(), SystemClock(), "kept")
    async with (
        run_gateway(bus) as first,
        TcpProxy("127.0.0.1", first.port) as proxy,
        open_client(Wanted(url_of(proxy))) as client,
    ):
        await client.go_on()
        await first.publish(TOPIC, 3)
        await client.until(counted(client, 3))
        async with run_gateway(bus) as second:
            proxy.upstream = ("127.0.0.1", second.port)
            await first.gateway.stop(1.0)
            await second.publish(TOPIC, 3)
            await client.until(counted(client, 6))
            assert client.offsets() == list(range(1, 7))
            assert client.of("lost")[0] == "shutdown"
            assert client.values == client.of_type("event")


@scenario
async def a_server_that_restarts_with_a_new_epoch(open_client: Maker) -> None:
    async with (
        run_gateway() as first,
        TcpProxy("127.0.0.1", first.port) as proxy,
        open_client(Wanted(url_of(proxy))) as client,
    ):
        await client.go_on()
        await first.publish(TOPIC, 3)
        await client.until(counted(client, 3))
        async with run_gateway(LocalBus(BusSettings(), SystemClock(), "second")) as second:
            await second.publish(TOPIC, 7)
            proxy.upstream = ("127.0.0.1", second.port)
            await first.gateway.stop(1.0)
            await client.until(lambda: bool(client.of_type("not_recovered")))
            await second.publish(TOPIC, 1)
            await client.until(counted(client, 8))
            (lost,) = client.of_type("not_recovered")
            assert (lost["before"]["offset"], lost["now"]["offset"]) == ("3", "7")
            assert lost["before"]["epoch"] != lost["now"]["epoch"]
            assert client.offsets() == [1, 2, 3, 8]


@scenario
async def what_history_no_longer_has_is_told(open_client: Maker) -> None:
    async with (
        run_gateway(history_size=5) as running,
        TcpProxy("127.0.0.1", running.port) as proxy,
        open_client(Wanted(url_of(proxy))) as client,
    ):
        await client.go_on()
        await running.publish(TOPIC, 1)
        await client.until(counted(client, 1))
        proxy.refuse = True
        proxy.cut()
        await client.until(lambda: len(client.of("lost")) > 2)
        await running.publish(TOPIC, 20)
        proxy.refuse = False
        await client.until(lambda: bool(client.of_type("not_recovered")))
        await running.publish(TOPIC, 1)
        await client.until(counted(client, 22))
        assert [value["type"] for value in client.values] == ["event", "not_recovered", "event"]
        assert client.of("position")[1]["offset"] == "21"


@scenario
async def a_log_that_begins_anew(open_client: Maker) -> None:
    async with run_gateway() as running, open_client(Wanted(url_of(running))) as client:
        await client.go_on()
        await running.publish(TOPIC, 2)
        await client.until(counted(client, 2))
        await running.bus.renew()
        await running.publish(TOPIC, 2)
        await client.until(lambda: len(client.offsets()) == 4)
        assert client.offsets() == [1, 2, 1, 2]
        assert [value["type"] for value in client.values] == ["event", "event", "not_recovered", "event", "event"]


@scenario
async def verdicts_and_gaps(open_client: Maker) -> None:
    async with run_gateway() as running, open_client(Wanted(url_of(running))) as client:
        await client.go_on()
        await tell(running, "promote", '{"slot":"7","commitment":"confirmed"}')
        await tell(running, "retract", '{"event_ids":["a"],"reason":"fork"}')
        gap = '{"gap_id":"g1","from_slot":"1","to_slot":"9","state":"open","reason":"disconnected"}'
        await tell(running, "gap", gap)
        await client.until(lambda: len(client.values) == 3)
        assert [(value["type"], value["offset"]) for value in client.values] == [
            ("promote", "1"), ("retract", "2"), ("gap", "3"),
        ]  # fmt: skip
        assert client.values[2]["data"]["state"] == "open"


@scenario
async def a_slow_reader_learns_all(open_client: Maker) -> None:
    async with (
        run_gateway(history_size=10_000, cmd_per_s=1000) as running,
        open_client(Wanted(url_of(running), client={"queue": 64})) as client,
    ):
        await client.begun()
        await running.publish(TOPIC, 500)
        async with asyncio.timeout(30):
            while TOPIC in running.gateway.hub.topics():  # noqa: ASYNC110  (the hub tells nobody)
                await asyncio.sleep(0.005)
        await client.go()
        await client.until(counted(client, 500))
        assert client.offsets() == list(range(1, 501))


@scenario
async def a_lag_is_told_and_gone_on_from(open_client: Maker) -> None:
    async with open_scripted() as server, open_client(Wanted(server.url)) as client:
        visit = await first_visit(server.visit(), client)
        await visit.events(1, 2)
        await visit.say("lag", {"from_offset": "3", "to_offset": "40", "dropped": 38}, topic=TOPIC)
        await visit.close(4008, "too slow")
        visit = await server.visit()
        await visit.welcome()
        command = await visit.accept(42, recovered=True)
        assert command["data"]["recover"] == {"epoch": "e", "offset": "40"}
        await visit.events(41, 42)
        await client.until(counted(client, 42))
        assert client.offsets() == [1, 2, 41, 42]
        assert client.of_type("lag")[0]["data"]["dropped"] == 38


@scenario
async def what_a_conflating_lag_leaves_is_not_taken_for_repeats(open_client: Maker) -> None:
    options = {"conflate": {"key": "mint", "every_ms": 250}, "onSlow": "conflate"}
    async with open_scripted() as server, open_client(Wanted(server.url, options=options)) as client:
        visit = await first_visit(server.visit(), client)
        await visit.events(1, 2)
        lag = {"epoch": "e", "from_offset": "3", "to_offset": "40", "dropped": 35}
        await visit.say("lag", lag, topic=TOPIC)
        await visit.events(7, 38)
        await visit.close(1011)  # before the third came: it is asked for again
        visit = await server.visit()
        await visit.welcome()
        command = await visit.accept(40, recovered=True)
        assert command["data"]["recover"] == {"epoch": "e", "offset": "38"}
        await visit.events(40)
        await client.until(counted(client, 40))
        assert client.offsets() == [1, 2, 7, 38, 40]
        assert [value["data"] for value in client.of_type("lag")] == [lag]


@scenario
async def a_jump_is_asked_for_again_and_then_told(open_client: Maker) -> None:
    async with open_scripted() as server, open_client(Wanted(server.url)) as client:
        visit = await first_visit(server.visit(), client)
        await visit.events(1, 5, 6)
        await visit.heard("unsubscribe")
        await visit.accept(6, recovered=True)
        await visit.events(2, 3, 6)  # another jump: this one stays when it is asked for again
        await visit.heard("unsubscribe")
        await visit.accept(6, recovered=True)
        await visit.events(6)
        await client.until(counted(client, 6))
        assert client.offsets() == [1, 2, 3, 6]
        data = {"epoch": "e", "from_offset": "4", "to_offset": "5", "dropped": 2}
        assert client.of_type("lag") == [{"type": "lag", "topic": TOPIC, "data": data}]


@scenario
async def repeats_are_dropped(open_client: Maker) -> None:
    async with open_scripted() as server, open_client(Wanted(server.url)) as client:
        visit = await first_visit(server.visit(), client)
        await visit.events(1, 2, 2, 1)
        await visit.close(4001, "shutdown")
        visit = await server.visit()
        await visit.welcome()
        await visit.accept(3, recovered=True)
        await visit.events(1, 2, 3)
        await client.until(counted(client, 3))
        assert client.offsets() == [1, 2, 3]


@scenario
async def a_filter_moves_on_by_heartbeats(open_client: Maker) -> None:
    options = {"filter": {"key": "sol", "cmp": "gte", "val": "1"}, "conflate": {"key": "mint", "every_ms": 250}}
    async with (
        open_scripted() as server,
        open_client(Wanted(server.url, options=options | {"onSlow": "conflate"})) as client,
    ):
        visit = await server.visit()
        await visit.welcome()
        command = await visit.accept(0)
        assert command["data"] == {"topic": TOPIC, **options, "on_slow": "conflate"}
        await client.go_on()
        await visit.events(4, 9)
        await visit.say("ping", {"ts": 1, "head": {"processed": "7", "confirmed": None}, "tops": {TOPIC: "30"}})
        await visit.heard("pong")
        await visit.close(1011)
        visit = await server.visit()
        await visit.welcome()
        command = await visit.accept(31, recovered=True)
        assert command["data"]["recover"]["offset"] == "30"
        await visit.events(31)
        await client.until(counted(client, 31))
        assert client.offsets() == [4, 9, 31]


@scenario
async def a_snapshot_comes_before_what_follows(open_client: Maker) -> None:
    async with (
        open_scripted() as server,
        open_client(Wanted(server.url, options={"snapshot": True})) as client,
    ):
        visit = await server.visit()
        await visit.welcome()
        assert (await visit.accept(12))["data"]["snapshot"] is True
        await client.go_on()
        item = {"type": "event", "topic": TOPIC, "epoch": "e", "offset": "1", "event_id": "i", "data": {}}
        for following in (2, None):
            page = {"as_of_slot": "5", "items": [item], "next": following}
            await visit.say("snapshot", page, topic=TOPIC, epoch="e", offset="10")
        await visit.events(11, 12, 13)
        await client.until(counted(client, 13))
        assert client.of("started") == [None]
        kinds = [(value["type"], value.get("first"), value.get("last")) for value in client.values[:2]]
        assert kinds == [("snapshot", True, False), ("snapshot", False, True)]
        assert [position and position["offset"] for position in client.of("position")] == [
            None, "10", "11", "12", "13",
        ]  # fmt: skip


@scenario
async def a_dead_connection_is_left(open_client: Maker) -> None:
    async with open_scripted() as server, open_client(Wanted(server.url)) as client:
        visit = await server.visit()
        await visit.welcome(0.1, 0.1)
        await visit.accept(0)
        await client.go_on()
        await visit.events(1)
        again = await server.visit()  # though nobody closed the first
        await again.welcome()
        await again.accept(2, recovered=True)
        await again.events(2)
        await client.until(counted(client, 2))
        assert client.offsets() == [1, 2]


@scenario
async def a_token_is_renewed(open_client: Maker) -> None:
    async with open_scripted() as server, open_client(Wanted(server.url, tokens=["one", "two", "three"])) as client:
        visit = await first_visit(server.visit(), client)
        assert visit.offered == ["stream.v1", "jwt.one"]
        await visit.say("auth_expiring", {"in_s": 60})
        command = await visit.heard("auth")
        assert command["data"] == {"token": "two"}
        await visit.say("authenticated", {"user_id": "42", "expires_in_s": 600}, id=command["id"])
        await visit.events(1)
        await client.until(counted(client, 1))
        await visit.close(4005, "expired")
        visit = await server.visit()
        assert visit.offered == ["stream.v1", "jwt.three"]
        await visit.welcome()
        await visit.accept(1, recovered=True)
        await visit.events(2)
        await client.until(counted(client, 2))


@scenario
async def one_token_is_asked_for_at_a_time(open_client: Maker) -> None:
    """A server that checks one refuses the next, and whoever gives them is not stormed."""
    async with open_scripted() as server, open_client(Wanted(server.url, tokens=["one", "two", "three"])) as client:
        visit = await first_visit(server.visit(), client)
        for _ in range(3):
            await visit.say("auth_expiring", {"in_s": 60})
        too_old = await visit.heard("auth")
        assert too_old["data"] == {"token": "two"}
        await visit.say("auth_expiring", {"in_s": 30})
        await visit.say("error", {"code": 109, "message": "token expired", "temporary": False}, id=too_old["id"])
        newer = await visit.heard("auth")
        assert newer["data"] == {"token": "three"}
        await visit.say("authenticated", {"user_id": "42", "expires_in_s": 600}, id=newer["id"])
        await visit.say("ping", {"ts": 5, "head": {}, "upstream_lag_ms": None, "tops": {}})
        await visit.heard("pong")
        await visit.say("auth_expiring", {"in_s": 60})
        assert (await visit.heard("auth"))["data"] == {"token": "three"}


@scenario
async def whoever_gives_tokens_is_away_for_a_while(open_client: Maker) -> None:
    tokens = [None, "one", None, "two"]
    async with open_scripted() as server, open_client(Wanted(server.url, tokens=tokens)) as client:
        visit = await first_visit(server.visit(), client)
        assert visit.offered == ["stream.v1", "jwt.one"]
        assert len(client.of("lost")) == 1
        await visit.say("auth_expiring", {"in_s": 60})
        assert (await visit.heard("auth"))["data"] == {"token": "two"}
        await visit.events(1)
        await client.until(counted(client, 1))


@scenario
async def a_token_that_can_not_be_shown(open_client: Maker) -> None:
    async with run_gateway() as running, open_client(Wanted(url_of(running), client={"token": "not one"})) as client:
        await client.until(lambda: bool(client.of("refused")))
        assert client.of("refused") == [4500]


@scenario
async def who_has_no_token_does_not_come_back_for_one(open_client: Maker) -> None:
    async with open_scripted() as server, open_client(Wanted(server.url)) as client:
        await (await server.visit()).close(4002, "authentication timed out")
        await client.until(lambda: bool(client.of("refused")))
        assert client.of("refused") == [4002]


@scenario
async def a_token_in_the_first_frame(open_client: Maker) -> None:
    wanted = {"token": "one", "credential": "frame"}
    async with open_scripted() as server, open_client(Wanted(server.url, client=wanted)) as client:
        visit = await server.visit()
        assert visit.offered == []
        command = await visit.heard("auth")
        assert command["data"] == {"token": "one"}
        await visit.welcome()
        await visit.say("authenticated", {"user_id": "42", "expires_in_s": 600}, id=command["id"])
        await visit.accept(0)
        await visit.say("error", {"code": 108, "message": "unavailable", "temporary": True}, id=77)
        await client.go_on()
        await visit.close(4005, "expired")  # and there is no other token
        await client.until(lambda: bool(client.of("refused")))
        assert client.of("refused") == [4005]


@scenario
async def a_message_is_acknowledged_until_the_server_knows(open_client: Maker) -> None:
    async with open_scripted() as server, open_client(Wanted(server.url, topic="user:42")) as client:
        for attempt in range(2):
            visit = await server.visit()
            await visit.welcome()
            await client.go_on()
            await visit.events(17, topic="user:42", ack=True)
            command = await visit.heard("ack")
            assert command["data"] == {"topic": "user:42", "offset": "17"}
            if not attempt:
                await visit.close(4001)
        await client.until(counted(client, 17))
        assert client.offsets() == [17]


@scenario
async def whatever_happens_is_whole_or_told(open_client: Maker) -> None:
    """Publishing, cuts, stalls, restarts, forgetting and beginning anew, as chance has it."""
    chance = random.Random(7)
    bus = LocalBus(BusSettings(history_size=40), SystemClock(), "kept")
    async with AsyncExitStack() as lives:
        running = await lives.enter_async_context(run_gateway(bus, cmd_per_s=1000))
        proxy = await lives.enter_async_context(TcpProxy("127.0.0.1", running.port))
        client = await lives.enter_async_context(open_client(Wanted(url_of(proxy), client={"queue": 16})))
        await client.go_on()
        for step in range(64):
            if not step % 8:
                await all_came(bus, proxy, client)
            match chance.randrange(10):
                case 0:
                    proxy.cut()
                case 1:
                    proxy.cut_after(chance.randrange(2000))
                case 2:
                    proxy.stalled = not proxy.stalled
                case 3:
                    await bus.renew()
                case 4:
                    next_house = await lives.enter_async_context(run_gateway(bus, cmd_per_s=1000))
                    proxy.upstream = ("127.0.0.1", next_house.port)
                    await running.gateway.stop(0.01)
                    running = next_house
                case _:
                    await running.publish(TOPIC, chance.randrange(30))
                    await client.look()
        await all_came(bus, proxy, client)
        check_whole_or_told(client.of("started")[0], client.values)
        assert client.of_type("not_recovered")
        assert len(client.of_type("event")) >= 9


async def all_came(bus: LocalBus, proxy: TcpProxy, client: Follower) -> None:
    """Let things run until the client is where the topic is."""
    proxy.stalled = False
    (last,) = await bus.publish([Publication.on(TOPIC, "event", b'"event_id":"e","data":{},"chain":{}')])
    end = {"epoch": last.epoch, "offset": str(last.offset)}
    await client.until(lambda: client.of("position")[-1:] == [end])


def check_whole_or_told(here: dict[str, str], values: list[Any]) -> None:
    """Every step is to the next offset, or says where it goes on; nothing comes twice or out of order."""
    for value in values:
        match value["type"]:
            case "not_recovered":
                assert value["before"] == here
                here = value["now"]
            case "lag":
                assert value["data"]["from_offset"] == str(int(here["offset"]) + 1)
                here = here | {"offset": value["data"]["to_offset"]}
            case _:
                assert (value["epoch"], int(value["offset"])) == (here["epoch"], int(here["offset"]) + 1)
                here = {"epoch": value["epoch"], "offset": value["offset"]}


@scenario
async def a_final_close_is_final(open_client: Maker) -> None:
    async with run_gateway(connections_max=1) as running:
        await join(running)
        async with open_client(Wanted(url_of(running))) as client:
            await client.until(lambda: bool(client.of("refused")))
            assert client.of("refused") == [4504]
            assert client.of("lost") == []


@scenario
async def a_topic_that_is_none(open_client: Maker) -> None:
    async with run_gateway() as running, open_client(Wanted(url_of(running), topic="nonsense")) as client:
        await client.until(lambda: bool(client.of("refused")))
        assert client.of("refused") == [102]


async def first_visit(visiting: Awaitable[Visit], client: Follower) -> Visit:
    """Welcome a client to an empty topic."""
    visit = await visiting
    await visit.welcome()
    await visit.accept(0)
    await client.go_on()
    return visit


@pytest.mark.parametrize("name", SCENARIOS)
async def test_python_client_keeps_every_promise_in_each_scenario(name: str) -> None:
    await SCENARIOS[name](python)


@needs_node
@pytest.mark.parametrize("name", SCENARIOS)
async def test_node_client_keeps_every_promise_in_each_scenario(name: str) -> None:
    await SCENARIOS[name](node)


@needs_node
async def test_a_handshake_without_answer_is_given_up_and_tried_again() -> None:
    """Another is tried: some runtimes never say that a connection was reset before it was open."""
    async with run_gateway() as running, TcpProxy("127.0.0.1", running.port) as proxy:
        proxy.stalled = True
        async with node(Wanted(url_of(proxy), client={"openMs": 100})) as client:
            await client.until(lambda: proxy.connections > 1)
            assert client.of("lost")[0] == "no answer to the handshake"
            proxy.stalled = False
            await client.go_on()


@needs_chromium
async def test_browser_client_keeps_every_promise_in_each_scenario() -> None:
    """All of them in one browser, which takes a while to start."""
    async with chromium() as open_client:
        for name, run in SCENARIOS.items():
            try:
                await run(open_client)
            except AssertionError as failure:
                raise AssertionError(name) from failure
