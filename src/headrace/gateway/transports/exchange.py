"""One HTTP request and its answer, as an ASGI application sees them."""

import asyncio
import re
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final, Protocol

import structlog
from litestar.types import ASGIApp

from headrace.gateway.problems import PROBLEM_TYPE, problem
from headrace.gateway.transports.rfc9112 import Request

_PHRASES: Final = {int(status): status.phrase for status in HTTPStatus}
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(rb"[\t -~\x80-\xff]*")
_WITHOUT_BODY: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})

_log = structlog.get_logger("gateway")


class Plug(Protocol):
    """The connection of a request, as its answer uses it."""

    def write(self, data: bytes) -> None:
        """Send bytes. Do nothing once the client has gone."""

    async def drained(self) -> None:
        """Wait until the client accepts more bytes, or has gone."""

    def answered(self, exchange: "Exchange") -> None:
        """Handle the end of an answer. If the answer was cut short, its `keep_alive` is False."""


class Dates:
    """The `Date` line of answers (RFC 9110 §6.6.1), created once a second."""

    def __init__(self) -> None:
        self._second, self._line = -1, b""

    def line(self, wall_ns: int) -> bytes:
        """Return the header line for the time `wall_ns`."""
        second = wall_ns // 1_000_000_000
        if second != self._second:
            self._second, self._line = second, b"date: %b\r\n" % formatdate(second, usegmt=True).encode()
        return self._line


class Exchange:
    """Runs the application for one request. `gone` means that the client left or another protocol took over the socket.

    The application gets the whole body at once. Its next message is `http.disconnect`, once the client leaves.
    """

    __slots__ = (
        "_body",
        "_chunked",
        "_date",
        "_head",
        "_headless",
        "_left",
        "_over",
        "_plug",
        "_started",
        "done",
        "gone",
        "keep_alive",
        "minor",
        "scope",
        "task",
    )

    def __init__(self, plug: Plug, request: Request, scope: dict[str, Any], date: bytes) -> None:
        self._plug, self.scope, self._date = plug, scope, date
        self.minor, self.keep_alive = request.minor, request.keep_alive
        self._headless = request.method == "HEAD"
        self._body: bytes | None = request.body
        self._head = b""  # written with the first piece of the body
        self._started = self._chunked = False
        self._left: int | None = None  # bytes of the Content-Length still to be written
        self._over = asyncio.Event()
        self.done = self.gone = False
        self.task: asyncio.Task[object] | None = None

    async def run(self, app: ASGIApp) -> None:
        """Answer the request. A defect is logged, and answered with 500 if nothing was sent yet. Raises nothing."""
        try:
            await app(self.scope, self._receive, self._send)  # type: ignore[arg-type]
            self._check_whole()
        except Exception as error:  # noqa: BLE001  (a defect must cost only its own request)
            _log.error("request_failed", path=self.scope["path"], error=repr(error), exc_info=error)
            self._fail()
        finally:
            self.scope["extensions"].clear()  # breaks a cycle between the scope and the connection

    def leave(self) -> bytes:
        """End, because the client left or another protocol takes over.

        Returns the unwritten part of the header block.
        """
        self.gone = True
        self._over.set()
        head, self._head = self._head, b""
        return head

    async def _receive(self) -> dict[str, Any]:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if self.gone:
            return
        if self.done:
            raise RuntimeError("the answer is over")
        if message["type"] == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
            return
        await self._plug.drained()
        if not self.gone:
            self._continue(bytes(message.get("body", b"")), more=bool(message.get("more_body", False)))

    def _start(self, status: int, headers: Any) -> None:
        if self._started:
            raise RuntimeError("the answer has begun")
        self._started = True
        lines = [b"HTTP/1.1 %d %b\r\n" % (status, _PHRASES.get(status, "").encode()), self._date]
        for name, value in headers:
            if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
                raise RuntimeError("a header of the answer is none")
            lower = name.lower()
            if lower == b"content-length":
                self._left = int(value)
            elif lower == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()
                continue
            lines.append(b"%b: %b\r\n" % (lower, value))
        if status in _WITHOUT_BODY:
            self._headless = True
        elif self._left is None and not self._headless:
            self._chunked = self.minor > 0
            self.keep_alive = self.keep_alive and self._chunked  # otherwise only the connection's end ends the body
        if self._chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        self._head = b"".join(lines)

    def _continue(self, body: bytes, *, more: bool) -> None:
        if not self._started:
            raise RuntimeError("the answer has no head")
        if self._headless:
            body = b""
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the answer is not as long as it says")
        elif self._chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
        head, self._head = self._head, b""
        if head or body:
            self._plug.write(head + body)
        if not more:
            self._end()

    def _check_whole(self) -> None:
        if not (self.done or self.gone):
            raise RuntimeError("the application returned without a whole answer")

    def _fail(self) -> None:
        """Answer a defect with 500 if nothing was sent. Otherwise cut the answer short, which the client can detect."""
        if self.gone or self.done:
            return
        untouched = not self._started or bool(self._head)
        self.keep_alive = False
        self._head = b""
        if untouched:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            body = b"" if self._headless else problem(status)
            head = b"HTTP/1.1 %d %b\r\n%bcontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self._plug.write(
                head % (status, status.phrase.encode(), self._date, PROBLEM_TYPE.encode(), len(problem(status))) + body
            )
        self._end()

    def _end(self) -> None:
        self.done = True
        self._over.set()
        self._plug.answered(self)
