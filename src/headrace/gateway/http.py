"""Uvicorn's HTTP protocol with bounds on what a request may take: time, headers, connections."""

import asyncio
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from headrace.gateway.event_stream import TAKE_OVER
from headrace.gateway.limits import Doorkeeper
from headrace.gateway.problems import PROBLEM_TYPE, problem

UPGRADE_HEADERS_MAX: Final = 128
UPGRADE_HEADER_BYTES: Final = 8188
"""Beyond these the WebSocket core hangs up on a handshake without a word."""


class BoundedHttp(HttpToolsProtocol):
    """Refuses what is too large, too slow or too much, and hands an upgrade on with the bytes that came behind it."""

    def __init__(self, *, keeper: Doorkeeper, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._keeper = keeper
        self._header_bytes = 0
        self._request_bytes = 0
        self._in_head, self._ended = True, False
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._keeper.requests.set(self, self._keeper.clock.monotonic())
        if len(self.connections) > self._keeper.settings.http_connections_max:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        self._keeper.requests.clear(self)
        self._keeper.closing.clear(self)
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
        elif len(self.headers) > UPGRADE_HEADERS_MAX or any(
            len(name) + len(value) > UPGRADE_HEADER_BYTES for name, value in self.headers
        ):
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self.cycle is not None and not self.cycle.response_complete:
            self._refuse(HTTPStatus.BAD_REQUEST, "an upgrade can't follow an unanswered request")
        else:
            self._keeper.requests.clear(self)
            self.handle_websocket_upgrade()
            if behind:
                self.transport.get_protocol().data_received(behind)  # type: ignore[attr-defined]

    def _take_over(self, cycle: RequestResponseCycle, protocol: asyncio.Protocol) -> bool:
        """The answer's head is written, its body is another's affair; see `TakeOver`. Later requests go unanswered."""
        if cycle.scope["method"] == "HEAD" or cycle.disconnected or self.transport.is_closing():
            return False
        cycle.disconnected = True  # for uvicorn
        self.connections.discard(self)
        self._keeper.requests.clear(self)
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.parser = None  # type: ignore[assignment]  # they hold each other
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        return True

    def _refuse(self, status: HTTPStatus, detail: str = "") -> None:
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
        head = (
            f"HTTP/1.1 {int(status)} {status.phrase}\r\ncontent-type: {PROBLEM_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.write_eof()
        self._keeper.closing.set(self, self._keeper.clock.monotonic())
