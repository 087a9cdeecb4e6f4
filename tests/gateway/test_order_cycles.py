"""Orders leave nothing behind that only the garbage collector can free, whether placed over HTTP or on /ws."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from headrace.orders.engine import Engine
from headrace.orders.intake import Intake
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store.sqlite import SqliteStore
from headrace.orders.worker import Worker
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.testing.orders import FixedVenue, ScriptedChain
from tests.gateway.running_gateway import Raw, RunningGateway, run_gateway
from tests.gateway.test_cycles import forget, garbage_after, run

ORDERS: Final = 40
BODY: Final = b'{"tokenIn":"SOL","tokenOut":"USDC","amount":1.5}'
OVER: Final = (b'"CONFIRMED"', b'"FAILED"')

Work = Callable[[RunningGateway], Coroutine[Any, Any, None]]


@asynccontextmanager
async def executing(folder: Path, rate: int) -> AsyncIterator[RunningGateway]:
    """A gateway whose orders are executed at once, on a venue and a chain that answer without a network."""
    clock, settings, chain = SystemClock(), ExecutionSettings(), ScriptedChain()
    chain.on_send = chain.land
    store = await SqliteStore.at(str(folder / "orders.db"), clock)
    engine = Engine(store, chain, [FixedVenue()], settings, clock)
    worker = Worker(store, engine, settings, clock, Metrics(), concurrency=10, per_minute=rate)
    intake = Intake(store, settings, clock, worker)
    try:
        async with Supervisor(clock) as tasks:
            tasks.start("test", "worker", worker.run)
            async with run_gateway(orders=intake, cmd_per_s=10_000) as running:
                assert running.gateway.order_streams is not None
                store.attach(running.gateway.order_streams.hear)
                yield running
            tasks.cancel()
    finally:
        await store.close()


async def over_http(running: RunningGateway) -> None:
    """Orders on one connection that stays, each followed on a stream of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    for _ in range(ORDERS):
        head = b"POST /api/orders/execute HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        order_id = (await reader.readexactly(length))[12:48].decode()
        await followed(running.port, order_id)
    writer.close()


async def followed(port: int, order_id: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"GET /api/orders/{order_id}/stream HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    seen = b""
    while not any(status in seen for status in OVER):
        seen += await reader.read(65536)
    writer.transport.abort()


async def over_sockets(running: RunningGateway) -> None:
    for _ in range(ORDERS // 4):
        raw = await Raw.open(running.port, "/ws?user_id=42")
        await raw.receive()
        for number in range(4):
            raw.ask("order.execute", number, tokenIn="SOL", tokenOut="USDC", amount="1500000000")
            await raw.receive()
        raw.leave()
        raw.writer.close()
        forget(raw)
    await running.clients(0)


@pytest.mark.parametrize("rate", [0, 100_000], ids=["with their bytes at once", "from the queue"])
@pytest.mark.parametrize("work", [over_http, over_sockets], ids=["http", "sockets"])
def test_orders_leave_no_cycle(tmp_path: Path, work: Work, rate: int) -> None:
    async def check() -> None:
        async with asyncio.timeout(60), executing(tmp_path, rate) as running:
            await work(running)  # what is made once, at the first order, is no leak
            assert not await garbage_after(partial(work, running))

    run(check())
