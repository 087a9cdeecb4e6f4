"""Two servers on one bus and one directory: one listens to the node, the other serves, and takes over."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.adapters import Context, Register
from headrace.bus import Bus, BusSettings
from headrace.bus.memory import MemoryBus
from headrace.cluster import Cluster, ClusterSettings
from headrace.cluster.memory import MemoryCluster
from headrace.config import load
from headrace.runtime.clock import SystemClock
from headrace.runtime.supervise import Supervisor
from headrace.sdk import Client
from headrace.service.server import Service
from headrace.service.settings import REGISTERS, Registers
from headrace.testing.node import ScriptedNode
from tests.flow.desk import BODY
from tests.flow.life import PATIENCE_S, QUICK, pump_trade_logs
from tests.mainnet import PUMP

TOPIC = "trades:pump"
LOGS = pump_trade_logs()


class SharedBus(MemoryBus):
    """One bus for all servers of a test; a server that closes it leaves it open for the others."""

    Settings = BusSettings
    shared = True
    one: "SharedBus"

    @classmethod
    async def open(cls, settings: BusSettings, context: Context) -> "SharedBus":
        return cls.one

    async def close(self) -> None:
        """Do nothing."""


class SharedCluster(MemoryCluster):
    """One directory for all servers of a test."""

    def note_of(self, lease: str) -> bytes:
        """Return what the holder of a lease left."""
        return self._leases[lease].note

    def end_leases(self) -> None:
        """Let all leases end now."""
        for lease in self._leases.values():
            lease.until_s = 0.0

    Settings = ClusterSettings
    shared = True
    one: "SharedCluster"

    @classmethod
    async def open(cls, settings: ClusterSettings, context: Context) -> "SharedCluster":
        return cls.one

    async def close(self) -> None:
        """Do nothing."""


class Deployment:
    """Servers before one node. `received` holds the frames that the one client got, in order."""

    def __init__(self, node: ScriptedNode, tasks: Supervisor, folder: Path) -> None:
        SharedBus.one = SharedBus(BusSettings(), SystemClock(), "gen")
        SharedCluster.one = SharedCluster(SystemClock())
        self.node, self.received = node, list[dict[str, Any]]()
        self._tasks, self._folder = tasks, folder
        self._sent = 0
        self.running: list[Running] = []

    async def start(self, name: str, **more: str) -> "Running":
        """Start a server; return once it serves."""
        registers = REGISTERS._replace(
            buses=Register[Bus]("bus", {"shared": f"{__name__}:SharedBus"}),
            clusters=Register[Cluster]("cluster", {"shared": f"{__name__}:SharedCluster"}),
        )
        env = {
            **QUICK,
            "SOLANA_RPC_WS": f"ws://127.0.0.1:{self.node.ws_port}",
            "SOLANA_RPC_URL": self.node.http_url,
            "BUS_KIND": "shared",
            "SERVER_ID": name,
            "SERVER_BEAT_S": "0.5",
            "SERVER_LEASE_S": "3",
            "INBOX_FILE": str(self._folder / f"{name}.db"),
            **more,
        }
        service = await asyncio.to_thread(partial(_service, env, registers))
        running = Running(service, asyncio.Event())
        running.task = self._tasks.start("test", name, running.run, on_failure=lambda: None)
        await service.started.wait()
        self.running.append(running)
        return running

    def trade(self) -> str:
        self._sent += 1
        return self.node.emit_transaction([PUMP], LOGS[self._sent % len(LOGS)]).signature

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [frame for frame in self.received if frame["type"] == kind]

    def signatures(self) -> list[str]:
        return [frame["chain"]["signature"] for frame in self.of_type("event")]

    async def listen(self, url: str) -> None:
        """Keep what a client gets of the topic."""
        async with Client(url) as client:
            async for value in client.subscribe(TOPIC):
                self.received.append(_frame(value))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds; meanwhile the chain goes on."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.node.advance_slot()
                await asyncio.sleep(0.005)

    def declared(self, slot: int) -> bool:
        """Return whether a gap that stays names the slot."""
        gaps = [frame["data"] for frame in self.of_type("gap") if frame["data"]["state"] == "unrecoverable"]
        return any(int(gap["from_slot"]) <= slot <= int(gap["to_slot"]) for gap in gaps)


class Running:
    """A server of the deployment."""

    task: asyncio.Task[object]

    def __init__(self, service: Service, stop: asyncio.Event) -> None:
        self.service, self._stop = service, stop
        self.run = partial(service.run, stop)

    @property
    def port(self) -> int:
        assert self.service.gateway is not None
        return self.service.gateway.port

    @property
    def leads(self) -> bool:
        """Whether the server listens to the node and misses nothing."""
        source = self.service.health.components().get("source:rpc")
        return "ingest" in self.service.lanes.led and source is not None and source.ready

    async def stop(self) -> None:
        self._stop.set()
        await self.task

    async def kill(self) -> None:
        """End all tasks without a word to the others."""
        self.task.cancel()
        await asyncio.wait([self.task])

    async def ask(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}") as http:
            return await http.get(path)

    async def get(self, path: str) -> Any:
        return (await self.ask(path)).json()

    async def post(self, path: str, body: object) -> httpx.Response:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}") as http:
            return await http.post(path, json=body)


@asynccontextmanager
async def deployment(folder: Path) -> AsyncIterator[Deployment]:
    async with ScriptedNode() as node, Supervisor(SystemClock()) as tasks:
        servers = Deployment(node, tasks, folder)
        try:
            yield servers
        finally:
            for running in servers.running:
                if not running.task.done():
                    await running.stop()
            tasks.cancel()


async def test_a_follower_serves_what_the_leader_publishes_and_both_are_listed(tmp_path: Path) -> None:
    async with deployment(tmp_path) as servers:
        a, b = await servers.start("a"), await servers.start("b", TRANSACTION_LISTENER_ENABLED="false")
        await with_client(servers, b)
        await servers.until(lambda: a.leads)
        servers.node.advance_slot()
        sent = [servers.trade() for _ in range(5)]
        await servers.until(lambda: servers.signatures() == sent)
        await servers.until(lambda: all(len(each.service.members.servers) == 2 for each in (a, b)))
        listed = (await b.get("/api/servers"))["servers"]
        assert [(each["server_id"], "ingest" in each["lanes"], each["self"]) for each in listed] == [
            ("a", True, False),
            ("b", False, True),
        ]
        cluster = (await a.get("/api/ws/connections"))["cluster"]
        assert cluster["servers"] == 2
        await servers.until(lambda: sum(each.server.connections for each in a.service.members.servers) == 1)


async def test_a_broadcast_at_a_follower_reaches_the_clients_of_all(tmp_path: Path) -> None:
    async with deployment(tmp_path) as servers:
        await servers.start("a")
        b = await servers.start("b")
        assert "broadcasts" not in b.service.lanes.led
        answer = await b.post("/api/ws/broadcast", {"topic": "app:news", "data": {"n": 1}})
        assert answer.status_code == 200
        assert answer.json()["offset"] == "1"
        page = await SharedBus.one.history("app:news", None, 10)
        assert [b'"n":1' in message.body for message in page.messages] == [True]


@pytest.mark.parametrize("together", [True, False])
async def test_the_events_of_an_order_at_a_follower_are_published(tmp_path: Path, together: bool) -> None:
    """With one database each server hears all events; with files of its own each hears those of its orders."""
    usual = {"ORDERS_ENABLED": "true", "MOCK_QUOTE_MS": "0", "MOCK_EXECUTION_MS": "0"}
    async with deployment(tmp_path) as servers:
        running = []
        for name in "ab":
            folder = tmp_path if together else tmp_path / name
            folder.mkdir(exist_ok=True)
            files = {"ORDERS_FILE": str(folder / "orders.db"), "MOCK_CHAIN_FILE": str(folder / "chain.db")}
            running.append(await servers.start(name, **usual, **files))
        assert "orders" in running[0].service.lanes.led
        answer = await running[1].post("/api/orders/execute", {**BODY, "userId": "ann"})
        assert answer.status_code == 201
        order = f"order:{answer.json()['orderId']}"
        found: list[bytes] = []

        async def published() -> bool:
            found[:] = [message.body for message in (await SharedBus.one.history(order, None, 100)).messages]
            return any(b'"CONFIRMED"' in each for each in found)

        async with asyncio.timeout(PATIENCE_S):
            while not await published():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for server in running:
            await server.stop()
        await published()
        ids = [each.partition(b",")[0] for each in found]
        assert len(ids) == len(set(ids)) == 5


async def test_a_leader_that_stops_hands_over_without_loss_or_repeat(tmp_path: Path) -> None:
    async with deployment(tmp_path) as servers:
        a = await servers.start("a")
        b = await servers.start("b")
        await with_client(servers, b)
        await servers.until(lambda: a.leads)
        servers.node.advance_slot()
        sent = [servers.trade() for _ in range(10)]
        await servers.until(lambda: len(servers.signatures()) == 10)
        stopping = asyncio.ensure_future(a.stop())
        await asyncio.wait([stopping], timeout=0.02)
        sent += [servers.trade() for _ in range(10)]
        await servers.until(lambda: b.leads)
        sent += [servers.trade() for _ in range(10)]
        await servers.until(lambda: set(servers.signatures()) == set(sent))
        assert len(servers.signatures()) == len(sent)
        assert offsets_are_whole(servers)
        assert set(b.service.lanes.led) == {"ingest", "orders", "broadcasts"}
        await stopping


async def test_a_leader_that_is_killed_is_followed_without_undeclared_loss_or_repeat(tmp_path: Path) -> None:
    async with deployment(tmp_path) as servers:
        a = await servers.start("a")
        b = await servers.start("b")
        await with_client(servers, b)
        await servers.until(lambda: a.leads)
        servers.node.advance_slot()
        sent: dict[str, int] = {}

        def trade() -> None:
            sent[servers.trade()] = servers.node.ledger.head

        for _ in range(10):
            trade()
        await servers.until(lambda: len(servers.signatures()) == 10)
        await servers.until(lambda: b"rpc" in SharedCluster.one.note_of("lane:ingest"))
        await a.kill()
        for _ in range(10):
            servers.node.advance_slot()
            trade()
        await servers.until(lambda: b.leads)
        for _ in range(10):
            trade()

        def settled() -> bool:
            missing = sent.keys() - set(servers.signatures())
            return all(servers.declared(sent[signature]) for signature in missing)

        await servers.until(settled)
        assert len(servers.signatures()) == len(set(servers.signatures()))
        assert offsets_are_whole(servers)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_the_history_is_of_the_leader_and_the_next_one_declares_the_slots_before(
    tmp_path: Path, end: str, together: bool
) -> None:
    """In one folder the next leader has the rows of the former; with a file of its own the slots before are a gap."""
    files = [str(tmp_path / f"history-{name}") for name in ("aa" if together else "ab")]
    async with deployment(tmp_path) as servers:
        a = await servers.start("a", HISTORY_ENABLED="true", HISTORY_FILE=files[0])
        b = await servers.start("b", HISTORY_ENABLED="true", HISTORY_FILE=files[1])
        await servers.until(lambda: a.leads)
        servers.node.advance_slot()
        first = [servers.trade() for _ in range(5)]
        slot = servers.node.ledger.head
        await kept(servers, a, first)
        answer = await b.ask("/api/trades")
        assert (answer.status_code, "has the lane ingest" in answer.json()["detail"]) == (501, True)
        assert (await b.get("/health/ready"))["components"]["history"]["ready"]
        await servers.until(lambda: b"rpc" in SharedCluster.one.note_of("lane:ingest"))
        await (a.stop() if end == "stop" else a.kill())
        await servers.until(lambda: b.leads)
        servers.node.advance_slot()
        later = [servers.trade() for _ in range(5)]
        await kept(servers, b, later)
        found = {trade["signature"] for trade in (await b.get("/api/trades"))["items"]}
        gaps = (await b.get(f"/api/gaps?feed=history&to={slot - 1}"))["items"]
        if together:
            assert (found.issuperset(first), gaps) == (True, [])
        else:
            assert [(gap["from_slot"], gap["reason"]) for gap in gaps] == [("0", "history_not_running")]


async def test_a_leader_whose_lease_was_taken_ends(tmp_path: Path) -> None:
    async with deployment(tmp_path) as servers:
        a = await servers.start("a")
        await servers.until(lambda: a.leads)
        SharedCluster.one.end_leases()
        assert await SharedCluster.one.take("lane:ingest", "another", 60.0) is not None
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([a.task])
        with pytest.raises(httpx.ConnectError):
            await a.get("/api/servers")
        again = await servers.start("a")
        assert "ingest" not in again.service.lanes.led


async def kept(servers: Deployment, server: Running, signatures: list[str]) -> None:
    """Return when the server's history has these transactions."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            servers.node.advance_slot()
            answer = await server.ask("/api/trades?limit=1000")
            found = {each["signature"] for each in answer.json().get("items", ())}
            if found.issuperset(signatures):
                return
            await asyncio.sleep(0.02)


async def with_client(servers: Deployment, server: Running) -> None:
    """Let one client listen at this server."""
    servers._tasks.start("test", "client", partial(servers.listen, f"ws://127.0.0.1:{server.port}/ws"))
    assert server.service.gateway is not None
    hub = server.service.gateway.hub
    await servers.until(lambda: TOPIC in hub.topics())


def offsets_are_whole(servers: Deployment) -> bool:
    offsets = [int(frame["offset"]) for frame in servers.received if "offset" in frame]
    return offsets == list(range(offsets[0], offsets[0] + len(offsets)))


def _service(env: dict[str, str], registers: Registers) -> Service:
    return Service(load(registers.sections(), env=env, dotenv=None, toml=None), registers=registers)


def _frame(value: Any) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(value.frame)
    return frame
