"""Two `headrace serve` processes on one Valkey: a client of one goes on at the other, where it was."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from headrace.model.events import Position
from headrace.sdk import Client
from headrace.sdk.values import Event
from headrace.testing.node import ScriptedNode
from headrace.testing.valkey import Valkey
from tests.cli.command import Running, running
from tests.flow.life import PATIENCE_S, QUICK, pump_trade_logs
from tests.mainnet import PUMP
from tests.redis.servers import new_prefix, valkey

__all__ = ["valkey"]

TOPIC = "trades:pump"
LOGS = pump_trade_logs()


@asynccontextmanager
async def server(
    folder: Path, name: str, node: ScriptedNode, redis: str, prefix: str, **more: str
) -> AsyncIterator[str]:
    """The URL of a server process."""
    place = folder / name
    place.mkdir()
    nodes = {"SOLANA_RPC_WS": f"127.0.0.1:{node.ws_port}", "SOLANA_RPC_URL": node.http_url}
    shared = {"REDIS_URL": redis, "REDIS_PREFIX": prefix, "SERVER_ID": name, "AUTH_MODE": "off"}
    async with running(place, "serve", **QUICK, **nodes, **shared, **more) as process:
        yield await url_of(process)


async def url_of(process: Running) -> str:
    return await process.url()


async def until(node: ScriptedNode, condition: Callable[[], Any]) -> None:
    """Return when the condition holds; meanwhile the chain goes on."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            node.advance_slot()
            await asyncio.sleep(0.05)


async def values_of(url: str, events: int, node: ScriptedNode, sent: int, since: Position | None) -> list[Any]:
    """Subscribe, let the node send transactions, and return all values up to the last of so many events."""
    got: list[Any] = []
    async with Client(f"ws{url.removeprefix('http')}/ws") as client:
        subscription = client.subscribe(TOPIC, recover=since)

        async def read() -> None:
            async for value in subscription:
                got.append(value)
                if sum(isinstance(each, Event) for each in got) == events:
                    return

        reading = asyncio.create_task(read())
        try:
            await until(node, lambda: subscription.position is not None or reading.done())
            for number in range(sent):
                node.emit_transaction([PUMP], LOGS[number % len(LOGS)])
            await until(node, reading.done)
            await reading
        finally:
            reading.cancel()
    return got


async def ready(url: str, part: str) -> bool:
    async with httpx.AsyncClient(base_url=url) as http:
        parts = (await http.get("/health/ready")).json()["components"]
        return part in parts and bool(parts[part]["ready"])


async def test_a_client_goes_on_at_the_other_server_without_hole_or_repeat(tmp_path: Path, valkey: Valkey) -> None:
    prefix = new_prefix()
    async with (
        ScriptedNode() as node,
        server(tmp_path, "a", node, valkey.url, prefix) as a,
        server(tmp_path, "b", node, valkey.url, prefix, TRANSACTION_LISTENER_ENABLED="false") as b,
    ):
        async with asyncio.timeout(PATIENCE_S):
            while not await ready(a, "source:rpc"):
                node.advance_slot()
                await asyncio.sleep(0.05)
        first = await values_of(a, 3, node, 6, None)
        then = await values_of(b, 7, node, 4, first[-1].position)
        positions = [value.position for value in (*first, *then)]
        assert {position.epoch for position in positions} == {positions[0].epoch}
        start = positions[0].offset
        assert [position.offset for position in positions] == list(range(start, start + len(positions)))
        assert len({value.event_id for value in (*first, *then) if isinstance(value, Event)}) == 10
