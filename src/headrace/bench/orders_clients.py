"""WebSocket clients that place orders on a few open connections, and follow each order there until it has ended."""

import asyncio
import sys
import time
from collections import Counter
from functools import partial
from typing import Final, cast

import msgspec
import uvloop

from headrace.bench.server_frames import ServerFrames

CONNECT_S: Final = 10
DEADLINE_S: Final = 60.0
BODY: Final = b'"tokenIn":"SOL","tokenOut":"USDC","amount":1.5,"slippage":0.5,"type":"market"'
TERMINAL: Final = frozenset({"CONFIRMED", "FAILED", "CANCELLED", "EXPIRED"})


class _Update(msgspec.Struct):
    type: str = ""
    orderId: str = ""  # noqa: N815  (as on the wire)
    seq: int = 0
    status: str = ""


class _Frame(msgspec.Struct):
    type: str
    id: int | str | None = None
    data: _Update = msgspec.field(default_factory=_Update)


class Placed(msgspec.Struct):
    """Results of one load.

    Times are milliseconds from placing an order until the answer, or until the order has ended (`took_ms`).
    """

    orders: int
    seconds: float
    orders_per_s: float
    answer_p50_ms: float
    answer_p99_ms: float
    confirm_p50_ms: float
    confirm_p99_ms: float
    statuses: dict[str, int]
    refused: int
    missing_or_out_of_order: int
    never_over: int
    took_ms: dict[str, float]


class _Load:
    """State that all connections share: the number of orders still to place, and the results of the placed orders."""

    def __init__(self, orders: int, *, paced: bool) -> None:
        self.left, self.total = 0 if paced else orders, orders
        self.answers_s: list[float] = []
        self.confirms_s: dict[str, float] = {}
        self.statuses: Counter[str] = Counter()
        self.refused = self.holes = 0
        self.last_s = 0.0
        self.over = asyncio.Event()

    def end(self, order_id: str, status: str, took_s: float) -> None:
        self.statuses[status] += 1
        self.confirms_s[order_id] = took_s
        self.last_s = time.monotonic()
        if len(self.confirms_s) + self.refused == self.total:
            self.over.set()


class _Client(asyncio.Protocol):
    """One connection with at most `window` unfinished orders.

    An update may come before the answer. Both are counted.
    """

    def __init__(self, load: _Load, number: int, window: int) -> None:
        self._load, self._number, self._window = load, number, window
        self._decode = msgspec.json.Decoder(_Frame).decode
        self._frames = ServerFrames()
        self._asked_s: dict[int, float] = {}
        self._placed_s: dict[str, float] = {}
        self._seen: dict[str, tuple[int, str]] = {}
        self._next_id = 10**9  # so large that the length of every frame takes two bytes
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(
            b"GET /ws?batch=1&user_id=bench-%d&subscriptions=orders:bench-%d HTTP/1.1\r\nHost: bench\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n" % (self._number, self._number)
        )

    def fill(self) -> None:
        """Place as many orders as the window allows, in one write."""
        now_s = time.monotonic()
        out = []
        while self._load.left and len(self._asked_s) + len(self._placed_s) < self._window:
            self._load.left -= 1
            self._next_id += 1
            self._asked_s[self._next_id] = now_s
            text = b'{"type":"order.execute","id":%d,"data":{%b}}' % (self._next_id, BODY)
            out.append(bytes((0x81, 0x80 | 126)) + len(text).to_bytes(2, "big") + b"\0\0\0\0" + text)
        if out:
            self.transport.write(b"".join(out))

    def data_received(self, data: bytes) -> None:
        now_s = time.monotonic()
        for frame in self._frames.take(data):
            for line in frame.split(b"\n"):
                self._take(line, now_s)
        if self.ready.done():
            self.fill()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionError("closed by the server"))
        self._load.over.set()

    def _take(self, line: bytearray, now_s: float) -> None:
        if line.startswith(b'{"type":"event"'):
            if b'"type":"update"' not in line:  # the owner's topic also carries messages for applications
                return
            update = self._decode(line).data
            seq, _ = self._seen.get(update.orderId, (0, ""))
            self._load.holes += update.seq != seq + 1
            self._seen[update.orderId] = (update.seq, update.status)
            self._settle(update.orderId, now_s)
        elif line.startswith(b'{"type":"order"'):
            frame = self._decode(line)
            asked_s = self._asked_s.pop(cast("int", frame.id))
            self._load.answers_s.append(now_s - asked_s)
            self._placed_s[frame.data.orderId] = asked_s
            self._settle(frame.data.orderId, now_s)
        elif line.startswith(b'{"type":"error"'):
            self._asked_s.pop(cast("int", self._decode(line).id), None)
            self._load.refused += 1
        elif line.startswith(b'{"type":"subscribed"') and not self.ready.done():
            self.ready.set_result(None)

    def _settle(self, order_id: str, now_s: float) -> None:
        _, status = self._seen.get(order_id, (0, ""))
        if status in TERMINAL and order_id in self._placed_s:
            self._load.end(order_id, status, now_s - self._placed_s.pop(order_id))


async def drive(port: int, orders: int, connections: int, in_flight: int, per_s: int = 0) -> Placed:
    """Place `orders` over `connections`, at most `in_flight` unfinished and `per_s` per second (0: no limit)."""
    load = _Load(orders, paced=per_s > 0)
    clients = [_Client(load, number, in_flight // connections) for number in range(connections)]
    for client in clients:
        await asyncio.get_running_loop().create_connection(partial(_same, client), "127.0.0.1", port)
    async with asyncio.timeout(CONNECT_S):
        await asyncio.gather(*(client.ready for client in clients))
    began_s = time.monotonic()
    for client in clients:
        client.fill()
    try:
        async with asyncio.timeout(DEADLINE_S):
            if per_s:
                await _pace(load, clients, per_s)
            await load.over.wait()
    except TimeoutError:
        pass
    for client in clients:
        client.transport.abort()
    took_s = list(load.confirms_s.values())
    seconds = (load.last_s or time.monotonic()) - began_s
    return Placed(
        orders, round(seconds, 3), round(len(took_s) / seconds, 1),
        _ms(load.answers_s, 0.5), _ms(load.answers_s, 0.99), _ms(took_s, 0.5), _ms(took_s, 0.99),
        dict(load.statuses), load.refused, load.holes, orders - len(took_s) - load.refused,
        {order_id: round(each_s * 1000, 2) for order_id, each_s in load.confirms_s.items()},
    )  # fmt: skip


async def _pace(load: _Load, clients: list[_Client], per_s: int) -> None:
    """Place each order when it is due, on the connections in turn."""
    began_s = time.monotonic()
    for number in range(load.total):
        await asyncio.sleep(began_s + number / per_s - time.monotonic())
        load.left += 1
        clients[number % len(clients)].fill()


def _same(client: _Client) -> _Client:
    return client


def _ms(seconds: list[float], quantile: float) -> float:
    return round(sorted(seconds)[int(len(seconds) * quantile)] * 1000, 2) if seconds else -1.0


if __name__ == "__main__":
    report = uvloop.run(drive(*map(int, sys.argv[1:])))
    sys.stdout.write(msgspec.json.encode(report).decode())
