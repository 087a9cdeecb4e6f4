"""Clients that follow one topic for ever, come back when they are cut off, and tell what they are told."""

import asyncio
import json
import socket
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from headrace.model.events import Position
from tests.gateway.house import UPGRADE, Raw
from tests.promises.account import Account, Arrived, Begun, Fact, Lagged

RECEIVE_BUFFER_BYTES = 4096


class Follower(Protocol):
    """`run` follows until cancelled, through the port that `where` names at each attempt."""

    account: Account
    heard: asyncio.Event
    """Set whenever a fact was taken."""

    async def run(self) -> None: ...

    @abstractmethod
    def stall(self, *, stalled: bool) -> None:
        """Read nothing more, or again."""

    @abstractmethod
    def cut(self) -> None:
        """Lose the connection, if there is one."""


class ByHand:
    """A client that someone wrote from the protocol's page: a socket, and the position of the last message."""

    def __init__(self, account: Account, where: Callable[[], int]) -> None:
        self.account, self._where = account, where
        self.heard = asyncio.Event()
        self._reads = asyncio.Event()
        self._reads.set()
        self._raw: Raw | None = None
        self._position: Position | None = None

    def stall(self, *, stalled: bool) -> None:
        if stalled:
            self._reads.clear()
        else:
            self._reads.set()

    def cut(self) -> None:
        if self._raw is not None:
            self._raw.leave()

    async def run(self) -> None:
        while True:
            try:
                self._raw = raw = await _open(self._where())
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                await asyncio.sleep(0.005)
                continue
            try:
                await self._follow(raw)
            finally:
                raw.leave()

    async def _follow(self, raw: Raw) -> None:
        raw.ask("subscribe", 1, **_wishes(self.account), recover=_recover(self._position))
        while True:
            await self._reads.wait()
            opcode, payload = await raw.receive()
            if opcode in {8, "eof"}:
                return
            message = json.loads(payload)
            if message["type"] == "ping":
                raw.ask("pong")
            elif (fact := self._fact(message)) is not None:
                self.account.take(fact)
                self.heard.set()

    def _fact(self, message: dict[str, Any]) -> Fact | None:
        data: Any = message.get("data")
        match message["type"]:
            case "subscribed":
                if not data["recovered"]:
                    self._position = Position(data["epoch"], int(data["offset"]))
                return Begun(data["epoch"], int(data["offset"]), data["recovered"])
            case "event":
                self._position = Position(message["epoch"], int(message["offset"]))
                return Arrived(message["epoch"], int(message["offset"]), data)
            case "lag":
                assert self._position is not None
                self._position = Position(self._position.epoch, int(data["to_offset"]))
                return Lagged(int(data["from_offset"]), int(data["to_offset"]), data["dropped"])
            case "error":
                raise AssertionError(f"refused: {data}")
        return None


def _wishes(account: Account) -> dict[str, Any]:
    wish = account.wish
    wishes: dict[str, Any] = {"topic": wish.topic, "on_slow": wish.on_slow}
    if wish.lanes is not None:
        wishes["filter"] = {"key": "lane", "cmp": "in", "vals": list(wish.lanes)}
    if wish.conflated:
        wishes["conflate"] = {"key": "lane", "every_ms": 10}
    return wishes


def _recover(position: Position | None) -> dict[str, str] | None:
    return None if position is None else {"epoch": position.epoch, "offset": str(position.offset)}


async def _open(port: int) -> Raw:
    """Connect with the smallest receive buffer, so that one that does not read is noticed soon."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    except BaseException:
        connection.close()
        raise
    raw = Raw(*await asyncio.open_connection(sock=connection, limit=4096))
    raw.send(UPGRADE.format(path="/ws", more="").encode())
    if b" 101 " not in await raw.read_head():
        raw.leave()
        raise ConnectionRefusedError(raw.head)
    return raw
