"""A gateway on a real socket with a memory bus, and a raw WebSocket client that sends exactly the bytes it is told."""

import asyncio
import json
import os
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import msgspec

from headrace.bench.gateway_server import Echo
from headrace.bus import BusSettings
from headrace.cache import CacheSettings
from headrace.cache.feed import CacheFeed
from headrace.cache.memory import MemoryCache
from headrace.gateway.auth.authenticator import Authenticator
from headrace.gateway.auth.settings import AuthSettings
from headrace.gateway.context import Extensions, GatewayContext, GatewayOptions
from headrace.gateway.server import Gateway
from headrace.gateway.settings import AdmissionSettings, GatewaySettings, TlsSettings
from headrace.inbox import Inbox
from headrace.model.events import MessageKind, Position, Publication
from headrace.orders.intake import Intake
from headrace.protocol.frames import Framer, Head
from headrace.runtime.clock import Clock, ManualClock, SystemClock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from tests.local_bus import LocalBus

UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
PATIENCE_S = 30.0


_opened: list["Raw"] = []
"""Clients that a test may have forgotten to close, or failed before it could."""


@dataclass
class RunningGateway:
    """Everything that a test may want to touch."""

    gateway: Gateway
    bus: LocalBus
    health: Health
    metrics: Metrics
    supervisor: Supervisor

    @property
    def port(self) -> int:
        return self.gateway.port

    async def publish(self, topic: str, count: int = 1, size: int = 0) -> list[Position]:
        """Events with `data.n` counting on, and `size` bytes of padding."""
        pad = b"x" * size
        body = b'"event_id":"e","data":{"pad":"%b"},"chain":{}' % pad
        return await self.bus.publish([Publication.on(topic, "event", body) for _ in range(count)])

    async def tell(self, topic: str, *datas: Any, kind: MessageKind = "event") -> list[Position]:
        """Messages with these data."""
        bodies = [b'"data":%b' % json.dumps(data).encode() for data in datas]
        return await self.bus.publish([Publication.on(topic, kind, body) for body in bodies])

    async def subscriptions(self, count: int) -> None:
        """Wait until all clients together have this many topics."""
        async with asyncio.timeout(PATIENCE_S):
            while self.gateway.hub.subscriptions != count:  # noqa: ASYNC110  (as below)
                await asyncio.sleep(0.001)

    async def listened_to(self, topic: str) -> None:
        """Wait until a client was told that it has the topic: what is published before that is its past."""
        async with asyncio.timeout(PATIENCE_S):
            while not any(  # noqa: ASYNC110  (the hub tells nobody)
                subscription.acknowledged
                for subscriptions in self.gateway.hub.clients.values()
                for name, subscription in subscriptions.items()
                if name == topic
            ):
                await asyncio.sleep(0.005)

    async def all_sent(self, topic: str) -> None:
        """Wait until everything that came is written to those who can take it, and no window of the topic is open."""
        async with asyncio.timeout(PATIENCE_S):
            while (feed := self.gateway.hub._feeds.get(topic)) is not None and any(  # noqa: ASYNC110  (as below)
                group.delivered[0] != feed.top for group in feed.groups()
            ):
                await asyncio.sleep(0.001)

    async def live(self, topic: str) -> None:
        """Wait until everyone who has the topic gets it as it happens; somebody must have it."""

        def are_live() -> list[bool]:
            having = [subscriptions.get(topic) for subscriptions in self.gateway.hub.clients.values()]
            return [one.group.is_live(one) for one in having if one is not None]

        async with asyncio.timeout(PATIENCE_S):
            while not (told := are_live()) or not all(told):  # noqa: ASYNC110  (as below)
                await asyncio.sleep(0.001)

    async def clients(self, count: int) -> None:
        """Wait until the hub has this many clients."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.gateway.hub.clients) != count:  # noqa: ASYNC110  (the hub tells nobody when one leaves)
                await asyncio.sleep(0.001)

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"headrace_{name}", labels) or 0.0


@asynccontextmanager
async def run_gateway(
    bus: LocalBus | None = None,
    history_size: int = 1000,
    demo: bool = False,
    handlers: Sequence[Any] = (),
    head: Callable[[], Head] = Head,
    framer: Framer | None = None,
    admission: AdmissionSettings | None = None,
    tls: TlsSettings | None = None,
    clock: Clock | None = None,
    auth: AuthSettings | None = None,
    inbox: Inbox | None = None,
    orders: Intake | None = None,
    **settings: Any,
) -> AsyncIterator[RunningGateway]:
    """A running gateway with these settings, stopped and checked for leftovers at the end."""
    clock, health, metrics = clock or SystemClock(), Health(), Metrics()
    async with Supervisor(clock) as supervisor:
        bus = bus or LocalBus(BusSettings(history_size=history_size), clock, "g")
        cache = MemoryCache(CacheSettings(), metrics)
        feed = CacheFeed(bus, cache, await cache.claim(), clock, metrics)
        supervisor.start("cache", "feed", feed.run)
        options = GatewayOptions(
            server_id="server-1",
            gateway=msgspec.convert({"port": 0, **settings}, GatewaySettings),
            admission=admission or AdmissionSettings(),
            tls=tls or TlsSettings(),
            demo=demo,
        )
        context = GatewayContext(
            bus=bus,
            clock=clock,
            health=health,
            metrics=metrics,
            supervisor=supervisor,
            head=head,
            cache=feed,
            inbox=inbox,
            writers=bus.writers,
            orders=orders,
            auth=Authenticator(auth, clock, metrics, health) if auth is not None else None,
        )
        gateway = Gateway(options, context, Extensions(endpoints={"/echo": Echo}, handlers=handlers, framer=framer))
        await gateway.start()
        try:
            yield RunningGateway(gateway, bus, health, metrics, supervisor)
        finally:
            for raw in [raw for raw in _opened if raw.port == gateway.port]:
                raw.leave()
                _opened.remove(raw)
            await _stop(gateway, supervisor, clock)
            feed.close()
            supervisor.cancel()
    assert not gateway.hub.clients
    assert not gateway.hub.topics()


async def _stop(gateway: Gateway, supervisor: Supervisor, clock: Clock) -> None:
    """Stop it; a clock that stands is moved on until that is done."""
    stopping = supervisor.start("test", "stop", lambda: gateway.stop(1.0))
    while isinstance(clock, ManualClock) and not stopping.done():
        await clock.advance(0.1)
    await stopping


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """One client frame, as right or wrong as asked."""
    size, flag = len(payload), 0x80 if masked else 0
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([flag | size])
    elif size < 65536:
        head += struct.pack("!BH", flag | 126, size)
    else:
        head += struct.pack("!BQ", flag | 127, size)
    if not masked:
        return head + payload
    key = os.urandom(4)
    repeated = key * (size // 4 + 1)
    return head + key + (int.from_bytes(payload, "big") ^ int.from_bytes(repeated[:size], "big")).to_bytes(size, "big")


class Raw:
    """A WebSocket client by hand. `receive` gives (opcode, payload), inflated, or ("eof", b"") at the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.head = b""
        _opened.append(self)

    @classmethod
    async def open(cls, port: int, path: str = "/ws", more: str = "", behind: bytes = b"") -> Self:
        """Connect and shake hands; `head` is the server's answer. `behind` goes out in the same segment."""
        raw = await cls.connect(port)
        raw.send(UPGRADE.format(path=path, more=more).encode() + behind)
        await raw.read_head()
        return raw

    @classmethod
    async def connect(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**24))

    @property
    def port(self) -> int:
        name = self.writer.get_extra_info("peername")
        return int(name[1]) if isinstance(name, tuple) else 0  # a Unix socket has none

    async def read_head(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            self.head = await self.reader.readuntil(b"\r\n\r\n")
        return self.head

    def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    def ask(self, kind: str, request_id: Any = None, **data: Any) -> None:
        """Send a command."""
        command: dict[str, Any] = {"type": kind, "data": data}
        if request_id is not None:
            command["id"] = request_id
        self.send(frame(TEXT, json.dumps(command).encode()))

    async def receive(self) -> tuple[int | str, bytes]:
        try:
            async with asyncio.timeout(PATIENCE_S):
                first, second = await self.reader.readexactly(2)
                size = second & 127
                if size == 126:
                    size = int.from_bytes(await self.reader.readexactly(2), "big")
                elif size == 127:
                    size = int.from_bytes(await self.reader.readexactly(8), "big")
                payload = await self.reader.readexactly(size)
                if first & 0x40:
                    payload = zlib.decompressobj(-zlib.MAX_WBITS).decompress(payload + b"\x00\x00\xff\xff")
                return first & 15, payload
        except (asyncio.IncompleteReadError, ConnectionError):
            return "eof", b""

    async def json(self) -> Any:
        """The next text frame's object."""
        opcode, payload = await self.receive()
        assert opcode == TEXT, (opcode, payload)
        return json.loads(payload)

    async def closed(self) -> int:
        """Skip to the close frame and return its code; 1005 for an empty one, 1006 for none."""
        while True:
            opcode, payload = await self.receive()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big") if payload else 1005
            if opcode == "eof":
                return 1006

    def leave(self) -> None:
        self.writer.transport.abort()


async def join(running: RunningGateway, path: str = "/ws", more: str = "") -> Raw:
    """Connect and read the welcome."""
    raw = await Raw.open(running.port, path, more)
    assert b" 101 " in raw.head, raw.head
    assert (await raw.json())["type"] == "welcome"
    return raw
