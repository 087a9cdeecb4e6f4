"""How the JSON texts of frames become bytes on a socket; clients of the same way share them."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from headrace.protocol.frames import text_header
from headrace.protocol.sse import server_sent

Framing: TypeAlias = Callable[[Sequence[bytes]], bytes]
"""Takes whole JSON texts, at least one, in order."""


def one_each(payloads: Sequence[bytes]) -> bytes:
    """A WebSocket text frame for each."""
    parts: list[bytes] = []
    for payload in payloads:
        parts.append(text_header(len(payload)))
        parts.append(payload)
    return b"".join(parts)


def a_line_each(payloads: Sequence[bytes]) -> bytes:
    """One WebSocket text frame with a line for each (NDJSON)."""
    payload = b"\n".join(payloads)
    return text_header(len(payload)) + payload


def events(payloads: Sequence[bytes]) -> bytes:
    """One HTTP chunk with a server-sent event for each."""
    return chunk(b"".join(map(server_sent, payloads)))


def chunk(body: bytes) -> bytes:
    """A piece of a body of unknown length (RFC 9112 §7.1); the empty one is its end."""
    return b"%x\r\n%b\r\n" % (len(body), body)
