"""The channel for other programs on a real server: what comes becomes a broadcast once, what goes out is recognised."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from headrace.bus import BusSettings
from headrace.cluster import CHANNEL
from headrace.cluster.redis import RedisCluster
from headrace.config import load
from headrace.gateway.broadcasts import Broadcast, Broadcasts
from headrace.gateway.channel import WAITING_BYTES, Channel
from headrace.inbox import InboxSettings
from headrace.inbox.sqlite import SqliteInbox
from headrace.redis.connection import Redis
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.service.server import Service
from headrace.service.settings import REGISTERS
from headrace.testing.valkey import Valkey
from tests.flow.life import QUICK
from tests.gateway.running_gateway import Raw
from tests.local_bus import LocalBus
from tests.redis.servers import new_prefix, started, valkey

__all__ = ["valkey"]

PATIENCE_S = 20.0
NEWS: dict[str, Any] = {"id": "1", "from": "shop", "target": {"topic": "app:news"}, "data": {"n": 1}}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Server:
    """The channel of one server, over a bus of its own. `leads` says whether it sends what others publish."""

    def __init__(self, cluster: RedisCluster, inbox: SqliteInbox) -> None:
        self.bus = LocalBus(BusSettings(), SystemClock(), "g")
        self.metrics, self.leads = Metrics(), True
        sender = Broadcasts(self.bus.writers, inbox, "a")
        self.channel = Channel(cluster, sender, "a", lambda: self.leads, SystemClock(), self.metrics)

    def count(self, outcome: str) -> float:
        labels = {"outcome": outcome}
        return self.metrics.registry.get_sample_value("headrace_channel_messages_total", labels) or 0.0

    async def events(self, topic: str) -> list[Any]:
        page = await self.bus.history(topic, None, 100)
        return [msgspec.json.decode(b"{%b}" % message.body) for message in page.messages]


class Program:
    """Another program on the same Redis."""

    def __init__(self, redis: Redis, channel: str) -> None:
        self.redis, self.channel = redis, channel

    async def publish(self, message: Any) -> None:
        text = message if isinstance(message, bytes) else json.dumps(message).encode()
        await self.redis.command("PUBLISH", self.channel, text)

    async def readers(self, count: int) -> None:
        """Wait until the channel has this many readers."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self.redis.command("PUBSUB", "NUMSUB", self.channel))[1] != count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@asynccontextmanager
async def channels(url: str, count: int = 1) -> AsyncIterator[tuple[Program, list[Server]]]:
    """Start the channels of servers on one Redis, and another program."""
    prefix = new_prefix()
    async with AsyncExitStack() as stack:
        program = Program(Redis.of(url, timeout_s=2.0, retries=1), f"{prefix}:{CHANNEL}")
        stack.push_async_callback(program.redis.close)
        servers = []
        for _ in range(count):
            cluster = RedisCluster(Redis.of(url, timeout_s=2.0, retries=1), prefix)
            inbox = await SqliteInbox.at(":memory:", SystemClock(), InboxSettings())
            stack.push_async_callback(cluster.close)
            stack.push_async_callback(inbox.close)
            servers.append(Server(cluster, inbox))
        tasks = await stack.enter_async_context(Supervisor(SystemClock()))
        for server in servers:
            server.channel.start(tasks)
        await program.readers(count)
        try:
            yield program, servers
        finally:
            tasks.cancel()


async def test_messages_of_a_program_reach_each_target(valkey: Valkey) -> None:
    async with channels(valkey.url) as (program, (server,)):
        targets = [{"topic": "app:news"}, {"all": True}, {"server": "a"}, {"user": "42"}]
        for number, target in enumerate(targets):
            await program.publish(NEWS | {"id": str(number), "target": target})
        await until(lambda: server.count("sent") == 4)
        for topic in ("app:news", "all", "server:a"):
            (event,) = await server.events(topic)
            assert event["data"] == {"n": 1}
            assert event["event_id"].startswith("app:")
        (letter,) = await server.events("user:42")
        assert letter["letter"] == {"n": 1}


async def test_a_repeated_message_is_sent_once(valkey: Valkey) -> None:
    async with channels(valkey.url) as (program, (server,)):
        for message in (NEWS, NEWS, NEWS | {"from": "bank"}, NEWS | {"id": "2"}):
            await program.publish(message)
        await until(lambda: server.count("sent") == 3)
        assert server.count("repeated") == 1
        ids = [event["event_id"] for event in await server.events("app:news")]
        assert len(ids) == len(set(ids)) == 3


async def test_wrong_messages_are_counted_and_the_next_one_is_sent(valkey: Valkey) -> None:
    async with channels(valkey.url) as (program, (server,)):
        malformed = [b"", b"{", b"\xff", b"[]", b"[" * 9999, {}, NEWS | {"target": {}}, NEWS | {"data": "x" * 65_536}]
        refused = [
            NEWS | {"data": []},
            NEWS | {"data": {"type": "MarketData"}},
            NEWS | {"target": {"topic": "trades:pump"}},
            NEWS | {"target": {"topic": "user:42"}},
            NEWS | {"target": {"server": "elsewhere"}},
        ]
        for message in (*malformed, *refused, NEWS):
            await program.publish(message)
        await until(lambda: server.count("sent") == 1)
        assert (server.count("malformed"), server.count("refused")) == (len(malformed), len(refused))
        assert len(await server.events("app:news")) == 1


