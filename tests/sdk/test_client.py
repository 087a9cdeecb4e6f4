"""`follow` over a real gateway: what a lost connection missed comes, or its loss is told, and a final no is raised."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from headrace.bus import BusSettings
from headrace.bus.memory import MemoryBus
from headrace.model.errors import ConfigError
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import ManualClock, SystemClock
from headrace.runtime.supervise import Supervisor
from headrace.sdk import Refused, follow
from headrace.testing.proxy import TcpProxy
from tests.gateway.house import House, open_house

TOPIC = "trades:pump"
QUICK_S = 0.001


class Follower:
    """One client before a proxy. `frames` and `losses` are what it was given so far."""

    def __init__(self, proxy: TcpProxy) -> None:
        self.proxy = proxy
        self.frames: list[dict[str, Any]] = []
        self.losses: list[tuple[str, float]] = []

    async def run(self, topics: Sequence[str]) -> None:
        url = f"ws://127.0.0.1:{self.proxy.port}/ws"
        backoff = Backoff(QUICK_S, 20 * QUICK_S)
        async with aclosing(follow(url, topics, backoff=backoff, on_loss=self._lost)) as frames:
            async for frame in frames:
                self.frames.append(frame)

    def _lost(self, why: str, delay_s: float) -> None:
        self.losses.append((why, delay_s))

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] == kind]

    def numbers(self) -> list[int]:
        return [int(frame["offset"]) for frame in self.of_type("event")]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110  (frames come from a socket)
                await asyncio.sleep(0.001)


@asynccontextmanager
async def follower(house: House, *topics: str) -> AsyncIterator[Follower]:
    async with TcpProxy("127.0.0.1", house.port) as proxy, Supervisor(SystemClock()) as tasks:
        client = Follower(proxy)
        following = tasks.start("test", "follower", partial(client.run, topics))
        await client.until(lambda: len(client.of_type("subscribed")) == len(set(topics)))
        yield client
        following.cancel()


async def test_a_first_connection_begins_now() -> None:
    async with open_house() as house:
        await house.publish(TOPIC, 3)
        async with follower(house, TOPIC) as client:
            await house.publish(TOPIC, 2)
            await client.until(lambda: client.numbers() == [4, 5])
            ack = client.of_type("subscribed")[0]["data"]
            assert (ack["was_recovering"], ack["recovered"], ack["offset"]) == (False, False, "3")


async def test_after_cuts_nothing_is_missing_and_nothing_comes_twice() -> None:
    async with open_house() as house, follower(house, TOPIC) as client:
        for cut in range(10):
            client.proxy.cut_after(40 * cut)  # also in the middle of a frame
            await house.publish(TOPIC, 20)
            await client.until(lambda: len(client.losses) > cut)  # noqa: B023  (asked at once)
        await client.until(lambda: len(client.numbers()) >= 200)
        assert client.numbers() == list(range(1, 201))
        assert all(frame["data"]["recovered"] for frame in client.of_type("subscribed")[1:])


async def test_what_is_no_longer_there_is_told() -> None:
    async with open_house(history_size=5) as house, follower(house, TOPIC) as client:
        await house.publish(TOPIC, 1)
        await client.until(lambda: client.numbers() == [1])
        client.proxy.refuse = True
        client.proxy.cut()
        await client.until(lambda: len(client.losses) > 2)
        await house.publish(TOPIC, 20)
        client.proxy.refuse = False
        await client.until(lambda: len(client.of_type("subscribed")) == 2)
        ack = client.of_type("subscribed")[1]["data"]
        assert (ack["was_recovering"], ack["recovered"]) == (True, False)
        await house.publish(TOPIC, 1)
        await client.until(lambda: client.numbers() == [1, 22])


async def test_a_restarted_server_has_a_new_epoch() -> None:
    async with open_house() as first, follower(first, TOPIC) as client:
        await first.publish(TOPIC, 3)
        await client.until(lambda: client.numbers() == [1, 2, 3])
        second_life = MemoryBus(BusSettings(), SystemClock(), "second")
        async with open_house(second_life) as second:
            client.proxy.upstream = ("127.0.0.1", second.port)
            await second.publish(TOPIC, 7)
            await first.gateway.stop(1.0)
            await client.until(lambda: len(client.of_type("subscribed")) == 2)
            assert client.losses[0][0] == "shutdown"
            ack = client.of_type("subscribed")[1]
            assert (ack["data"]["recovered"], ack["data"]["offset"]) == (False, "7")
            await second.publish(TOPIC, 1)
            await client.until(lambda: client.numbers() == [1, 2, 3, 8])
            client.proxy.cut()
            await client.until(lambda: len(client.of_type("subscribed")) == 3)
            assert client.of_type("subscribed")[2]["data"]["recovered"]


async def test_more_topics_than_commands_a_second() -> None:
    topics = [f"tx:{name}" for name in ("pump", "pump_amm")] + [f"events:{number}" for number in range(40)]
    async with open_house(cmd_per_s=20) as house, follower(house, *topics, TOPIC, TOPIC) as client:
        assert {frame["topic"] for frame in client.of_type("subscribed")} == {*topics, TOPIC}


@pytest.mark.parametrize(
    ("topics", "path", "code", "message"),
    [
        (["no such"], "/ws", 102, "no such: unknown topic (102)"),
        ([TOPIC, "slots"], "/ws", 106, "slots: too many topics on this connection (106)"),
        ([TOPIC], "/nowhere", 404, "HTTP Not Found (404)"),
        ([TOPIC], "/ws?token=x", 401, "HTTP Unauthorized (401)"),
    ],
)
async def test_a_final_no_is_raised(topics: list[str], path: str, code: int, message: str) -> None:
    async with open_house(topics_max=1) as house:
        with pytest.raises(Refused) as refused:
            async with aclosing(follow(f"ws://127.0.0.1:{house.port}{path}", topics)) as frames:
                async for _ in frames:
                    pass
    assert (refused.value.code, str(refused.value)) == (code, message)


async def test_a_final_close_is_raised() -> None:
    async with open_house(connections_max=1) as house, follower(house, TOPIC):
        with pytest.raises(Refused, match=r"connection limit \(4504\)"):
            await anext(follow(f"ws://127.0.0.1:{house.port}/ws", [TOPIC]))


@pytest.mark.parametrize("url", ["http://127.0.0.1/ws", "127.0.0.1", "", "ws://"])
async def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^url: got .*, expected a ws:// or wss:// URL$"):
        await anext(follow(url, [TOPIC]))


async def test_delays_grow_while_nothing_comes_and_start_over_when_something_does() -> None:
    """A server that lets a client in and sends it away must not be stormed."""
    clock, visits = ManualClock(), itertools.count(1)
    losses: list[float] = []

    async def send_away(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send('{"type":"welcome","data":{}}')
        if next(visits) > 7:
            await connection.send('{"type":"event","topic":"slots","epoch":"e","offset":"1","data":{}}')
        await connection.close(4001, "shutdown")

    async def listen(url: str) -> None:
        backoff = Backoff(1.0, 64.0)
        async with aclosing(
            follow(url, ["slots"], clock=clock, backoff=backoff, on_loss=lambda _, s: losses.append(s))
        ) as frames:
            async for _ in frames:
                pass

    async with serve(send_away, "127.0.0.1", 0) as server, Supervisor(SystemClock()) as tasks:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        listening = tasks.start("test", "listen", partial(listen, url))
        async with asyncio.timeout(30):
            while len(losses) < 9:
                await asyncio.sleep(0.001)
                if clock.sleepers:
                    await clock.advance(100)
        listening.cancel()
    ceilings = [1, 2, 4, 8, 16, 32, 64, 1, 1]
    assert all(ceiling / 2 <= delay <= ceiling for delay, ceiling in zip(losses, ceilings, strict=False))


async def test_closing_the_iterator_closes_the_socket() -> None:
    async with open_house() as house:
        async with aclosing(follow(f"ws://127.0.0.1:{house.port}/ws", [TOPIC])) as frames:
            await anext(frames)
            await house.clients(1)
        await house.clients(0)


async def test_cancelling_closes_the_socket() -> None:
    async with open_house() as house:
        async with follower(house, TOPIC):
            await house.clients(1)
        await house.clients(0)


async def test_a_slow_consumer_holds_the_socket_up() -> None:
    """Nothing piles up in the client; the server counts it as slow, and what it missed comes later or is told."""
    async with open_house(history_size=100_000) as house:
        async with aclosing(
            follow(f"ws://127.0.0.1:{house.port}/ws", [TOPIC], backoff=Backoff(QUICK_S, QUICK_S))
        ) as frames:
            await anext(frames)
            for _ in range(60):
                await house.publish(TOPIC, 50, size=10_000)  # 30 MB, of which nothing is read meanwhile
                await asyncio.sleep(0)
            offsets: list[int] = []
            async with asyncio.timeout(60):
                while not offsets or offsets[-1] < 3000:
                    frame = await anext(frames)
                    if frame["type"] == "event":
                        offsets.append(int(frame["offset"]))
        assert offsets == list(range(1, 3001))
