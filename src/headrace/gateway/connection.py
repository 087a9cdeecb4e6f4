"""One WebSocket connection: `websockets`' sans-I/O core does the handshake, inbound frames and closing."""

import asyncio
import codecs
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol, TypeAlias, cast
from urllib.parse import parse_qs

from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN

from headrace.gateway.limits import Doorkeeper
from headrace.gateway.problems import PROBLEM_TYPE, Refused, problem
from headrace.gateway.rfc6455 import Core
from headrace.protocol.codes import CLOSE_REASONS, CloseCode
from headrace.protocol.session import TokenBucket

FRAMES_PER_S: Final = 1000
"""WebSocket frames of any kind from one client a second, and at once; more if it may command more."""

SLICE: Final = 4096
"""Inbound bytes parsed at a time, so that a flood of tiny frames is noticed before all of it was parsed."""


class Endpoint(Protocol):
    """What stands behind a path."""

    frame_bytes_max: int

    def opened(self) -> None:
        """The handshake is done; frames may be written."""

    def text(self, data: str) -> None: ...

    def binary(self, data: bytes) -> None: ...

    def socket_full(self) -> None:
        """The client takes no more for now."""

    def socket_free(self) -> None: ...

    def lost(self) -> None:
        """No more frames may be written. Called once."""


class Opening(NamedTuple):
    """What the client asked for with its handshake. `parameter` is what stood for `{id}` in the endpoint's path."""

    query: Mapping[str, list[str]]
    subprotocols: tuple[str, ...]
    parameter: str = ""


EndpointFactory: TypeAlias = "Callable[[Connection, Opening], Endpoint]"
"""Makes the endpoint for one connection; raises Refused to answer with an HTTP status instead."""


