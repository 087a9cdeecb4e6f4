"""HTTP connections. A request is read whole and answered before the next request is read."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote

from litestar.types import ASGIApp

from headrace.gateway.door.doorkeeper import Doorkeeper, Stalling
from headrace.gateway.problems import PROBLEM_TYPE, problem
from headrace.gateway.transports.event_stream import TAKE_OVER
from headrace.gateway.transports.exchange import Dates, Exchange
from headrace.gateway.transports.handshake import UpgradeRequest
from headrace.gateway.transports.rfc9112 import Inbound, Interim, Malformed, Request
from headrace.runtime.supervise import Supervisor

if TYPE_CHECKING:
    from headrace.gateway.transports.websocket import Connection

READ_AHEAD: Final = 65_536
"""Maximum number of bytes of later requests that are buffered while a request is answered. Above it, reading stops."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


class HttpSide:
    """Parts that the connections of one server share.

    `websocket` returns the protocol that takes over the socket for a WebSocket at a path; None if the path has none.
    """

    def __init__(
        self,
        app: ASGIApp,
        keeper: Doorkeeper,
        supervisor: Supervisor,
        websocket: "Callable[[str], Connection | None]",
    ) -> None:
        self.app, self.keeper, self.supervisor, self.websocket = app, keeper, supervisor, websocket
        self.connections: set[HttpConnection] = set()
        self.closing = False
        self._dates = Dates()

    def date(self) -> bytes:
        """Return the `Date` line for the current time."""
        return self._dates.line(self.keeper.clock.wall_ns())

    def __call__(self) -> "HttpConnection":
        return HttpConnection(self)

    def begin_to_close(self) -> None:
        """Close connections without a request now, and every other connection after its answer."""
        self.closing = True
        for connection in list(self.connections):
            connection.begin_to_close()

    def abort(self) -> None:
        """Drop the remaining connections."""
        for connection in list(self.connections):
            connection.drop()


