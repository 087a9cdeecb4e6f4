"""One WebSocket connection: the handshake, messages, the close, and the state of the socket."""

import asyncio
from collections.abc import Callable, Mapping
from enum import Enum
from http import HTTPStatus
from typing import Final, Protocol, TypeAlias

import structlog

from headrace.gateway.door.doorkeeper import Doorkeeper, Stalling
from headrace.gateway.problems import Refused, retry_after
from headrace.gateway.transports.handshake import Opening, UpgradeRequest, opening, refusal, shake_hands
from headrace.gateway.transports.rfc6455 import BINARY, CLOSE, PING, PONG, Inbound, Received, Text, Violation
from headrace.protocol.codes import CLOSE_REASONS, CloseCode
from headrace.protocol.frames import frame_header
from headrace.protocol.session import TokenBucket

FRAMES_PER_S: Final = 1000
"""Maximum number of WebSocket frames of any kind from one client, per second and at once.

It is higher if the client's command limit is higher.
"""


_NO_STATUS: Final = 1005
_LOST: Final = 1006

_log = structlog.get_logger("gateway")


class Endpoint(Protocol):
    """The receiver of messages at a path. `user_id` is None while the user is not known."""

    frame_bytes_max: int

    @property
    def user_id(self) -> str | None: ...

    def opened(self) -> None:
        """Begin: the handshake has finished, and frames may be written."""

    def text(self, data: str) -> None:
        """Handle a text message."""

    def binary(self, data: bytes) -> None:
        """Handle a binary message."""

    def socket_full(self) -> None:
        """Stop writing: the client accepts no more for now."""

    def socket_free(self) -> None:
        """Write again: the client accepts data again."""

    def lost(self) -> None:
        """End: no more frames may be written. Called once."""


EndpointFactory: TypeAlias = "Callable[[Connection, Opening], Endpoint]"
"""Returns the endpoint for one connection, or raises Refused to answer with an HTTP status instead."""


class _Phase(Enum):
    """OPEN: messages pass.

    CLOSING: the server's close is sent, and the client's is expected. OVER: the server's side of the stream has ended.
    """

    OPEN = 0
    CLOSING = 1
    OVER = 2


