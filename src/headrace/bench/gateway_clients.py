"""WebSocket clients in one process that check the messages that they get: order, missing messages, latency."""

import asyncio
import resource
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final, cast

import msgspec
import uvloop

from headrace.bench.server_frames import ServerFrames

CONNECT_S: Final = 30
FRONT_BYTES: Final = 48
"""Number of bytes that are read of each message. Its time and number are at the start."""

_REQUEST: Final = (
    b"GET /ws HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class LoadReport(msgspec.Struct):
    """Results of one run. Latencies are µs from when a message was due until a client had read it.

    - `delivered`: frames per second to all clients together while messages are published.
    - `holes`: the number of missing or repeated messages.
    - `server_cpu`, `client_cpu`: the number of cores used.
    - `rss_kb`: the server's memory at the end.
    """

    clients: int
    rate: float
    secs: float
    delivered: float
    fraction: float
    holes: int
    p50_us: int
    p90_us: int
    p99_us: int
    max_us: int
    server_cpu: float
    client_cpu: float
    rss_kb: int


class _Load:
    """State that all clients share. The order is checked for all clients, the latency only for some."""

    def __init__(self) -> None:
        self.frames = 0
        self.holes = 0
        self.latencies_us: list[int] = []


class _Reader(asyncio.Protocol):
    def __init__(self, load: _Load, *, sampled: bool) -> None:
        self._load, self._sampled = load, sampled
        self._frames = ServerFrames()
        self._last = 0
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass of it
        self.transport.write(_REQUEST)

    def data_received(self, data: bytes) -> None:
        now_us = time.monotonic_ns() // 1000
        for front in self._frames.take(data, FRONT_BYTES):
            self._take(front, now_us)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionError("closed by the server"))

    def _take(self, front: bytearray, now_us: int) -> None:
        if not front.startswith(b'{"t":'):
            if front.startswith(b'{"type":"subscribed"') and not self.ready.done():
                self.ready.set_result(None)
            return
        due_us, _, rest = front[5:].partition(b',"s":')
        number = int(rest[: rest.index(b",")])
        load = self._load
        load.frames += 1
        if number != self._last + 1:
            load.holes += 1
        self._last = number
        if self._sampled:
            load.latencies_us.append(now_us - int(due_us))


async def drive(port: int, server_pid: int, clients: int, rate: float, secs: float) -> LoadReport:
    """Connect, request the messages, and read until all have arrived, or until 5 s after the last was due."""
    load, loop = _Load(), asyncio.get_running_loop()
    readers: list[_Reader] = []
    every = max(1, clients // 64)
    for number in range(clients):
        reader = _Reader(load, sampled=number % every == 0)
        await loop.create_connection(partial(_same, reader), "127.0.0.1", port)
        readers.append(reader)
    async with asyncio.timeout(CONNECT_S):
        await asyncio.gather(*(reader.ready for reader in readers))
    server_before, client_before = _cpu_s(server_pid), _own_cpu_s()
    _send(readers[0].transport, b'{"op":"pub","rate":%f,"secs":%f}' % (rate, secs))
    await asyncio.sleep(secs)
    in_time = load.frames
    server_cpu, client_cpu = (_cpu_s(server_pid) - server_before) / secs, (_own_cpu_s() - client_before) / secs
    expected = round(rate * secs) * clients
    end_s = loop.time() + 5
    while load.frames < expected and loop.time() < end_s:  # noqa: ASYNC110  (a count that is polled)
        await asyncio.sleep(0.05)
    for reader in readers:
        reader.transport.abort()
    sorted_us = sorted(load.latencies_us) or [0]
    at = [sorted_us[min(len(sorted_us) - 1, int(len(sorted_us) * q))] for q in (0.5, 0.9, 0.99)]
    return LoadReport(
        clients, rate, secs, in_time / secs, load.frames / expected, load.holes,
        at[0], at[1], at[2], sorted_us[-1], round(server_cpu, 3), round(client_cpu, 3), _rss_kb(server_pid),
    )  # fmt: skip


def _same(reader: _Reader) -> _Reader:
    return reader


def _send(transport: asyncio.Transport, payload: bytes) -> None:
    transport.write(bytes((0x81, 0x80 | len(payload), 0, 0, 0, 0)) + payload)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _rss_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    port, pid, clients = map(int, sys.argv[1:4])
    report = uvloop.run(drive(port, pid, clients, float(sys.argv[4]), float(sys.argv[5])))
    sys.stdout.write(msgspec.json.encode(report).decode())