class HttpConnection(Stalling, asyncio.Protocol):
    """Reads requests one at a time, hands each to the application, and upgrades to another protocol.

    A request is read only once the previous request is answered. So answers are sent in order, a fault is answered in
    its place, and the answers do not depend on how TCP split the bytes.
    """

    def __init__(self, side: HttpSide) -> None:
        self._side, self._keeper = side, side.keeper
        settings = side.keeper.settings
        self._inbound = Inbound(settings.header_bytes_max, settings.body_bytes_max)
        self._exchange: Exchange | None = None
        self._ended = False  # the server's side of the connection: nothing more is read or answered
        self._heard_all = False  # the client's side has ended
        self._paused = self._full = self._secure = False
        self._drained: asyncio.Event | None = None
        self._peer = ""
        self._unsent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._side.connections.add(self)
        self._secure = transport.get_extra_info("sslcontext") is not None
        self._client = _address(transport, "peername")
        self._peer = self._client[0] if self._client else ""
        self._keeper.requests.set(self, self._keeper.clock.monotonic())
        one_too_many = self._keeper.begin_waiting(self._peer)
        if one_too_many and self._keeper.overrun(self._peer):
            self.transport.abort()
        elif one_too_many:
            self._refuse(one_too_many, "too many connections", self._keeper.retry_after_s())

    def connection_lost(self, exc: Exception | None) -> None:
        if self._exchange is not None:
            self._exchange.leave()
            self._exchange = None
        self._let_through()
        self._let_go()
        self._keeper.closing.clear(self)
        self._keeper.stuck.clear(self)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._inbound.receive(data)
        if self._exchange is not None:
            if len(self._inbound) > READ_AHEAD and not self._paused:
                self._paused = True
                self.transport.pause_reading()
            return
        self._go_on()

    def eof_received(self) -> bool:
        """Answer earlier requests. With TLS, a client can't end only its own side."""
        self._heard_all = True
        return self._exchange is not None and not self._secure

    def pause_writing(self) -> None:
        self._full = True
        self._watch_unsent()

    def resume_writing(self) -> None:
        self._keeper.stuck.clear(self)
        self._let_through()

    def abort(self) -> None:
        """Refuse a request that did not arrive in time, or drop a client that does not close its side."""
        if self._ended or self._exchange is not None:
            self.transport.abort()
        elif self._inbound.begun:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self._end()

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    async def drained(self) -> None:
        if self._full:
            if self._drained is None:
                self._drained = asyncio.Event()
            await self._drained.wait()

    def answered(self, exchange: Exchange) -> None:
        self._exchange = None
        if exchange.keep_alive and not (self._side.closing or self.transport.is_closing()):
            self._go_on()
        else:
            self._end()

    def begin_to_close(self) -> None:
        if self._exchange is None and not self._ended:
            self._end()

    def drop(self) -> None:
        """End now, even within an answer."""
        if self._exchange is not None and self._exchange.task is not None:
            self._exchange.task.cancel()
        self.transport.abort()

    def _go_on(self) -> None:
        """Read the next request, or wait for it."""
        try:
            while (found := self._inbound.next()) is Interim.CONTINUE:
                self.write(_CONTINUE)
        except Malformed as fault:
            self._refuse(fault.status, fault.detail)
            return
        if isinstance(found, Request):
            self._keeper.requests.clear(self)
            self._keeper.kept.clear(self)
            self._take(found)
        elif self._heard_all:
            self._end()
        else:
            self._await_more()

    def _await_more(self) -> None:
        now_s = self._keeper.clock.monotonic()
        if not self._inbound.begun:
            if self not in self._keeper.requests:
                self._keeper.kept.set(self, now_s)
        elif self not in self._keeper.requests:
            self._keeper.kept.clear(self)
            self._keeper.requests.set(self, now_s)
        self._read_on()

    def _read_on(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def _take(self, request: Request) -> None:
        path, _, query = request.target.partition(b"?")
        if request.method == "GET" and not request.body and request.wants(b"websocket"):
            connection = self._side.websocket(path.decode("ascii"))
            if connection is not None:
                self._hand_over(connection, request)
                return
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": f"1.{min(request.minor, 1)}",
            "server": _address(self.transport, "sockname"),
            "client": self._client,
            "scheme": "https" if self._secure else "http",
            "root_path": "",
            "headers": request.fields,
            "state": {},
            "method": request.method,
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
        }
        exchange = self._exchange = Exchange(self, request, scope, self._side.date())
        scope["extensions"] = {TAKE_OVER: {"call": self._take_over}}
        self._start(exchange)

    def _start(self, exchange: Exchange) -> None:
        try:
            exchange.task = self._side.supervisor.start("gateway", "request", lambda: exchange.run(self._side.app))
        except RuntimeError:  # the service is stopping
            self._exchange = None
            self.transport.abort()

    def _hand_over(self, connection: "Connection", request: Request) -> None:
        """Hand the socket over to a WebSocket."""
        fields: dict[str, list[str]] = {}
        for name, value in request.fields:
            fields.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        behind = self._inbound.take_rest()
        self._ended = True
        self._let_go()
        self._read_on()
        asked = UpgradeRequest(request.target.decode("ascii"), fields)
        connection.take_over(self.transport, asked, self._peer, self._side.date())
        if behind:
            connection.data_received(behind)

    def _take_over(self, protocol: asyncio.Protocol) -> bool:
        """Write the answer's header block, and hand the socket to `protocol` (see `TakeOver`).

        Later requests are dropped.
        """
        exchange = self._exchange
        if exchange is None or exchange.gone or exchange.scope["method"] == "HEAD" or self._heard_all:
            return False
        if self.transport.is_closing():
            return False
        self.write(exchange.leave())
        self._exchange, self._ended = None, True
        self._let_go()
        self._keeper.stuck.clear(self)
        self._read_on()
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        return True

    def _let_go(self) -> None:
        """Remove the connection from those that wait for a request. Idempotent."""
        if self in self._side.connections:
            self._side.connections.discard(self)
            self._keeper.requests.clear(self)
            self._keeper.kept.clear(self)
            self._keeper.stop_waiting(self._peer)

    def _let_through(self) -> None:
        self._full = False
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    def _refuse(self, status: HTTPStatus, detail: str = "", retry_after_s: int | None = None) -> None:
        """Answer with a problem, and end the server's side."""
        self._keeper.refused.labels(str(int(status))).inc()
        body = problem(status, detail)
        retry = "" if retry_after_s is None else f"retry-after: {retry_after_s}\r\n"
        begin, end = f"HTTP/1.1 {int(status)} {status.phrase}\r\n", f"content-type: {PROBLEM_TYPE}\r\n{retry}"
        end += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.write(begin.encode() + self._side.date() + end.encode() + body)
        self._end()

    def _end(self) -> None:
        """End the server's side, but read until the client's side ends.

        Closing with unread input would destroy the answer.
        """
        self._ended = True
        self._inbound.take_rest()
        self._keeper.requests.clear(self)
        self._keeper.kept.clear(self)
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof() and not self._heard_all:
            self.transport.write_eof()
            self._read_on()
            self._keeper.closing.set(self, self._keeper.clock.monotonic())
        else:
            self.transport.close()
        if self.transport.get_write_buffer_size():
            self._watch_unsent()  # the connection stays open only while the client accepts the unsent bytes


def _address(transport: asyncio.BaseTransport, which: str) -> tuple[str, int] | None:
    name: Any = transport.get_extra_info(which)
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None