class Connection(Stalling, asyncio.Protocol):
    """Takes over a socket after its upgrade request, and hands messages to the endpoint of its path.

    Event frames do not pass through this class: they are written to `transport` directly. `heard` is set by any
    incoming data, and cleared by the caller that waits for an answer. With `deflate`, the client accepts compressed
    messages.
    """

    __slots__ = (
        "_admitted",
        "_began_s",
        "_code",
        "_endpoint",
        "_endpoints",
        "_frames",
        "_inbound",
        "_keeper",
        "_phase",
        "_reading_paused",
        "_unsent",
        "_user_id",
        "heard",
        "transport",
    )

    def __init__(self, keeper: Doorkeeper, endpoints: Mapping[str, EndpointFactory]) -> None:
        self._keeper, self._endpoints = keeper, endpoints
        self._inbound = Inbound()
        self._endpoint: Endpoint | None = None
        frames_per_s = max(FRAMES_PER_S, 2 * keeper.settings.cmd_per_s)
        self._frames = TokenBucket(frames_per_s, keeper.clock.monotonic())
        self._phase = _Phase.OPEN
        self._reading_paused = False
        self._unsent = 0
        self._admitted: str | None = None  # the address for which the connection is counted
        self._user_id: str | None = None
        self._code: int = _LOST
        self._began_s = 0.0
        self.heard = False

    @property
    def deflate(self) -> bool:
        return self._inbound.deflate

    def take_over(self, transport: asyncio.Transport, request: UpgradeRequest, peer: str, date: bytes) -> None:
        """Answer the upgrade request of `peer`, and handle everything after it. `date` is a header line."""
        self.transport = transport
        transport.set_write_buffer_limits(high=self._keeper.settings.write_buffer_bytes)
        transport.set_protocol(self)
        shaken = shake_hands(request, compression=self._keeper.settings.compression)
        self._inbound.deflate = shaken.deflate
        try:
            endpoint = self._find_endpoint(request, shaken.status, peer)
        except Refused as refused:
            self._keeper.refused.labels(str(int(refused.status))).inc()
            transport.write(refusal(refused, shaken.offered, date))
            self._half_close()
            return
        self._endpoint = endpoint
        self._inbound.message_bytes_max = endpoint.frame_bytes_max
        self._began_s = self._keeper.clock.monotonic()
        transport.write(shaken.answer + date + b"\r\n")
        endpoint.opened()
        path = request.target.partition("?")[0]
        _log.debug("client_connected", user=endpoint.user_id, address=self._admitted, path=path)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        if self._over():
            return
        try:
            for received in self._inbound.receive(data):
                if self._frames.take(self._keeper.clock.monotonic()):
                    self.close(CloseCode.RATE)
                    return
                self._take(received)
                if self._over():
                    return
        except Violation as violation:
            self._goodbye(violation.code)
            self._half_close()

    def eof_received(self) -> None:
        self._phase = _Phase.OVER
        self._leave()
        self._keeper.closing.set(self, self._keeper.clock.monotonic())

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = _Phase.OVER
        self._leave()
        self._keeper.closing.clear(self)
        self._keeper.stuck.clear(self)
        if self._admitted is not None:
            self._keeper.admission.leave(self._admitted)
            seconds = round(self._keeper.clock.monotonic() - self._began_s, 3)
            _log.debug("client_left", user=self._user_id, address=self._admitted, code=int(self._code), seconds=seconds)

    def pause_writing(self) -> None:
        """Stop writing, and reading too: commands of the client could not be answered anyway."""
        self._watch_unsent()
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()
        if self._endpoint is not None:
            self._endpoint.socket_full()

    def resume_writing(self) -> None:
        self._keeper.stuck.clear(self)
        if self._reading_paused and not self.transport.is_closing():
            self._reading_paused = False
            self.transport.resume_reading()
        if self._endpoint is not None:
            self._endpoint.socket_free()

    def close(self, code: CloseCode) -> None:
        """Send a close frame and give the client `close_s` to answer. Idempotent."""
        if self._phase is _Phase.OPEN:
            self._goodbye(code)
            self._keeper.closing.set(self, self._keeper.clock.monotonic())

    def abort(self) -> None:
        """Drop the connection, whatever is buffered."""
        self.transport.abort()

    def _find_endpoint(self, request: UpgradeRequest, status: int, peer: str) -> Endpoint:
        """Return the endpoint for the request. Raises Refused."""
        if self._keeper.draining:
            raise self._not_now("shutting down")
        factory, parameter = _match(self._endpoints, request.target.partition("?")[0])
        if factory is None:
            raise Refused(HTTPStatus.NOT_FOUND, "no WebSocket here")
        if status != HTTPStatus.SWITCHING_PROTOCOLS:
            raise Refused(HTTPStatus(status), "not a valid WebSocket handshake")
        admission, settings = self._keeper.admission, self._keeper.settings
        # includes refused connections that are still open
        if admission.inside >= settings.connections_max + settings.http_connections_max:
            raise self._not_now("full")
        if not (hosts := request.values("host")):  # RFC 6455 §4.2.1
            raise Refused(HTTPStatus.BAD_REQUEST, "no Host")
        admission.check_host(hosts)
        admission.check_origin(request.values("origin"), hosts)
        address = admission.address_of(peer, request.values("x-forwarded-for"))
        asked = opening(request, address, parameter)
        admission.enter(address)
        self._admitted = address
        return factory(self, asked)

    def _not_now(self, why: str) -> Refused:
        return Refused(HTTPStatus.SERVICE_UNAVAILABLE, why, headers=retry_after(self._keeper.retry_after_s()))

    def _take(self, received: Received) -> None:
        if isinstance(received, Text):
            if self._endpoint is not None:
                self._endpoint.text(received.data)
        elif received.opcode == CLOSE:
            if self._phase is _Phase.OPEN:
                self._code = int.from_bytes(received.data[:2], "big") or _NO_STATUS
                self._write(CLOSE, received.data)
            self._half_close()
        elif received.opcode == PING and self._phase is _Phase.OPEN:
            self._write(PONG, received.data)
        elif received.opcode == BINARY and self._endpoint is not None:
            self._endpoint.binary(received.data)

    def _goodbye(self, code: CloseCode) -> None:
        """Send a close frame with the text of its code. The text of an exception is never sent."""
        if self._phase is _Phase.OPEN:
            self._phase, self._code = _Phase.CLOSING, code
            self._write(CLOSE, code.to_bytes(2, "big") + CLOSE_REASONS.get(code, "").encode())
            self._leave()

    def _write(self, opcode: int, payload: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(frame_header(opcode, len(payload)) + payload)

    def _over(self) -> bool:
        return self._phase is _Phase.OVER

    def _half_close(self) -> None:
        """End the server's side, but read until the client's side ends.

        Closing with unread input would destroy the close frame.
        """
        self._phase = _Phase.OVER
        self._leave()
        self._keeper.closing.set(self, self._keeper.clock.monotonic())
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _leave(self) -> None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            self._user_id = endpoint.user_id
            endpoint.lost()


def has_endpoint(endpoints: Mapping[str, EndpointFactory], path: str) -> bool:
    """Return whether there is a WebSocket at this path."""
    return _match(endpoints, path)[0] is not None


def _match(endpoints: Mapping[str, EndpointFactory], path: str) -> "tuple[EndpointFactory | None, str]":
    """Return the endpoint for a path, and the text in place of `{id}` in its pattern: one segment, not decoded."""
    if path in endpoints:
        return endpoints[path], ""
    for pattern, factory in endpoints.items():
        before, mark, behind = pattern.partition("{id}")
        parameter = path[len(before) : len(path) - len(behind)]
        if mark and path == before + parameter + behind and parameter and "/" not in parameter:
            return factory, parameter
    return None, ""
