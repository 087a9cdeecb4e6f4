"""The real gateway with two additions: clients may request a load, and `/echo` sends frames back.

If a client of `/ws` sends `{"op":"pub","rate":1000,"secs":3}`, the server publishes 1,000 messages per second for 3
seconds on the topic `slots`, to which every connection is subscribed from the start.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Mapping
from typing import Final

import msgspec
import uvloop
from litestar import get

from headrace.bench.gateway_load import Order, batches
from headrace.bus import BusSettings, Writer
from headrace.bus.lanes import lane_of
from headrace.bus.memory import MemoryBus
from headrace.fanout.framing import compressed_frame
from headrace.gateway.context import Extensions, GatewayContext, GatewayOptions
from headrace.gateway.server import Gateway
from headrace.gateway.sessions import SessionContext, StreamEndpoint
from headrace.gateway.settings import AdmissionSettings, GatewaySettings
from headrace.gateway.transports.handshake import Opening
from headrace.gateway.transports.rfc6455 import BINARY, TEXT
from headrace.gateway.transports.websocket import Connection, EndpointFactory
from headrace.model.events import Message, Publication
from headrace.protocol.frames import frame_header
from headrace.protocol.session import Subscribe
from headrace.runtime.clock import SystemClock
from headrace.runtime.health import Health
from headrace.runtime.log import configure
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor

TOPIC: Final = "slots"

OPEN_DOORS: Final = AdmissionSettings(per_address_max=50_000, connects_per_s=50_000, http_per_address_max=50_000)
"""Limits for a benchmark, in which all clients have the same address."""


def bare(message: Message) -> bytes:
    """Return only the body of the message, so that a load client finds the time at the start."""
    return b"{%b}" % message.body


class Publisher:
    """Publishes the load that clients request. Times are µs of the monotonic clock, at which a message was due."""

    def __init__(self, writer: Writer, supervisor: Supervisor) -> None:
        self._writer, self._supervisor = writer, supervisor

    def start(self, order: Order) -> None:
        self._supervisor.start("bench", "publish", lambda: self._publish(order))

    async def _publish(self, order: Order) -> None:
        async for bodies in batches(order):
            if bodies:
                batch = self._writer.batch([Publication.on(TOPIC, "event", body) for body in bodies])
                await self._writer.publish(batch)


class OrderingShell(StreamEndpoint):
    """A session that is subscribed to the topic from the start, and may request a load."""

    def __init__(self, context: SessionContext, publisher: Publisher, connection: Connection, opening: Opening) -> None:
        super().__init__(context, connection, opening)
        self._hub, self._publisher = context.hub, publisher

    def opened(self) -> None:
        super().opened()
        if self.open:
            self._hub.subscribe(self, Subscribe(TOPIC, None, None))

    def text(self, data: str) -> None:
        try:
            order = msgspec.json.decode(data, type=Order)
        except msgspec.DecodeError:
            super().text(data)
        else:
            self._publisher.start(order)


class Echo:
    """An endpoint that sends frames back, to measure only the WebSocket layer."""

    frame_bytes_max = 1_048_576
    user_id = None

    def __init__(self, connection: Connection, _opening: Opening) -> None:
        self._wire, self._deflate = connection.transport, connection.deflate

    def opened(self) -> None: ...

    def text(self, data: str) -> None:
        self._send(TEXT, data.encode())

    def binary(self, data: bytes) -> None:
        self._send(BINARY, data)

    def _send(self, opcode: int, payload: bytes) -> None:
        plain = frame_header(opcode, len(payload)) + payload
        self._wire.write(compressed_frame(opcode, payload) if self._deflate else plain)

    def socket_full(self) -> None: ...

    def socket_free(self) -> None: ...

    def lost(self) -> None: ...


@get("/health", sync_to_thread=False)
def ok() -> dict[str, bool]:
    return {"ok": True}


def run(port: int, tick_ms: float) -> None:
    """Serve on this port (0: a free one) until SIGTERM or SIGINT. The first line printed is the port."""
    settings = GatewaySettings(
        port=port, tick_ms=tick_ms, connections_max=50_000, http_connections_max=50_000, ping_s=3600
    )
    with contextlib.suppress(asyncio.CancelledError):
        uvloop.run(serve(settings))


async def serve(settings: GatewaySettings) -> None:
    """Run until SIGTERM or SIGINT. The first line printed is the port."""
    configure("error", "console")
    clock, metrics, stop = SystemClock(), Metrics(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Supervisor(clock) as supervisor:
        bus = MemoryBus(BusSettings(), clock, "bench")
        publisher = Publisher(await bus.claim(lane_of(TOPIC)), supervisor)
        endpoints: Mapping[str, EndpointFactory] = {
            "/ws": lambda connection, opening: OrderingShell(gateway.sessions, publisher, connection, opening),
            "/echo": Echo,
        }
        gateway = Gateway(
            GatewayOptions(server_id="bench", gateway=settings, admission=OPEN_DOORS),
            GatewayContext(bus=bus, clock=clock, health=Health(), metrics=metrics, supervisor=supervisor),
            Extensions(endpoints=endpoints, handlers=(ok,), framer=bare),
        )
        await gateway.start()
        sys.stdout.write(f"{gateway.port}\n")
        sys.stdout.flush()
        await stop.wait()
        await gateway.stop(2.0)
        supervisor.cancel()
