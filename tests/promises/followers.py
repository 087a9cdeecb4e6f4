"""Clients that follow one topic for ever, come back when they are cut off, and tell what they are told."""

import asyncio
import json
import socket
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from headrace.model.events import Position
from headrace.runtime.backoff import Backoff
from headrace.sdk.client import Client
from headrace.testing.proxy import TcpProxy
from tests.gateway.running_gateway import UPGRADE, Raw
from tests.promises.account import Account, Arrived, Begun, Fact, Lagged, Pictured
from tests.sdk.clients import Wanted, node, on_the_wire

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
    def choke(self, *, choked: bool) -> None:
        """Let nothing through from the server, so that it soon can't write, or again."""

    @abstractmethod
    def cut(self) -> None:
        """Lose the connection, if there is one."""

    @abstractmethod
    def ports(self) -> set[int]:
        """By which the server knows it."""


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

    def choke(self, *, choked: bool) -> None:
        self.stall(stalled=choked)

    def cut(self) -> None:
        if self._raw is not None:
            self._raw.leave()

    def ports(self) -> set[int]:
        return set() if self._raw is None else {self._raw.writer.get_extra_info("sockname")[1]}

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


class _Proxied:
    """Behind a proxy that can cut it and choke it; told in the words of the wire, but for `not_recovered`."""

    def __init__(self, account: Account, where: Callable[[], int]) -> None:
        self.account, self._where = account, where
        self.heard = asyncio.Event()
        self._proxy: TcpProxy | None = None
        self._items: list[tuple[int, dict[str, Any]]] = []

    def choke(self, *, choked: bool) -> None:
        if self._proxy is not None:
            self._proxy.stalled = choked

    def cut(self) -> None:
        if self._proxy is not None:
            self._proxy.cut()

    def ports(self) -> set[int]:
        return set() if self._proxy is None else self._proxy.upstream_ports

    @asynccontextmanager
    async def _url(self) -> AsyncIterator[str]:
        async with TcpProxy("127.0.0.1", self._where(), waiting_bytes=RECEIVE_BUFFER_BYTES) as self._proxy:
            yield f"ws://127.0.0.1:{self._proxy.port}/ws"

    def _take(self, value: dict[str, Any]) -> None:
        for fact in self._facts(value):
            self.account.take(fact)
            self.heard.set()

    def _facts(self, value: dict[str, Any]) -> Iterator[Fact]:
        match value:
            case {"type": "event"}:
                yield Arrived(*_place(value), value["data"])
            case {"type": "lag", "data": data}:
                yield Lagged(data["epoch"], int(data["from_offset"]), int(data["to_offset"]), data["dropped"])
            case {"type": "not_recovered", "now": {} as now}:
                yield Begun(*_place(now), recovered=False)
            case {"type": "snapshot", "data": data}:
                if value["first"]:
                    self._items = []
                    yield Begun(*_place(value), recovered=False)
                self._items += [(int(item["offset"]), item["data"]) for item in data["items"]]
                if value["last"]:
                    yield Pictured(*_place(value), self._items, data["complete"])


class BySdk(_Proxied):
    """`headrace.sdk.Client`; its queue is so short that a stall is noticed."""

    def __init__(self, account: Account, where: Callable[[], int]) -> None:
        super().__init__(account, where)
        self._reads = asyncio.Event()
        self._reads.set()

    def stall(self, *, stalled: bool) -> None:
        if stalled:
            self._reads.clear()
        else:
            self._reads.set()

    async def run(self) -> None:
        async with self._url() as url, Client(url, queue=QUEUE, backoff=Backoff(0.001, 0.01)) as client:
            subscription = await client.subscribe(**_wishes(self.account)).started()
            if subscription.position is not None:
                self.account.take(Begun(*subscription.position, recovered=False))
                self.heard.set()
            await self._reads.wait()
            async for value in subscription:
                self._take(on_the_wire(value))
                await self._reads.wait()


class ByJs(_Proxied):
    """The JavaScript client, in a Node of its own; it reads what comes, so a stall is one of its connection."""

    def stall(self, *, stalled: bool) -> None:
        self.choke(choked=stalled)

    async def run(self) -> None:
        options = _wishes(self.account)
        topic, options["onSlow"] = options.pop("topic"), options.pop("on_slow")
        async with self._url() as url, node(Wanted(url, topic, options, {"queue": QUEUE})) as process:
            await process.go()
            while True:
                told, process.told = process.told, []
                for each in told:
                    assert "refused" not in each, each
                    if each.get("started"):
                        self.account.take(Begun(*_place(each["started"]), recovered=False))
                        self.heard.set()
                    elif "value" in each:
                        self._take(each["value"])
                await process.look()


def _place(value: dict[str, Any]) -> Position:
    return Position(value["epoch"], int(value["offset"]))


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
