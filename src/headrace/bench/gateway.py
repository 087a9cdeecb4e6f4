"""How many frames the gateway delivers, and how late: a server whose clients order the load, and clients to order it.

`--serve` starts the real gateway with two additions: a client of `/ws` may send `{"op":"pub","rate":1000,"secs":3}`,
which publishes that many messages a second to the topic `slots` and makes every connection get them, and `/echo` sends
back what it gets.
"""

import argparse
import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import uvloop
from litestar import get

from headrace.bench.gateway_clients import LoadReport
from headrace.bus import BusSettings
from headrace.bus.memory import MemoryBus
from headrace.gateway.connection import Connection, Opening
from headrace.gateway.server import Gateway
from headrace.gateway.session_shell import Gate, SessionShell
from headrace.gateway.settings import GatewaySettings
from headrace.model.events import Message, Publication
from headrace.protocol.frames import text_header
from headrace.protocol.session import Subscribe
from headrace.runtime.clock import SystemClock
from headrace.runtime.health import Health
from headrace.runtime.log import set_level
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor

TOPIC: Final = "slots"
FILLING: Final = (
    b'"topic":"trades","type":"trade","signature":"5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3Zp'
    b'RzrFmBV6UjKdiSZkQUW","slot":287654321,"mint":"EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v","owner":"9WzDXwBbmkg8'
    b'ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM","side":"buy","price":"0.00012345","amount":"1234567.89"'
)
"""What a message holds besides its time and number; the shape that the load drivers of this protocol expect."""


class Order(msgspec.Struct, frozen=True, tag_field="op", tag="pub"):
    """Publish `rate` messages a second for `secs` seconds."""

    rate: float
    secs: float


def bare(message: Message) -> bytes:
    """The body alone, so that a driver finds its time stamp at the very front."""
    return b"{%b}" % message.body


class Publisher:
    """Publishes what clients order; time stamps are µs of the monotonic clock, of the moment each message was due."""

    def __init__(self, bus: MemoryBus, supervisor: Supervisor) -> None:
        self._bus, self._supervisor = bus, supervisor

    def start(self, order: Order) -> None:
        self._supervisor.start("bench", "publish", lambda: self._publish(order))

    async def _publish(self, order: Order) -> None:
        began_ns, sent, total = time.monotonic_ns(), 0, round(order.rate * order.secs)
        began_us = began_ns // 1000
        while sent < total:
            due = min(total, int((time.monotonic_ns() - began_ns) * order.rate / 1e9) + 1)
            batch = [
                Publication(
                    TOPIC, "event", b'"t":%d,"s":%d,%b' % (began_us + int(n * 1e6 / order.rate), n + 1, FILLING)
                )
                for n in range(sent, due)
            ]
            sent = due
            if batch:
                await self._bus.publish(batch)
            await asyncio.sleep(0.001)


class OrderingShell(SessionShell):
    """A session that has the topic from the start and may order messages."""

    def __init__(self, gate: Gate, publisher: Publisher, connection: Connection, opening: Opening) -> None:
        super().__init__(gate, connection, opening)
        self._hub, self._publisher = gate.hub, publisher

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
    """Sends back what it gets: for checks of the WebSocket layer alone."""

    frame_bytes_max = ECHO_BYTES_MAX = 1_048_576

    def __init__(self, connection: Connection, _opening: Opening) -> None:
        self._wire = connection.transport

    def opened(self) -> None: ...

    def text(self, data: str) -> None:
        payload = data.encode()
        self._wire.write(text_header(len(payload)) + payload)

    def binary(self, data: bytes) -> None:
        header = text_header(len(data))
        self._wire.write(bytes([0x82]) + header[1:] + data)

    def socket_full(self) -> None: ...

    def socket_free(self) -> None: ...

    def lost(self) -> None: ...


@get("/health", sync_to_thread=False)
def ok() -> dict[str, bool]:
    return {"ok": True}


async def serve(settings: GatewaySettings) -> None:
    """Run until SIGTERM or SIGINT; the first line printed is the port."""
    set_level("error")
    clock, metrics, stop = SystemClock(), Metrics(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Supervisor(clock) as supervisor:
        bus = MemoryBus(BusSettings(), clock, "bench")
        publisher = Publisher(bus, supervisor)
        gateway = Gateway(
            settings,
            bus,
            Health(),
            metrics,
            clock,
            supervisor=supervisor,
            server_id="bench",
            endpoints={
                "/ws": lambda connection, opening: OrderingShell(gateway.gate, publisher, connection, opening),
                "/echo": Echo,
            },
            handlers=(ok,),
            framer=bare,
        )
        await gateway.start()
        sys.stdout.write(f"{gateway.port}\n")
        sys.stdout.flush()
        await stop.wait()
        await gateway.stop(2.0)
        supervisor.cancel()


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure one load: `clients` connections, `rate` messages a second for `secs` seconds; or serve (`--serve`)."""
    settings = GatewaySettings(
        port=args.port, tick_ms=args.tick_ms, connections_max=50_000, http_connections_max=50_000, ping_s=3600
    )
    if args.serve:
        with contextlib.suppress(asyncio.CancelledError):
            uvloop.run(serve(settings))
        return {}
    module = [sys.executable, "-m", "headrace.bench.gateway"]
    server_words = [*_on_core(args.server_core), *module, "--serve", "--tick-ms", str(args.tick_ms)]
    with subprocess.Popen(server_words, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            words = [sys.executable, "-m", "headrace.bench.gateway_clients", port, str(server.pid)]
            words += [str(args.clients), str(args.rate), str(args.secs)]
            words = [*_on_core(args.client_core), *words]
            done = subprocess.run(words, stdout=subprocess.PIPE, check=True)  # noqa: S603
        finally:
            server.terminate()
    report = msgspec.json.decode(done.stdout, type=LoadReport)
    return {"bench": "gateway", "at": datetime.now(UTC).isoformat(timespec="seconds"), **msgspec.structs.asdict(report)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--serve", action="store_true", help="only run the server, for another load driver")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tick-ms", type=float, default=GatewaySettings().tick_ms)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1000, help="messages a second to each client")
    parser.add_argument("--secs", type=float, default=3)
    parser.add_argument("--server-core", type=int, help="pin the server to this core")
    parser.add_argument("--client-core", type=int, help="pin the clients to this core")


def _on_core(core: int | None) -> list[str]:
    return [] if core is None else ["taskset", "-c", str(core)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    measured = run(parser.parse_args())
    if measured:
        sys.stdout.write(msgspec.json.encode(measured).decode() + "\n")
