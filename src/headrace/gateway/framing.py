"""WebSocket frames as bytes: joined so that one write does for many, compressed once for all who want it so."""

import zlib
from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

from headrace.gateway.rfc6455 import TEXT
from headrace.protocol.frames import frame_header, text_header

COMPRESSED_FROM: Final = 128
"""Payloads shorter than this go out as they are: compression would gain nothing."""

_LEVEL: Final = 1
_BLOCK_END_BYTES: Final = 4


class Framing(NamedTuple):
    """How a client gets its events. `batch`: a frame may hold several objects (NDJSON). `deflate`: compressed."""

    batch: bool
    deflate: bool


framing_of = cache(Framing)
"""The one Framing of these values, which all such clients share."""


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


def joined(payloads: Sequence[bytes], *, batch: bool, deflate: bool = False) -> bytes:
    """WebSocket frames: one a payload, or with `batch` one around them all with a payload a line."""
    if batch:
        payloads = (b"\n".join(payloads),)
    parts: list[bytes] = []
    for payload in payloads:
        if deflate and len(payload) >= COMPRESSED_FROM:
            compressed = _deflated(payload)
            parts += (frame_header(TEXT, len(compressed), compressed=True), compressed)
        else:
            parts += (text_header(len(payload)), payload)
    return b"".join(parts)


def compressed_frame(opcode: int, payload: bytes) -> bytes:
    """One compressed frame, however short."""
    compressed = _deflated(payload)
    return frame_header(opcode, len(compressed), compressed=True) + compressed
