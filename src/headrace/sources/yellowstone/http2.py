"""State machine of one gRPC call over HTTP/2: takes received bytes, yields messages and bytes to send. Pure.

Sources: RFC 9113 (frames, flow control), RFC 7541 (headers), gRPC over HTTP/2 (prefix, trailers, statuses).
A message is copied once, however many DATA frames it spans and however many messages share a frame. Flow control
bounds the bytes that wait here: the node gets new credit for a message only when the message is taken, so a slow reader
stops the node.
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError

from headrace.sources.yellowstone.compression import decompress
from headrace.sources.yellowstone.endings import WireEnd
from headrace.sources.yellowstone.requests import METHOD

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_MAX: Final = 16_384
"""Longest payload of a frame, in bytes: the smallest limit that HTTP/2 allows, so that a cut frame is small."""
HEADERS_MAX: Final = 64 * 1024
OUT_MAX: Final = 1024 * 1024
"""Maximum number of bytes of answers that wait to be sent. If more wait, the peer does not read, and the call ends."""
_WINDOW_DEFAULT: Final = 65_535
_WINDOW_MAX: Final = 2**31 - 1
_STREAM: Final = 1
_PREFIX: Final = 5

_DATA, _HEADERS, _PRIORITY, _RST, _SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW, _CONTINUATION = range(10)
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _INITIAL_WINDOW, _FRAME_SIZE, _HEADER_LIST = 1, 2, 4, 5, 6

STATUSES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_OF_HTTP: Final = {
    400: "INTERNAL", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "UNIMPLEMENTED",
    429: "UNAVAILABLE", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "UNAVAILABLE",
}  # fmt: skip
_OF_RESET: Final = {7: "UNAVAILABLE", 8: "CANCELLED", 11: "RESOURCE_EXHAUSTED", 12: "PERMISSION_DENIED"}


class Http2Call:
    """State of a connection with one call.

    Pass received bytes to `feed` and send the bytes from `take_out`. Read `messages`, then call `taken`. `window` is
    the credit in bytes, `message_max` the longest message in bytes. `end` is set when the call is over.
    """

    def __init__(self, headers: Sequence[tuple[str, str]], *, window: int, message_max: int) -> None:
        self.messages: list[bytes] = []
        self.waiting = 0
        """Length of `messages` in bytes, prefixes included."""
        self.end: WireEnd | None = None
        self.ready = False
        """Return whether the peer has sent its settings."""
        self._message_max = message_max
        self._window = max(window, _WINDOW_DEFAULT)
        self._received = self._credited = 0
        self._rest = b""
        self._parts: list[bytes] = []
        self._missing = 0
        """Bytes that the message in `_parts` still lacks; at 0 the next bytes are a prefix."""
        self._prefix = b""
        self._compressed = False
        self._encoding = "identity"
        self._block: list[bytes] | None = None
        self._block_ends_stream = False
        self._answered = False
        self._decoder = Decoder(max_header_list_size=HEADERS_MAX)
        self._send_window = self._stream_window = self._peer_initial = _WINDOW_DEFAULT
        self._unsent = bytearray()
        self._out = bytearray(PREFACE)
        settings = ((_ENABLE_PUSH, 0), (_INITIAL_WINDOW, self._window), (_FRAME_SIZE, FRAME_MAX))
        limits = ((_HEADER_LIST, HEADERS_MAX),)
        payload = b"".join(key.to_bytes(2) + value.to_bytes(4) for key, value in (*settings, *limits))
        self._out += _frame(_SETTINGS, 0, 0, payload)
        if self._window > _WINDOW_DEFAULT:
            self._out += _frame(_WINDOW, 0, 0, (self._window - _WINDOW_DEFAULT).to_bytes(4))
        self._out += _frame(_HEADERS, _END_HEADERS, _STREAM, Encoder().encode(headers))

    def is_over(self) -> bool:
        """Return whether the call has ended."""
        return self.end is not None

    # Sending.

    def send(self, message: bytes) -> None:
        """Send a message as far as the peer's credit allows. The remainder follows when the peer gives more credit."""
        self._unsent += b"\0" + len(message).to_bytes(4) + message
        self._send_unsent()

    def ping(self) -> None:
        """Send a ping."""
        self._out += _frame(_PING, 0, 0, bytes(8))

    def taken(self, size: int) -> None:
        """Note that messages of `size` bytes, prefixes included, were taken; the node gets credit for them."""
        self.waiting -= size
        self._credit()

    def take_out(self) -> bytes:
        """Return the bytes to send now, and forget them."""
        out = bytes(self._out)
        self._out.clear()
        return out

    def _send_unsent(self) -> None:
        while self._unsent and (size := min(len(self._unsent), self._send_window, self._stream_window, FRAME_MAX)) > 0:
            self._out += _frame(_DATA, 0, _STREAM, bytes(self._unsent[:size]))
            del self._unsent[:size]
            self._send_window -= size
            self._stream_window -= size

    def _credit(self) -> None:
        """Give credit for the received bytes that no longer wait, once they amount to half a window."""
        owed = self._received - self._credited - self.waiting
        if owed >= self._window // 2:
            self._credited += owed
            update = owed.to_bytes(4)
            self._out += _frame(_WINDOW, 0, 0, update) + _frame(_WINDOW, 0, _STREAM, update)

    # Receiving.

    def feed(self, data: bytes) -> None:
        """Process bytes from the peer. Bytes after the call's end are ignored."""
        if self.is_over():
            return
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        while size - at >= 9:
            length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            kind, begin, finish = data[at + 3], at + 9, at + 9 + length
            if length > FRAME_MAX:
                self._fail(f"a frame of {length} bytes")
                return
            if finish > size:
                break
            flags = data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + 9]) & _WINDOW_MAX
            if kind == _DATA and self._is_one_message(data, begin, length, flags, stream):
                self.messages.append(data[begin + _PREFIX : finish])
                self.waiting += length
                self._received += length
            elif kind == _DATA:
                self._data(data, begin, finish, flags, stream)
            else:
                self._other(kind, flags, stream, data[begin:finish])
            if self.is_over():
                return
            at = finish
        self._rest = data[at:]
        if self._received - self._credited > self._window:
            self._fail("more DATA than there was credit for")
            return
        self._credit()
        if len(self._out) > OUT_MAX:
            self._fail("more to answer than is read")

    def eof(self, reason: str = "the connection was closed") -> None:
        """Note that the connection is closed, for this reason."""
        if self.end is None:
            self.end = WireEnd("UNAVAILABLE", reason)

    def _is_one_message(self, data: bytes, begin: int, length: int, flags: int, stream: int) -> bool:
        """Return whether the frame holds exactly one uncompressed message, which is by far the usual case."""
        return (
            not flags
            and stream == _STREAM
            and not self._missing
            and not self._prefix
            and self._answered
            and self._block is None
            and _PREFIX <= length <= self._message_max
            and not data[begin]
            and int.from_bytes(data[begin + 1 : begin + _PREFIX]) == length - _PREFIX
        )

    def _data(self, data: bytes, at: int, finish: int, flags: int, stream: int) -> None:
        if stream != _STREAM or not self._answered or self._block is not None:
            self._fail("DATA without a call")
            return
        self._received += finish - at
        if self._received - self._credited > self._window:
            self._fail("more DATA than there was credit for")
            return
        if flags & _PADDED:
            padding = data[at] if finish > at else 256
            at, finish = at + 1, finish - padding
            if at > finish:
                self._fail("more padding than payload")
                return
        self._assemble(data, at, finish)
        if flags & _END_STREAM and self.end is None:
            self.end = WireEnd("UNKNOWN", "the stream ended without a status")

    def _assemble(self, data: bytes, at: int, finish: int) -> None:
        """Split bytes into messages. A message is joined once, when its last byte has arrived."""
        while at < finish:
            if self._missing:
                part = data[at : min(finish, at + self._missing)]
                self._parts.append(part)
                self._missing -= len(part)
                at += len(part)
                if not self._missing:
                    whole = b"".join(self._parts)
                    self._parts = []
                    self._complete(whole)
                continue
            if self._prefix or finish - at < _PREFIX:
                lacking = _PREFIX - len(self._prefix)
                self._prefix += data[at : min(finish, at + lacking)]
                at += lacking
                if len(self._prefix) < _PREFIX:
                    return
                flag, size = self._prefix[0], int.from_bytes(self._prefix[1:])
                self._prefix = b""
            else:
                flag = data[at]
                size = data[at + 1] << 24 | data[at + 2] << 16 | data[at + 3] << 8 | data[at + 4]
                at += _PREFIX
            if flag > 1:
                self._fail(f"a compression flag of {flag}")
                return
            if size > self._message_max:
                detail = f"a message of {size} bytes is larger than max ({self._message_max})"
                self.end = WireEnd("RESOURCE_EXHAUSTED", detail)
                return
            self._compressed = flag == 1
            if finish - at >= size:
                self._complete(data[at : at + size])
                at += size
            else:
                self._missing = size
            if self.end is not None:
                return

    def _complete(self, message: bytes) -> None:
        size = len(message)
        if self._compressed:
            try:
                message = decompress(message, self._encoding, self._message_max)
            except WireEnd as end:
                self.end = end
                return
        self.messages.append(message)
        self.waiting += size + _PREFIX

    # Other frames.

    def _other(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if (self._block is not None) != (kind == _CONTINUATION):
            self._fail("header blocks in parts that do not follow each other")
        elif kind == _HEADERS:
            self._headers(flags, stream, payload)
        elif kind == _CONTINUATION:
            self._continue(flags, stream, payload)
        elif kind == _SETTINGS:
            self._settings(flags, payload)
        elif kind == _WINDOW:
            self._window_update(stream, payload)
        elif kind == _PING:
            if len(payload) != 8:
                self._fail("a ping that is not of 8 bytes")
            elif not flags & _ACK:
                self._out += _frame(_PING, _ACK, 0, payload)
        elif kind == _RST:
            if stream == _STREAM:
                code = int.from_bytes(payload[:4])
                self.end = WireEnd(_OF_RESET.get(code, "INTERNAL"), f"the stream was reset with {code}")
        elif kind == _GOAWAY:
            if int.from_bytes(payload[:4]) & _WINDOW_MAX < _STREAM:
                code = int.from_bytes(payload[4:8])
                self.end = WireEnd(_OF_RESET.get(code, "UNAVAILABLE"), f"the node goes away with {code}")
        elif kind == _PUSH:
            self._fail("a push that was not allowed")

    def _headers(self, flags: int, stream: int, payload: bytes) -> None:
        padding = payload[0] if flags & _PADDED and payload else 0
        begin = (1 if flags & _PADDED else 0) + (5 if flags & _WITH_PRIORITY else 0)
        if stream != _STREAM or begin + padding > len(payload):
            self._fail("headers of no call")
            return
        self._block, self._block_ends_stream = [payload[begin : len(payload) - padding]], bool(flags & _END_STREAM)
        if flags & _END_HEADERS:
            self._whole_block()

    def _continue(self, flags: int, stream: int, payload: bytes) -> None:
        block = self._block
        if block is None or stream != _STREAM or (not payload and not flags & _END_HEADERS):
            self._fail("a part of no headers")
            return
        block.append(payload)
        if sum(map(len, block)) > HEADERS_MAX:
            self._fail(f"headers of more than {HEADERS_MAX} bytes")
        elif flags & _END_HEADERS:
            self._whole_block()

    def _whole_block(self) -> None:
        block, self._block = b"".join(self._block or ()), None
        try:
            headers = {str(name): str(value) for name, value in self._decoder.decode(block)}
        except (HPACKError, UnicodeDecodeError) as error:
            self._fail(f"headers that can't be read: {type(error).__name__}")
            return
        if "grpc-status" in headers:
            self.end = _status_end(headers)
        elif self._answered:
            self._fail("trailers without a status")
        else:
            self._answer(headers)
        if self._block_ends_stream and self.end is None:
            self.end = WireEnd("UNKNOWN", "the stream ended without a status")

    def _answer(self, headers: dict[str, str]) -> None:
        """Check the response headers, which precede the first message."""
        status, kind = headers.get(":status", ""), headers.get("content-type", "")
        if status.startswith("1") and len(status) == 3:
            return
        if status != "200":
            code = int(status) if status.isdecimal() and len(status) == 3 else 0
            self.end = WireEnd(_OF_HTTP.get(code, "UNKNOWN"), f"HTTP {status[:8]}")
        elif not kind.startswith("application/grpc"):
            self.end = WireEnd("UNKNOWN", f"content-type {kind[:40]}, expected application/grpc")
        else:
            self._answered, self._encoding = True, headers.get("grpc-encoding", "identity")

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & _ACK:
            return
        if len(payload) % 6:
            self._fail("settings that are not of 6 bytes each")
            return
        for at in range(0, len(payload), 6):
            key, value = int.from_bytes(payload[at : at + 2]), int.from_bytes(payload[at + 2 : at + 6])
            if key == _INITIAL_WINDOW:
                if value > _WINDOW_MAX:
                    self._fail("a window of more than 2^31 - 1")
                    return
                self._stream_window += value - self._peer_initial
                self._peer_initial = value
        self.ready = True
        self._out += _frame(_SETTINGS, _ACK, 0, b"")
        self._send_unsent()

    def _window_update(self, stream: int, payload: bytes) -> None:
        more = int.from_bytes(payload) & _WINDOW_MAX
        if len(payload) != 4 or not more:
            self._fail("a window update of nothing")
            return
        if stream == 0:
            self._send_window += more
        elif stream == _STREAM:
            self._stream_window += more
        if max(self._send_window, self._stream_window) > _WINDOW_MAX:
            self._fail("a window of more than 2^31 - 1")
            return
        self._send_unsent()

    def _fail(self, detail: str) -> None:
        self.end = WireEnd("INTERNAL", f"not HTTP/2 as agreed: {detail}")


def request_headers(host: str, *, secure: bool, x_token: str, encodings: str, user_agent: str) -> list[tuple[str, str]]:
    """Return the request headers of a call, as (name, value)."""
    headers = [
        (":method", "POST"),
        (":scheme", "https" if secure else "http"),
        (":path", METHOD),
        (":authority", host),
        ("te", "trailers"),
        ("content-type", "application/grpc+proto"),
        ("user-agent", user_agent),
        ("grpc-accept-encoding", encodings),
    ]
    return [*headers, ("x-token", x_token)] if x_token else headers


def _status_end(headers: dict[str, str]) -> WireEnd:
    status = headers["grpc-status"]
    code = int(status) if status.isdecimal() and len(status) <= 2 else 2
    name = STATUSES[code] if code < len(STATUSES) else "UNKNOWN"
    return WireEnd(name, unquote(headers.get("grpc-message", ""), errors="replace")[:1_000])


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload
