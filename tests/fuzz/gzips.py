"""Makes gzip bodies of any bytes: sound ones of every kind, and ones that are spoilt in a way that is known.

zlib is not instrumented, so a fuzzer that spells gzip by itself learns nothing from it: nearly all that it tries ends
at the first two bytes. Here the input says how the body is made, and `meaning` makes zlib's verdict a branch.
"""

import struct
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple

HEAD: Final = b"\x1f\x8b\x08"
PARTS_MAX: Final = 1_024


class Body(NamedTuple):
    """`content` is what it holds, None where that is not known; `broken` if it is no single whole gzip stream."""

    data: bytes
    content: bytes | None = None
    broken: bool = False


def make(data: bytes) -> Body:
    """Return the body that the input describes: a byte for the way, two for its number, the rest is the material."""
    way, number, material = data[:1], int.from_bytes(data[1:3]), data[3:]
    return WAYS[way[0] % len(WAYS) if way else 0](material, number)


def _raw(material: bytes, number: int) -> Body:
    return Body(material)


def _whole(material: bytes, number: int) -> Body:
    """Any level, memory and strategy: stored, fixed and dynamic blocks."""
    level, memory, strategy = number % 10, 1 + number // 10 % 9, number // 90 % 5
    packer = zlib.compressobj(level, zlib.DEFLATED, 31, memory, strategy)
    return Body(packer.compress(material) + packer.flush(), material)


def _many(material: bytes, number: int) -> Body:
    """The same again and again: small, and large inside."""
    return _whole(material[:64] * (number % PARTS_MAX), number)


def _flushed(material: bytes, number: int) -> Body:
    """Several blocks, some of them empty."""
    packer, size = zlib.compressobj(number % 10, zlib.DEFLATED, 31), 1 + number // 10 % 64
    parts = [material[at : at + size] for at in range(0, min(len(material), 32 * size), size)]
    flush = zlib.Z_FULL_FLUSH if number & 1 else zlib.Z_SYNC_FLUSH
    body = b"".join(packer.compress(part) + packer.flush(flush) for part in parts)
    return Body(body + packer.flush(), b"".join(parts))


def _fields(material: bytes, number: int) -> Body:
    """A head with the fields that it may have (RFC 1952 §2.3): extra, name, comment, checksum."""
    flags = number & 0b11111
    name = material[:16].replace(b"\0", b"")
    head = HEAD + bytes([flags]) + bytes(6)
    head += struct.pack("<H", len(name)) + name if flags & 4 else b""
    head += name + b"\0" if flags & 8 else b""
    head += name + b"\0" if flags & 16 else b""
    head += struct.pack("<H", zlib.crc32(head) & 0xFFFF) if flags & 2 else b""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return Body(head + packer.compress(material) + packer.flush() + _tail(material), material)


def _deflated(material: bytes, number: int) -> Body:
    """The material as deflate itself, head and tail around it right where it is sound."""
    inflater = zlib.decompressobj(-15)
    try:
        content = inflater.decompress(material, 1 << 20)
    except zlib.error:
        return Body(HEAD + bytes(7) + material + bytes(8), broken=True)
    if not inflater.eof:
        return Body(HEAD + bytes(7) + material, broken=True)
    used = material[: len(material) - len(inflater.unused_data)]
    return Body(HEAD + bytes(7) + used + _tail(content), content)


def _turned(material: bytes, number: int) -> Body:
    """One byte is another."""
    body = bytearray(_whole(material, 6).data)
    body[number % len(body)] ^= 1 + number % 255
    return Body(bytes(body))


def _cut(material: bytes, number: int) -> Body:
    body = _whole(material, 6).data
    return Body(body[: number % len(body)], broken=True)


def _followed(material: bytes, number: int) -> Body:
    """Something stands behind it: the material, or another stream."""
    body = _whole(material[number % 256 :], 6).data
    return Body(body + (body if number & 256 else material[:256] or b"\0"), broken=True)


def _tail(content: bytes) -> bytes:
    return struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFF_FFFF)


WAYS: Final[tuple[Callable[[bytes, int], Body], ...]] = (
    _raw, _whole, _many, _flushed, _fields, _deflated, _turned, _cut, _followed
)  # fmt: skip


def meaning(detail: str) -> int:
    """Return a number for zlib's verdict, each by a branch of its own."""
    match detail.rpartition(": ")[2]:
        case "incorrect header check":
            return 1
        case "unknown compression method":
            return 2
        case "unknown header flags set":
            return 3
        case "header crc mismatch":
            return 4
        case "invalid block type":
            return 5
        case "invalid stored block lengths":
            return 6
        case "too many length or distance symbols":
            return 7
        case "invalid code lengths set":
            return 8
        case "invalid bit length repeat":
            return 9
        case "invalid code -- missing end-of-block":
            return 10
        case "invalid literal/lengths set":
            return 11
        case "invalid distances set":
            return 12
        case "invalid literal/length code":
            return 13
        case "invalid distance code":
            return 14
        case "invalid distance too far back":
            return 15
        case "incorrect data check":
            return 16
        case "incorrect length check":
            return 17
        case _:
            return 0
