"""A running service with orders, and a client of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from headrace.config import load
from headrace.runtime.clock import SystemClock
from headrace.runtime.supervise import Supervisor
from headrace.service.server import Service
from headrace.service.settings import SECTIONS

BODY = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5, "slippage": 0.5, "type": "market"}
WAY = ["PENDING", "ROUTING", "BUILDING", "SUBMITTED", "CONFIRMED"]
KEY = "4k3Dyjzvzp8eMZWUXbBCjEvwSkkk59S5iCNLY3QrkX6R"


class Desk:
    """A client of a running service."""

    def __init__(self, port: int, service: Service) -> None:
        self.port, self.service = port, service
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", verify=False)

    async def post(self, body: Any, **headers: str) -> httpx.Response:
        return await self.http.post("/api/orders/execute", json=body, headers=headers)

    async def place(self, **more: Any) -> str:
        answer = await self.post({**BODY, **more})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["orderId"])

    async def follow(self, path: str) -> list[dict[str, Any]]:
        """Frames of a stream up to the one that ends the order."""
        frames: list[dict[str, Any]] = []
        async with connect(f"ws://127.0.0.1:{self.port}{path}") as socket:
            async for text in socket:
                frames.append(json.loads(text))
                if frames[-1].get("status") in ("CONFIRMED", "FAILED", "CANCELLED", "EXPIRED"):
                    break
        return frames

    def connect_to(self, path: str) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}{path}")

    def connect(self, query: str = "") -> connect:
        """A connection to `/ws`."""
        return self.connect_to(f"/ws{query}")


async def ask(socket: ClientConnection, kind: str, data: Any, number: int = 1) -> dict[str, Any]:
    """Send a command; the frame that answers it."""
    await socket.send(json.dumps({"type": kind, "id": number, "data": data}))
    return await answer_to(socket, number)


async def answer_to(socket: ClientConnection, number: int) -> dict[str, Any]:
    """The next frame with this id."""
    async for text in socket:
        frame: dict[str, Any] = json.loads(text)
        if frame.get("id") == number:
            return frame
    raise AssertionError("no answer")


@asynccontextmanager
async def desk(folder: Path, *, without: Sequence[str] = (), **settings: str) -> AsyncIterator[Desk]:
    """What is set is `settings`, and what is usual here, but for what is `without`."""
    env = {
        "SERVER_PORT": "0",
        "TRANSACTION_LISTENER_ENABLED": "false",
        "ORDERS_ENABLED": "true",
        "ORDERS_FILE": str(folder / "orders.db"),
        "INBOX_FILE": ":memory:",
        "HISTORY_FILE": str(folder / "history.db"),
        "MOCK_CHAIN_FILE": str(folder / "chain.db"),
        "MOCK_QUOTE_MS": "0",
        "MOCK_EXECUTION_MS": "0",
        "QUEUE_RATE_LIMIT_PER_MINUTE": "0",
        "ORDER_FINALITY_MS": "3600000",
        **settings,
    }
    env = {name: value for name, value in env.items() if name not in without}
    service = await asyncio.to_thread(lambda: Service(load(SECTIONS, env=env, dotenv=None, toml=None)))
    stop = asyncio.Event()
    async with Supervisor(SystemClock()) as tasks:
        serving = tasks.start("test", "service", partial(service.run, stop))
        await service.started.wait()
        assert service.gateway is not None
        client = Desk(service.gateway.port, service)
        try:
            yield client
        finally:
            await client.http.aclose()
            stop.set()
            await serving
