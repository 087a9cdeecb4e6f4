"""Clients that follow one topic for ever, come back when they are cut off, and tell what they are told."""

import asyncio
import json
import socket
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from headrace.model.events import Position
from headrace.runtime.backoff import Backoff
from headrace.sdk.client import Client
from headrace.sdk.values import Event, Lag, NotRecovered, Snapshot, Value
from headrace.testing.proxy import TcpProxy
from tests.gateway.house import UPGRADE, Raw
from tests.promises.account import Account, Arrived, Begun, Fact, Lagged, Pictured

RECEIVE_BUFFER_BYTES = 4096
QUEUE = 16


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
        self._items: list[tuple[int, dict[str, Any]]] = []

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
                self._reached(message["data"]["tops"])
                raw.ask("pong")
            elif (fact := self._fact(message)) is not None:
                self.account.take(fact)
                self.heard.set()

    def _reached(self, tops: dict[str, str]) -> None:
        """Everything up to there has come: it may be gone on from there."""
        top = tops.get(self.account.wish.topic)
        if top is not None and self._position is not None:
            self._position = Position(self._position.epoch, max(self._position.offset, int(top)))

    def _fact(self, message: dict[str, Any]) -> Fact | None:
        data: Any = message.get("data")
        match message["type"]:
            case "subscribed":
                self._items = []
                if not data["recovered"]:
                    snapshot = self.account.wish.snapshot
                    self._position = None if snapshot else Position(data["epoch"], int(data["offset"]))
                return Begun(data["epoch"], int(data["offset"]), data["recovered"])
            case "event":
                self._position = Position(message["epoch"], int(message["offset"]))
                return Arrived(message["epoch"], int(message["offset"]), data)
            case "snapshot":
                self._items += [(int(item["offset"]), item["data"]) for item in data["items"]]
                if data["next"] is not None:
                    return None
                self._position = Position(message["epoch"], int(message["offset"]))
                return Pictured(*self._position, self._items, data["complete"])
            case "lag":
                if self.account.wish.on_slow != "conflate":  # else what is left of them comes now
                    self._position = Position(data["epoch"], int(data["to_offset"]))
                return Lagged(data["epoch"], int(data["from_offset"]), int(data["to_offset"]), data["dropped"])
            case "error":
                raise AssertionError(f"refused: {data}")
        return None


class BySdk:
    """`headrace.sdk.Client`, by way of a proxy that can cut it; its queue is so short that a stall is noticed."""

    def __init__(self, account: Account, where: Callable[[], int]) -> None:
        self.account, self._where = account, where
        self.heard = asyncio.Event()
        self._reads = asyncio.Event()
        self._reads.set()
        self._proxy: TcpProxy | None = None
        self._items: list[tuple[int, dict[str, Any]]] = []

    def stall(self, *, stalled: bool) -> None:
        if stalled:
            self._reads.clear()
        else:
            self._reads.set()

    def cut(self) -> None:
        if self._proxy is not None:
            self._proxy.cut()

    async def run(self) -> None:
        wishes = _wishes(self.account)
        async with TcpProxy("127.0.0.1", self._where()) as self._proxy:
            url = f"ws://127.0.0.1:{self._proxy.port}/ws"
            async with Client(url, queue=QUEUE, backoff=Backoff(0.001, 0.01)) as client:
                subscription = await client.subscribe(**wishes).started()
                if subscription.position is not None:
                    self._take(Begun(*subscription.position, recovered=False))
                await self._reads.wait()
                async for value in subscription:
                    for fact in self._facts(value):
                        self._take(fact)
                    await self._reads.wait()

    def _take(self, fact: Fact) -> None:
        self.account.take(fact)
        self.heard.set()

    def _facts(self, value: Value) -> Iterator[Fact]:
        match value:
            case Event():
                yield Arrived(*value.position, value.data)
            case Lag():
                yield Lagged(value.position.epoch, value.from_offset, value.to_offset, value.dropped)
            case NotRecovered() if value.now is not None:
                yield Begun(*value.now, recovered=False)
            case Snapshot():
                if value.first:
                    self._items = []
                    yield Begun(*value.position, recovered=False)
                self._items += [(item.position.offset, item.data) for item in value.items]
                if value.last:
                    yield Pictured(*value.position, self._items, value.complete)


def _wishes(account: Account) -> dict[str, Any]:
    wish = account.wish
    wishes: dict[str, Any] = {"topic": wish.topic, "on_slow": wish.on_slow, "snapshot": wish.snapshot}
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