class Connection(asyncio.Protocol):
    """Takes over a socket with an upgrade request on it, and hands messages to the endpoint of its path.

    `write` is the transport's: frames go out without passing through the protocol core, which keeps the close state.
    `heard` is set by anything that comes in; who waits for an answer clears it.
    """

    def __init__(self, keeper: Doorkeeper, endpoints: Mapping[str, EndpointFactory]) -> None:
        self._keeper, self._endpoints = keeper, endpoints
        self._core = Core(keeper.settings.frame_bytes_max)
        self._endpoint: Endpoint | None = None
        frames_per_s = max(FRAMES_PER_S, 2 * keeper.settings.cmd_per_s)
        self._frames = TokenBucket(frames_per_s, keeper.clock.monotonic())
        self._opcode: Opcode = Opcode.TEXT
        self._parts: list[str] | list[bytes] = []
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._reading_paused = False
        self._unsent = 0  # bytes that waited when the socket was last looked at
        self.heard = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=self._keeper.settings.write_buffer_bytes)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        for start in range(0, len(data), SLICE):
            self._core.receive_data(data[start : start + SLICE])
            self._write_core()
            for event in self._core.events_received():
                if isinstance(event, Request):
                    self._shake_hands(event)
                elif isinstance(event, Frame):
                    self._take(event)
            self._write_core()

    def eof_received(self) -> None:
        self._core.receive_eof()
        self._leave()
        self._keeper.closing.set(self, self._keeper.clock.monotonic())

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._keeper.closing.clear(self)
        self._keeper.stuck.clear(self)

    def pause_writing(self) -> None:
        """It takes no more. Reading stops too: what it asks for could not be answered anyway."""
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

    def still_full(self) -> None:
        """Drop it, unless it took some of what waits: then it is slow, not gone."""
        if self.transport.get_write_buffer_size() < self._unsent:
            self._watch_unsent()
        else:
            self.abort()

    def close(self, code: CloseCode) -> None:
        """Say goodbye and give the client `close_s` to answer; idempotent."""
        if self._core.state is OPEN:
            self._core.send_close(code, CLOSE_REASONS.get(code, ""))
            self._write_core()
            self._leave()
            self._keeper.closing.set(self, self._keeper.clock.monotonic())

    def abort(self) -> None:
        """Drop the connection, whatever is buffered."""
        self.transport.abort()

    def _watch_unsent(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._keeper.stuck.set(self, self._keeper.clock.monotonic())

    def _shake_hands(self, request: Request) -> None:
        response = self._core.accept(request)
        try:
            endpoint = self._find_endpoint(request, response)
        except Refused as refused:
            self._keeper.refused.labels(str(int(refused.status))).inc()
            self._core.send_response(_refusal(refused, response.headers))
            return
        self._endpoint = endpoint
        self._core.max_message_size = endpoint.frame_bytes_max
        self._core.send_response(response)
        self._write_core()
        endpoint.opened()

    def _find_endpoint(self, request: Request, response: Response) -> Endpoint:
        path, _, query = request.path.partition("?")
        factory, parameter = _match(self._endpoints, path)
        if self._keeper.draining:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "shutting down")
        if factory is None:
            raise Refused(HTTPStatus.NOT_FOUND, "no WebSocket here")
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            raise Refused(response.status_code, "not a valid WebSocket handshake")
        return factory(self, _opening(request, query)._replace(parameter=parameter))

    def _take(self, frame: Frame) -> None:
        if self._core.state is not OPEN:
            return
        if self._frames.take(self._keeper.clock.monotonic()):
            self.close(CloseCode.RATE)
            return
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._opcode, self._parts = frame.opcode, []
        elif frame.opcode is not Opcode.CONT:
            return
        if self._opcode is Opcode.TEXT:
            self._take_text(frame)
        else:
            cast("list[bytes]", self._parts).append(bytes(frame.data))
            if frame.fin and self._endpoint is not None:
                parts, self._parts = cast("list[bytes]", self._parts), []
                self._endpoint.binary(b"".join(parts))

    def _take_text(self, frame: Frame) -> None:
        """UTF-8 is checked as it comes: a bad fragment ends the connection at once (RFC 6455 §8.1)."""
        parts = cast("list[str]", self._parts)
        try:
            parts.append(self._utf8.decode(bytes(frame.data), final=frame.fin))
        except UnicodeDecodeError:
            self._core.fail(CloseCode.INVALID_DATA)
            return
        if frame.fin and self._endpoint is not None:
            self._parts = []
            self._endpoint.text("".join(parts))

    def _write_core(self) -> None:
        """Write what the core has to say: handshake, pongs, close; an empty piece asks for the end of the stream."""
        pieces = self._core.data_to_send()
        if self.transport.is_closing():
            return
        if pieces and self._core.state is not OPEN:
            self._leave()
        for piece in pieces:
            if piece:
                self.transport.write(piece)
            else:
                self._half_close()

    def _half_close(self) -> None:
        """End our side and read on until theirs ends: closing with unread input would destroy our close frame."""
        self._leave()
        self._keeper.closing.set(self, self._keeper.clock.monotonic())
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _leave(self) -> None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            endpoint.lost()


def _match(endpoints: Mapping[str, EndpointFactory], path: str) -> "tuple[EndpointFactory | None, str]":
    """The endpoint for a path and what stands for the `{id}` of its pattern: one segment, taken as it is."""
    if path in endpoints:
        return endpoints[path], ""
    for pattern, factory in endpoints.items():
        before, mark, behind = pattern.partition("{id}")
        parameter = path[len(before) : len(path) - len(behind)]
        if mark and path == before + parameter + behind and parameter and "/" not in parameter:
            return factory, parameter
    return None, ""


def _opening(request: Request, query: str) -> Opening:
    try:
        fields = parse_qs(query, keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, "bad query") from error
    offered = [name.strip() for line in request.headers.get_all("Sec-WebSocket-Protocol") for name in line.split(",")]
    return Opening(fields, tuple(offered))


def _refusal(refused: Refused, offered: Headers) -> Response:
    body = problem(refused.status, refused.detail)
    headers = Headers([("Content-Type", PROBLEM_TYPE), ("Content-Length", str(len(body))), ("Connection", "close")])
    for name in ("Date", "Allow", "Upgrade"):
        if name in offered:
            headers[name] = offered[name]
    return Response(int(refused.status), HTTPStatus(refused.status).phrase, headers, body)
