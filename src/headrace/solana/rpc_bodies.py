"""Reads the body of an answer, and limits its compressed size, its inflated size, and its number of containers."""

import asyncio
import zlib
from typing import Final

import httpx

from headrace.model.errors import BadInputError

ACCEPT_ENCODING: Final = "gzip"
CONTAINERS_MAX: Final = 65_536
"""Maximum number of arrays and objects in one answer.

1,000 signatures with their errors have 6,000; a transaction has at most 2,000. Two megabytes can contain 700,000 empty
lists, whose decoding would block the event loop for 400 ms.
"""
CONTAINERS_EACH: Final = 2_048

TOO_LARGE: Final = "rpc_too_large"
_GZIP: Final = 16 + zlib.MAX_WBITS
_MALFORMED: Final = "rpc_bad_encoding"


async def read_body(response: httpx.Response, bytes_max: int) -> bytes:
    """Return the body, inflated from gzip. Reading stops at the first byte beyond `bytes_max`, compressed or inflated.

    Raises BadInputError `rpc_too_large`; `rpc_bad_encoding` for an encoding other than gzip, for several encodings (RFC
    9110 §8.4 allows a list), or for a body that is not a single gzip stream.
    """
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", ACCEPT_ENCODING):
        raise BadInputError(_MALFORMED, f"content coding {coding[:32]!r}, expected {ACCEPT_ENCODING} or none")
    declared = response.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > bytes_max:
        raise _too_large(bytes_max)
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
    if coding == "identity":
        return bytes(body)
    return await asyncio.to_thread(inflate, body, bytes_max)  # zlib releases the interpreter lock while it inflates


def inflate(body: bytes | bytearray, bytes_max: int) -> bytes:
    """Return the content of one gzip stream. Inflates at most `bytes_max` + 1 bytes.

    Raises the same errors as `read_body`.
    """
    inflater = zlib.decompressobj(_GZIP)
    try:
        content = inflater.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise BadInputError(_MALFORMED, str(error)) from None
    if len(content) > bytes_max:
        raise _too_large(bytes_max)
    if not inflater.eof or inflater.unused_data:
        raise BadInputError(_MALFORMED, "cut off, or followed by something else")
    return content


def check_containers(body: bytes, answers: int = 1) -> None:
    """Raise BadInputError `rpc_too_complex` for too many arrays and objects.

    The limit is CONTAINERS_MAX, or CONTAINERS_EACH for each of the `answers` if that is more. Brackets within strings
    are counted too; logs have few.
    """
    most = max(CONTAINERS_MAX, CONTAINERS_EACH * answers)
    if body.count(b"[") + body.count(b"{") > most:
        raise BadInputError("rpc_too_complex", f"more than {most} arrays and objects")


def _too_large(bytes_max: int) -> BadInputError:
    return BadInputError(TOO_LARGE, f"more than {bytes_max} bytes")
