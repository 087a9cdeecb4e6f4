"""Uvicorn's HTTP protocol with bounds on what a request may take: time, headers, connections."""

import asyncio
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from websockets.datastructures import Headers
from websockets.http11 import Request

from headrace.gateway.event_stream import TAKE_OVER
from headrace.gateway.limits import Doorkeeper, Stalling
from headrace.gateway.problems import PROBLEM_TYPE, problem

if TYPE_CHECKING:
    from headrace.gateway.connection import Connection


PIPELINE_MAX: Final = 32
"""Requests of one connection that may wait for the one before them. Uvicorn would take as many as come, and each takes
a hundred times its bytes."""


class BoundedHttp(Stalling, HttpToolsProtocol):
    """Refuses what is too large, too slow or too much, and hands an upgrade on with the bytes that came behind it."""

    def __init__(self, *, keeper: Doorkeeper, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._keeper = keeper
        self._header_bytes = 0
        self._request_bytes = 0
        self._in_head, self._ended = True, False
        self._refused = False
        self._peer = ""
        self._unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._keeper.requests.set(self, self._keeper.clock.monotonic())
        self._peer = self.client[0] if self.client else ""
        one_too_many = self._keeper.begin_waiting(self._peer)
        if one_too_many and self._keeper.overrun(self._peer):
            transport.abort()
        elif one_too_many:
            self._refuse(one_too_many, "too many connections", self._keeper.retry_after_s())

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._keeper.closing.clear(self)
        self._keeper.stuck.clear(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._ended = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "not HTTP/1.1")
        else:
            self._bound(len(data))

    def abort(self) -> None:
        """The request did not come in time, or the client does not hang up after it was refused."""
        if self._refused:
            self.transport.abort()
        elif self.cycle is None or self.cycle.response_complete:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_unsent()

    def resume_writing(self) -> None:
        self._keeper.stuck.clear(self)
        super().resume_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():  # it stays until its client took what waits for it, if it ever does
            self._watch_unsent()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch_unsent()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0
        self._in_head = True
        self._keeper.requests.set(self, self._keeper.clock.monotonic())

    def on_url(self, url: bytes) -> None:
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.pipeline) >= PIPELINE_MAX:
            self._drop()
        if not self._refused:
            super().on_headers_complete()
            if self.cycle is not None:
                self.scope["extensions"] = {TAKE_OVER: {"call": partial(self._take_over, self.cycle)}}

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._keeper.requests.clear(self)
        self._request_bytes = 0
        self._ended = self._in_head = True
        if not self._refused:
            super().on_message_complete()

    def _bound(self, size: int) -> None:
        """The parser keeps an unfinished header for itself: bound what arrives, not only what it hands on.

        A piece with the end of a request in it is not counted: what follows belongs to the next.
        """
        if self._ended:
            return
        self._request_bytes += size
        settings = self._keeper.settings
        if self._request_bytes > settings.header_bytes_max + (0 if self._in_head else settings.body_bytes_max):
            too_large = (
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if self._in_head else HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            )
            self._refuse(too_large)

    def _count(self, *pieces: bytes) -> None:
        self._header_bytes += sum(map(len, pieces))
        if self._header_bytes > self._keeper.settings.header_bytes_max:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _upgrade(self, behind: bytes) -> None:
        if self._refused:
            return
        if self.scope["http_version"] != "1.1":
            self._refuse(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        elif self.cycle is not None and not self.cycle.response_complete:
            self._refuse(HTTPStatus.BAD_REQUEST, "an upgrade can't follow an unanswered request")
        else:
            self._hand_over(behind)

    def _hand_over(self, behind: bytes) -> None:
        """The socket is a WebSocket's from here on."""
        try:
            headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.headers])
            request = Request(self.url.decode("ascii"), headers, method=self.scope["method"])
        except UnicodeDecodeError:
            self._refuse(HTTPStatus.BAD_REQUEST, "not HTTP/1.1")
            return
        if "Content-Length" in headers or "Transfer-Encoding" in headers:
            self._refuse(HTTPStatus.BAD_REQUEST, "an upgrade has no body")
            return
        self.connections.discard(self)
        self._stop_waiting()
        self.parser = None  # type: ignore[assignment]  # they hold each other
        connection: Connection = self.ws_protocol_class()  # type: ignore[misc, assignment]
        connection.take_over(self.transport, request, self._peer)
        if behind:
            connection.data_received(behind)

    def _stop_waiting(self) -> None:
        self._keeper.requests.clear(self)
        self._keeper.stop_waiting(self._peer)

    def _take_over(self, cycle: RequestResponseCycle, protocol: asyncio.Protocol) -> bool:
        """The answer's head is written, its body is another's affair; see `TakeOver`. Later requests go unanswered."""
        if cycle.scope["method"] == "HEAD" or cycle.disconnected or self.transport.is_closing():
            return False
        cycle.disconnected = True  # for uvicorn
        self.connections.discard(self)
        self._stop_waiting()
        self._keeper.stuck.clear(self)
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.parser = None  # type: ignore[assignment]  # they hold each other
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        return True

    def _drop(self) -> None:
        """Answers are still to come, so nothing can be said; hear no more."""
        if not self._refused:
            self._refused = True
            self._keeper.refused.labels(str(int(HTTPStatus.TOO_MANY_REQUESTS))).inc()
            self.transport.abort()

    def _refuse(self, status: HTTPStatus, detail: str = "", retry_after_s: int | None = None) -> None:
        """Answer, end our side, and hear no more: closing with unread input would destroy the answer."""
        if self._refused:
            return
        self._refused = True
        if self.cycle is not None:
            self.cycle.disconnected = True  # an answer still to come has nowhere to go
        self._keeper.refused.labels(str(int(status))).inc()
        if self.transport.is_closing():
            return
        body = problem(status, detail)
        retry = "" if retry_after_s is None else f"retry-after: {retry_after_s}\r\n"
        head = (
            f"HTTP/1.1 {int(status)} {status.phrase}\r\ncontent-type: {PROBLEM_TYPE}\r\n{retry}"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
        self._keeper.closing.set(self, self._keeper.clock.monotonic())
