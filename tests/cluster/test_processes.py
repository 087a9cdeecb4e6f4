"""Two servers as processes on one Redis: the one that listens is killed, or stopped for long, and the other follows."""

import asyncio
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.runtime.clock import SystemClock
from headrace.runtime.supervise import Supervisor
from headrace.sdk import Client
from headrace.testing.node import ScriptedNode
from headrace.testing.valkey import Valkey
from tests.cli.command import Running, running
from tests.flow.life import QUICK, pump_trade_logs
from tests.mainnet import PUMP
from tests.redis.servers import new_prefix, valkey

__all__ = ["valkey"]

PATIENCE_S = 180.0
"""Far more than anything takes on a busy machine."""

TOPIC = "trades:pump"
LOGS = pump_trade_logs()


class Pair:
    """Two servers and a node. `received` holds the frames of the one client, in order."""

    def __init__(self, node: ScriptedNode, tasks: Supervisor, first: Running, second: Running) -> None:
        self.node, self.first, self.second = node, first, second
        self.received: list[dict[str, Any]] = []
        self.sent: dict[str, int] = {}
        self._tasks = tasks

    async def listen(self, server: Running) -> None:
        """Let the client listen at a server."""
        url = f"ws{(await server.url())[4:]}/ws"
        subscribed = asyncio.Event()
        self._tasks.start("test", "client", partial(self._listen, url, subscribed))
        async with asyncio.timeout(PATIENCE_S):
            await subscribed.wait()

    async def _listen(self, url: str, subscribed: asyncio.Event) -> None:
        async with Client(url) as client:
            subscription = await client.subscribe(TOPIC).started()
            subscribed.set()
            async for value in subscription:
                self.received.append(json.loads(value.frame))  # type: ignore[union-attr]

    def trade(self) -> None:
        """Let a trade happen in the newest slot."""
        signature = self.node.emit_transaction([PUMP], LOGS[len(self.sent) % len(LOGS)]).signature
        self.sent[signature] = self.node.ledger.head

    async def until(self, condition: Callable[[], bool], *, trading: bool = False) -> None:
        """Return when `condition` holds; meanwhile the chain goes on."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.node.advance_slot()
                if trading:
                    self.trade()
                await asyncio.sleep(0.03)

    def signatures(self) -> list[str]:
        return [frame["chain"]["signature"] for frame in self.received if frame["type"] == "event"]

    def is_settled(self) -> bool:
        """Return whether each trade was received, or is in a gap that was declared."""
        frames = [frame["data"] for frame in self.received if frame["type"] == "gap"]
        gaps = [(int(each["from_slot"]), int(each["to_slot"])) for each in frames if each["state"] == "unrecoverable"]
        missing = self.sent.keys() - set(self.signatures())
        return all(any(low <= self.sent[name] <= high for low, high in gaps) for name in missing)

    def is_orderly(self) -> bool:
        """Return whether no event came twice, and no offset is missing or repeated within an epoch."""
        positions = [(frame["epoch"], int(frame["offset"])) for frame in self.received if "offset" in frame]
        follows = all(a[0] != b[0] or b[1] == a[1] + 1 for a, b in itertools.pairwise(positions))
        return follows and len(self.signatures()) == len(set(self.signatures()))


@asynccontextmanager
async def pair(folder: Path, valkey: Valkey, **more: str) -> AsyncIterator[Pair]:
    """Start two servers on one Redis, the first of which listens to the node; both end with SIGTERM."""
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(ScriptedNode())
        given = {
            **QUICK,
            "SOLANA_RPC_WS": node.ws_url,
            "SOLANA_RPC_URL": node.http_url,
            "REDIS_URL": valkey.url,
            "REDIS_PREFIX": new_prefix(),
            **more,
        }
        servers = []
        for name in ("a", "b"):
            (folder / name).mkdir()
            servers.append(await stack.enter_async_context(running(folder / name, "serve", SERVER_ID=name, **given)))
            await servers[-1].url()
        tasks = await stack.enter_async_context(Supervisor(SystemClock()))
        both = Pair(node, tasks, *servers)
        connected = asyncio.ensure_future(both.first.says("connected "))
        await both.until(connected.done)
        try:
            yield both
        finally:
            tasks.cancel()
        for server in servers:
            if server.process.returncode is None:
                server.tell(signal.SIGTERM)
                await server.end()


async def lanes(server: Running) -> dict[str, list[str]]:
    """Return server → the lanes that it has, as this server knows it."""
    async with httpx.AsyncClient(trust_env=False) as http:
        found = (await http.get(f"{await server.url()}/api/servers")).json()["servers"]
    return {each["server_id"]: each["lanes"] for each in found}


@pytest.mark.long
async def test_the_leader_is_killed_and_what_the_client_got_is_whole_or_declared(
    tmp_path: Path, valkey: Valkey
) -> None:
    async with pair(tmp_path, valkey) as servers:
        await servers.listen(servers.second)
        await servers.until(lambda: len(servers.signatures()) >= 20, trading=True)
        assert "ingest" in (await lanes(servers.second))["a"]
        servers.first.tell(signal.SIGKILL)
        taken = asyncio.ensure_future(servers.second.says("lease_taken .*lane:ingest"))
        await servers.until(taken.done, trading=True)
        before = len(servers.sent)
        await servers.until(lambda: len(set(servers.signatures()) & set(list(servers.sent)[before:])) > 5, trading=True)
        await servers.until(servers.is_settled)
        assert servers.is_orderly()
        found = await lanes(servers.second)
        assert found.keys() == {"b"}
        assert set(found["b"]) == {"ingest", "orders", "broadcasts"}


@pytest.mark.long
async def test_a_leader_that_was_stopped_for_long_begins_again_as_a_follower(tmp_path: Path, valkey: Valkey) -> None:
    async with pair(tmp_path, valkey, SERVER_LEASE_S="5") as servers:
        await servers.listen(servers.second)
        await servers.until(lambda: len(servers.signatures()) >= 5, trading=True)
        os.kill(servers.first.process.pid, signal.SIGSTOP)
        taken = asyncio.ensure_future(servers.second.says("lease_taken .*lane:ingest"))
        await servers.until(taken.done, trading=True)
        os.kill(servers.first.process.pid, signal.SIGCONT)
        again = asyncio.ensure_future(servers.first.says("begins_again"))
        await servers.until(again.done, trading=True)
        await servers.until(servers.is_settled)
        assert servers.is_orderly()
        assert "ingest" in (await lanes(servers.second))["b"]
