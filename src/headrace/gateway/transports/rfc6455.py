"""Parses what a client may send by RFC 6455 and RFC 7692: bytes go in, whole messages come out. Pure.

`websockets` could parse frames too, but its state for each connection would be a third of an idle client's memory.
"""

import codecs
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from websockets.exceptions import ProtocolError
from websockets.frames import Close
from websockets.utils import apply_mask

from headrace.protocol.codes import CloseCode

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FIN: Final = 0x80
_RSV: Final = 0x70
_RSV1: Final = 0x40
_MASK: Final = 0x80
_OPCODES: Final = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_CONTROL_BYTES_MAX: Final = 125

_BLOCK_END: Final = b"\x00\x00\xff\xff"
"""Bytes that a sender removes from the end of a compressed message (RFC 7692 §7.2.1)."""

_AFTER_FINAL: Final = frozenset({b"", _BLOCK_END, b"\x00" + _BLOCK_END})
"""Bytes that may be left over if a sender marked its last block as final (RFC 7692 §7.2.3.5)."""


class Violation(Exception):  # noqa: N818  (the client's fault)
    """The client violated the protocol, so the connection is closed with `code`."""

    def __init__(self, code: CloseCode) -> None:
        self.code = code
        super().__init__(code)


class Text(NamedTuple):
    """A whole text message."""

    data: str


class Data(NamedTuple):
    """A whole BINARY message, or a control frame. The opcode CONTINUATION marks a piece of an incomplete message."""

    opcode: int
    data: bytes


Received: TypeAlias = Text | Data

_PIECE: Final = Data(CONTINUATION, b"")


class _Frame(NamedTuple):
    first: int
    payload: bytes
    end: int


class _Fragments:
    """The received part of a fragmented message. Uncompressed UTF-8 is checked as it arrives (RFC 6455 §8.1).

    Pieces are joined at once. Kept separately, small pieces would take many times their size.
    """

    __slots__ = ("_utf8", "compressed", "data", "opcode")

    def __init__(self, opcode: int, *, compressed: bool) -> None:
        self.opcode, self.compressed = opcode, compressed
        self.data = bytearray()
        self._utf8 = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT and not compressed else None

    def add(self, payload: bytes, *, last: bool) -> None:
        self.data += payload
        if self._utf8 is not None:
            try:
                self._utf8.decode(payload, final=last)
            except UnicodeDecodeError as error:
                raise Violation(CloseCode.INVALID_DATA) from error


class Inbound:
    """Parses one client's frames. With `deflate`, messages may be compressed, each on its own."""

    __slots__ = ("_fragments", "_rest", "deflate", "message_bytes_max")

    def __init__(self) -> None:
        self.message_bytes_max = 0
        self.deflate = False
        self._fragments: _Fragments | None = None
        self._rest: bytearray | None = None

    def receive(self, data: bytes) -> Iterator[Received]:
        """Yield one item for each frame that `data` completes. After a Violation nothing more may be parsed."""
        rest = self._rest
        if rest is not None:
            rest += data
        source = data if rest is None else rest
        at = 0
        while (frame := self._frame(source, at)) is not None:
            at = frame.end
            yield self._take(frame.first, frame.payload)
        if rest is None:
            self._rest = bytearray(data[at:]) if at < len(data) else None
        elif at:
            del rest[:at]
            self._rest = rest or None

    def _frame(self, data: bytes | bytearray, at: int) -> _Frame | None:
        """Return the frame at `at`; None if bytes are missing. The header is checked as soon as it has arrived."""
        have = len(data) - at
        if have < 2:
            return None
        first, second = data[at], data[at + 1]
        self._check(first, second)
        size, head = second & 0x7F, 2
        if size >= 126:
            head = 4 if size == 126 else 10
            if have < head:
                return None
            size = _long_size(data[at + 2 : at + head])
        self._check_size(first, size)
        if have < head + 4 + size:
            return None
        start = at + head + 4
        mask, payload = data[at + head : start], data[start : start + size]
        return _Frame(first, apply_mask(payload, mask) if size else b"", start + size)

    def _check(self, first: int, second: int) -> None:
        opcode, reserved = first & 0x0F, first & _RSV
        compressed = reserved == _RSV1 and self.deflate and opcode in (TEXT, BINARY)
        good = opcode in _OPCODES and (not reserved or compressed) and second & _MASK
        if opcode >= CLOSE:
            good = good and first & _FIN and second & 0x7F <= _CONTROL_BYTES_MAX
        else:
            good = good and (opcode == CONTINUATION) == (self._fragments is not None)
        if not good:
            raise Violation(CloseCode.PROTOCOL_ERROR)

    def _check_size(self, first: int, size: int) -> None:
        before = len(self._fragments.data) if self._fragments is not None else 0
        if first & 0x0F < CLOSE and before + size > self.message_bytes_max:
            raise Violation(CloseCode.TOO_BIG)

    def _take(self, first: int, payload: bytes) -> Received:
        opcode, last = first & 0x0F, bool(first & _FIN)
        if opcode >= CLOSE:
            if opcode == CLOSE:
                _check_close(payload)
            return Data(opcode, payload)
        fragments = self._fragments
        if fragments is None:
            compressed = bool(first & _RSV1)
            if last:
                return self._message(opcode, payload, compressed=compressed)
            fragments = self._fragments = _Fragments(opcode, compressed=compressed)
        fragments.add(payload, last=last)
        if not last:
            return _PIECE
        self._fragments = None
        return self._message(fragments.opcode, bytes(fragments.data), compressed=fragments.compressed)

    def _message(self, opcode: int, data: bytes, *, compressed: bool) -> Received:
        if compressed:
            data = inflate(data, self.message_bytes_max)
        if opcode == BINARY:
            return Data(opcode, data)
        try:
            return Text(str(data, "utf-8"))
        except UnicodeDecodeError as error:
            raise Violation(CloseCode.INVALID_DATA) from error


def inflate(data: bytes, bytes_max: int) -> bytes:
    """Return the text of a message that was compressed on its own. Raises Violation before it exceeds `bytes_max`."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        message = inflater.decompress(data + _BLOCK_END, bytes_max + 1)
    except zlib.error as error:
        raise Violation(CloseCode.INVALID_DATA) from error
    if len(message) > bytes_max:
        raise Violation(CloseCode.TOO_BIG)
    if inflater.eof and inflater.unused_data not in _AFTER_FINAL:
        raise Violation(CloseCode.INVALID_DATA)
    return message


def _long_size(digits: bytes | bytearray) -> int:
    """Parse a length. “The minimal number of bytes MUST be used to encode the length” (RFC 6455 §5.2)."""
    size = int.from_bytes(digits, "big")
    if size < (126 if len(digits) == 2 else 65536) or size >> 63:
        raise Violation(CloseCode.PROTOCOL_ERROR)
    return size


def _check_close(payload: bytes) -> None:
    try:
        Close.parse(payload)
    except ProtocolError as error:
        raise Violation(CloseCode.PROTOCOL_ERROR) from error
    except UnicodeDecodeError as error:
        raise Violation(CloseCode.INVALID_DATA) from error
