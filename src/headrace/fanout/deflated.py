"""Compressed frames (RFC 7692): each message for itself, once for all who want it so."""

import zlib
from collections.abc import Sequence
from typing import Final

from headrace.protocol.frames import frame_header, text_header

COMPRESSED_FROM: Final = 128
"""Payloads shorter than this go out as they are: compression would gain nothing."""

_TEXT: Final = 0x1
_LEVEL: Final = 1
_BLOCK_END_BYTES: Final = 4


class Deflater:
    """Compresses messages each for itself (RFC 7692 with `server_no_context_takeover`), with one state for them all.

    A full flush forgets everything before it, which costs less than a fresh compressor of 256 KiB a message.
    """

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)

    def __call__(self, payload: bytes) -> bytes:
        compressed = self._deflate.compress(payload) + self._deflate.flush(zlib.Z_FULL_FLUSH)
        return compressed[:-_BLOCK_END_BYTES]


_deflated: Final = Deflater()


def one_each_deflated(payloads: Sequence[bytes]) -> bytes:
    """A WebSocket text frame for each, compressed where that gains something."""
    return b"".join(map(_text, payloads))


def a_line_each_deflated(payloads: Sequence[bytes]) -> bytes:
    """One WebSocket text frame with a line for each (NDJSON), compressed where that gains something."""
    return _text(b"\n".join(payloads))


def _text(payload: bytes) -> bytes:
    if len(payload) < COMPRESSED_FROM:
        return text_header(len(payload)) + payload
    return compressed_frame(_TEXT, payload)


def compressed_frame(opcode: int, payload: bytes) -> bytes:
    """One compressed frame, however short."""
    compressed = _deflated(payload)
    return frame_header(opcode, len(compressed), compressed=True) + compressed
