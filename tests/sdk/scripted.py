"""A server that says exactly what a test tells it to, over real WebSockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

PATIENCE_S = 30.0
TOPIC = "trades:pump"
PROTOCOL = Subprotocol("stream.v1")


class Visit:
    """One client's connection."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection

    @property
    def offered(self) -> list[str]:
        """The subprotocols that the client offered."""
        header = self.connection.request.headers.get("Sec-WebSocket-Protocol", "") if self.connection.request else ""
        return [each.strip() for each in header.split(",") if each.strip()]

    async def heard(self, kind: str) -> Any:
        """The next command of this kind; others (but pongs) must not come before it."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                command = json.loads(await self.connection.recv())
                if command["type"] == kind:
                    return command
                assert command["type"] == "pong", command

    async def say(self, kind: str, data: Any = None, **more: Any) -> None:
        await self.connection.send(json.dumps({"type": kind, **more, **({} if data is None else {"data": data})}))

    async def welcome(self, ping_s: float = 25, pong_s: float = 8) -> None:
        await self.say("welcome", {"connection_id": "c1", "user_id": None, "ping_s": ping_s, "pong_s": pong_s})

    async def accept(self, offset: int, *, recovered: bool | None = None, epoch: str = "e") -> Any:
        """Answer the subscription that comes next; `recovered` None: it was not asked for. Returns the command."""
        command = await self.heard("subscribe")
        assert ("recover" in command["data"]) == (recovered is not None), command
        data = {
            "epoch": epoch,
            "offset": str(offset),
            "was_recovering": recovered is not None,
            "recovered": bool(recovered),
            "replayed": 0,
        }
        await self.say("subscribed", data, id=command["id"], topic=command["data"]["topic"])
        return command

    async def events(self, *offsets: int, epoch: str = "e", topic: str = TOPIC, **more: Any) -> None:
        for offset in offsets:
            await self.say("event", {"n": offset}, topic=topic, epoch=epoch, offset=str(offset), event_id="i", **more)

    async def close(self, code: int, reason: str = "") -> None:
        await self.connection.close(code, reason)


class Scripted:
    """Hands over each connection, for the test to hold."""

    def __init__(self) -> None:
        self._visits: asyncio.Queue[Visit] = asyncio.Queue()
        self.server: Server

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/ws"

    async def visit(self) -> Visit:
        async with asyncio.timeout(PATIENCE_S):
            return await self._visits.get()

    async def serve(self, connection: ServerConnection) -> None:
        self._visits.put_nowait(Visit(connection))
        await connection.wait_closed()


@asynccontextmanager
async def open_scripted() -> AsyncIterator[Scripted]:
    scripted = Scripted()
    async with serve(scripted.serve, "127.0.0.1", 0, select_subprotocol=_chosen) as server:
        scripted.server = server
        yield scripted


def _chosen(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The protocol is the same for who offers none."""
    return PROTOCOL if PROTOCOL in offered else None
