"""Turns the JSON texts of frames into bytes for a socket, once for all clients with the same framing."""

import zlib
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from headrace.protocol.frames import frame_header, text_header
from headrace.protocol.sse import server_sent

Framing: TypeAlias = Callable[[Sequence[bytes]], bytes]
"""Takes at least one whole JSON text, in order, and returns the bytes to write."""

COMPRESSED_FROM: Final = 128
"""Minimum size in bytes of a payload that is compressed. Compressing shorter payloads would save nothing."""

_TEXT: Final = 0x1
_LEVEL: Final = 1
_BLOCK_END_BYTES: Final = 4


def one_each(payloads: Sequence[bytes]) -> bytes:
    """Return one WebSocket text frame for each payload."""
    parts: list[bytes] = []
    for payload in payloads:
        parts.append(text_header(len(payload)))
        parts.append(payload)
    return b"".join(parts)


def a_line_each(payloads: Sequence[bytes]) -> bytes:
    """Return one WebSocket text frame with one line for each payload (NDJSON)."""
    payload = b"\n".join(payloads)
    return text_header(len(payload)) + payload


def one_each_deflated(payloads: Sequence[bytes]) -> bytes:
    """Return one WebSocket text frame for each payload, compressed if that saves bytes."""
    return b"".join(map(_text, payloads))


def a_line_each_deflated(payloads: Sequence[bytes]) -> bytes:
    """Return one WebSocket text frame with one line for each payload, compressed if that saves bytes."""
    return _text(b"\n".join(payloads))


def events(payloads: Sequence[bytes]) -> bytes:
    """Return one HTTP chunk with one server-sent event for each payload."""
    return chunk(b"".join(map(server_sent, payloads)))


def chunk(body: bytes) -> bytes:
    """Return `body` as a chunk of a body of unknown length (RFC 9112 §7.1). The empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def compressed_frame(opcode: int, payload: bytes) -> bytes:
    """Return one compressed WebSocket frame, however short the payload is."""
    compressed = _deflated(payload)
    return frame_header(opcode, len(compressed), compressed=True) + compressed


class Deflater:
    """Compresses each message on its own (RFC 7692, `server_no_context_takeover`), with one state for all messages.

    A full flush makes the compressor forget earlier messages. It costs less than a new compressor of 256 KiB for each
    message.
    """

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)

    def __call__(self, payload: bytes) -> bytes:
        compressed = self._deflate.compress(payload) + self._deflate.flush(zlib.Z_FULL_FLUSH)
        return compressed[:-_BLOCK_END_BYTES]


_deflated: Final = Deflater()


def _text(payload: bytes) -> bytes:
    if len(payload) < COMPRESSED_FROM:
        return text_header(len(payload)) + payload
    return compressed_frame(_TEXT, payload)