async def test_only_the_server_that_leads_sends_what_a_program_publishes(valkey: Valkey) -> None:
    async with channels(valkey.url, 2) as (program, (first, second)):
        first.leads = False
        await program.publish(NEWS)
        await until(lambda: second.count("sent") == 1)
        assert await first.events("app:news") == []


async def test_broadcasts_go_out_once_for_each_target_and_come_back_as_own(valkey: Valkey) -> None:
    async with channels(valkey.url) as (program, (server,)):
        asked = Broadcast(msgspec.Raw(b'{"n":1}'), topic="app:news", user_ids=["42", "7", "42"])
        async with aclosing(program.redis.messages(program.channel)) as messages:
            first = asyncio.ensure_future(anext(messages))
            await program.readers(2)
            server.channel.announce("app:1", asked, b'{"n":1}')
            server.channel.announce("app:2", Broadcast(msgspec.Raw(b"{}"), all=True), b"{}")
            found = [json.loads(await first)] + [json.loads(await anext(messages)) for _ in range(3)]
        assert found[0] == {"id": "app:1", "from": "headrace:a", "target": {"topic": "app:news"}, "data": {"n": 1}}
        assert [each["target"] for each in found[1:]] == [{"user": "42"}, {"user": "7"}, {"all": True}]
        await until(lambda: server.count("own") == 4)
        assert server.count("published") == 4
        assert await server.events("app:news") == []


async def test_what_does_not_fit_while_redis_is_away_is_dropped_and_the_rest_comes_later() -> None:
    async with started() as own, channels(own.url) as (program, (server,)):
        await asyncio.to_thread(own.kill)
        data = b'{"x":"%b"}' % (b"x" * 30_000)
        for number in range(WAITING_BYTES // 30_000 + 1):
            server.channel.announce(f"app:{number}", Broadcast(msgspec.Raw(data), all=True), data)
        waiting = len(server.channel._waiting)
        assert server.count("dropped") >= 1
        await asyncio.to_thread(own.start)
        await program.readers(1)
        await until(lambda: server.count("published") == waiting)
        await program.publish(NEWS)
        await until(lambda: server.count("sent") == 1)


@pytest.mark.parametrize(("prefix", "name"), [("headrace", CHANNEL), ("other", f"other:{CHANNEL}")])
async def test_the_channel_has_the_prefix_unless_it_is_the_usual_one(valkey: Valkey, prefix: str, name: str) -> None:
    redis = Redis.of(valkey.url, timeout_s=5.0, retries=3)
    cluster = RedisCluster(Redis.of(valkey.url, timeout_s=5.0, retries=3), prefix)
    async with aclosing(cluster.messages()) as messages:
        first = asyncio.ensure_future(anext(messages))
        await Program(redis, name).readers(1)
        await redis.command("PUBLISH", name, b"x")
        assert await first == b"x"
    await cluster.close()
    await redis.close()


async def test_a_message_to_all_reaches_the_clients_of_both_servers(valkey: Valkey, tmp_path: Path) -> None:
    prefix, program = new_prefix(), Redis.of(valkey.url, timeout_s=5.0, retries=3)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(program.close)
        tasks = await stack.enter_async_context(Supervisor(SystemClock()))
        stack.callback(tasks.cancel)
        clients, ports, services = [], [], list[Service]()
        for name in "ab":
            env = {
                **QUICK,
                "TRANSACTION_LISTENER_ENABLED": "false",
                "REDIS_URL": valkey.url,
                "REDIS_PREFIX": prefix,
                "SERVER_ID": name,
                "SERVER_BEAT_S": "0.1",
                "INBOX_FILE": str(tmp_path / f"{name}.db"),
            }
            config = await asyncio.to_thread(partial(load, REGISTERS.sections(), env=env, dotenv=None, toml=None))
            service, stop = await asyncio.to_thread(partial(Service, config)), asyncio.Event()
            running = tasks.start("test", name, partial(service.run, stop))
            stack.push_async_callback(partial(end, stop, running))
            await service.started.wait()
            assert service.gateway is not None
            services.append(service)
            ports.append(service.gateway.port)
            clients.append(await Raw.open(ports[-1]))
            assert (await clients[-1].json())["type"] == "welcome"
        other = Program(program, f"{prefix}:{CHANNEL}")
        await other.readers(2)
        await until(lambda: all(set(each.members.names) == {"a", "b"} for each in services))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports[1]}", verify=False, timeout=30) as http:
            answer = await http.post("/api/ws/broadcast", json={"all": True, "data": {"n": 1}})
        assert (answer.status_code, answer.json()["offset"]) == (200, "1")
        await other.publish(NEWS | {"target": {"all": True}, "data": {"n": 2}})
        await other.publish(NEWS | {"id": "2", "target": {"server": "b"}, "data": {"n": 3}})
        await other.publish(NEWS | {"id": "3", "target": {"all": True}, "data": {"n": 4}})
        received = [
            [(got["topic"], got["data"]["n"]) for got in [await raw.json() for _ in range(3)]] for raw in clients[:1]
        ]
        assert received == [[("all", 1), ("all", 2), ("all", 4)]]
        at_b = [(got["topic"], got["data"]["n"]) for got in [await clients[1].json() for _ in range(4)]]
        assert at_b == [("all", 1), ("all", 2), ("server:b", 3), ("all", 4)]
        for raw in clients:
            raw.leave()


async def end(stop: asyncio.Event, running: "asyncio.Task[object]") -> None:
    stop.set()
    await asyncio.wait([running])
