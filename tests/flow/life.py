"""A whole service before a scripted node behind a proxy, and clients over real WebSockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from headrace.config import load
from headrace.runtime.clock import SystemClock
from headrace.runtime.supervise import Supervisor
from headrace.sdk import Client, NotRecovered, Subscription
from headrace.service.server import Service
from headrace.service.settings import REGISTERS, Registers
from headrace.testing.node import ScriptedNode
from headrace.testing.proxy import TcpProxy
from tests.mainnet import FOLDER, PUMP

PATIENCE_S = 30.0

QUICK = {
    "SERVER_PORT": "0",
    "ORDERS_ENABLED": "false",
    "INBOX_FILE": ":memory:",
    "HISTORY_ENABLED": "false",
    "POOLS_FILE": "",
    "SUBSCRIPTIONS": "logs:pump",
    "SOLANA_BACKOFF_INITIAL_S": "0.01",
    "SOLANA_BACKOFF_MAX_S": "0.05",
    "SOLANA_TICK_S": "0.01",
    "SOLANA_CHECK_S": "0.05",
    "SOLANA_CONFIRM_S": "0.02",
    "SOLANA_GAP_MARGIN_SLOTS": "2",
    "SOLANA_REFILL_SETTLE_SLOTS": "0",
    "SOLANA_REFILL_RETRY_S": "0.01",
    "WEBSOCKET_COMMANDS_PER_S": "1000",
}
"""Settings under which a test need not wait."""


class Life:
    """`received` holds all frames that the one listening client got, in order."""

    def __init__(self, node: ScriptedNode, proxy: TcpProxy, service: Service) -> None:
        self.node, self.proxy, self.service = node, proxy, service
        self.received: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        assert self.service.gateway is not None
        return f"ws://127.0.0.1:{self.service.gateway.port}/ws"

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [frame for frame in self.received if frame["type"] == kind]

    async def listen(self, subscription: Subscription) -> None:
        """Keep what a client gets of a topic."""
        async for value in subscription:
            assert not isinstance(value, NotRecovered)
            self.received.append(json.loads(value.frame))

    async def until(self, condition: Callable[[], bool], *, flowing: bool = True) -> None:
        """Return when `condition` holds; meanwhile, with `flowing`, the chain goes on."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                if flowing:
                    self.node.advance_slot()
                await asyncio.sleep(0.005)

    async def covered(self) -> None:
        """Return in a slot of which the service misses nothing without saying so."""
        await self.until(lambda: self.service.health.components()["source:rpc"].ready)
        self.node.advance_slot()


@asynccontextmanager
async def life(
    *topics: str,
    toml: Path | None = None,
    without: Sequence[str] = (),
    registers: Registers = REGISTERS,
    **settings: str,
) -> AsyncIterator[Life]:
    """A running service whose node sits behind a proxy, and one client that listens to `topics`.

    `settings` are environment; what is to come from the `toml` file is `without` a name there. `registers` are
    the adapters that the settings choose from.
    """
    async with ScriptedNode() as node, TcpProxy("127.0.0.1", node.ws_port) as proxy:
        env = {**QUICK, "SOLANA_RPC_WS": proxy_url(proxy), "SOLANA_RPC_URL": node.http_url, **settings}
        env = {name: value for name, value in env.items() if name not in without}
        config = await asyncio.to_thread(lambda: load(registers.sections(), env=env, dotenv=None, toml=toml))
        service = await asyncio.to_thread(lambda: Service(config, registers=registers))
        alive = Life(node, proxy, service)
        stop = asyncio.Event()
        async with Supervisor(SystemClock()) as tasks:
            serving = tasks.start("test", "service", partial(service.run, stop))
            await service.started.wait()
            async with Client(alive.url) as client:
                for topic in topics:
                    subscription = await client.subscribe(topic).started()
                    tasks.start("test", topic, partial(alive.listen, subscription))
                yield alive
                stop.set()
                await serving


def proxy_url(proxy: TcpProxy) -> str:
    return f"ws://127.0.0.1:{proxy.port}"


def pump_trade_logs() -> list[list[str]]:
    """The log lines of real transactions, each with one pump trade."""
    lines = (FOLDER / "pubsub" / "logsNotification.projected.jsonl").read_text().splitlines()
    values = [json.loads(line)["params"]["result"]["value"] for line in lines]
    return [value["logs"] for value in values if value["err"] is None and pump_trades(value["logs"]) == 1]


def pump_trades(logs: list[str]) -> int:
    """How often pump.fun logged a TradeEvent."""
    if not any(line.startswith(f"Program {PUMP} invoke") for line in logs):
        return 0
    return sum(line.startswith("Program data: vdt/007mYe") for line in logs)
