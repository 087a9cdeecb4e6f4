"""The recording file: bytes to updates and back, safe against crashes, damage and hostile sizes.

```text
file    = "HREC" u16 version  u32 size  u32 crc32  header     header: msgpack of RecordingHeader
          block*  end
block   = u32 size  u32 raw_size  u32 count  u32 crc32(payload)  u32 crc32(these four)  payload
end     = a block of size, raw_size and count 0
payload = zstd frame of a msgpack array (array 32) of `count` updates
```

Integers are little-endian. A file without `end` was cut off (a crash, or it is still being written); its whole blocks
are good. A block with a damaged payload is skipped. After a block with a damaged head nothing can be found.
"""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple
from zlib import crc32

import msgspec
import zstandard

from headrace.model.errors import BadInputError
from headrace.model.updates import AnyUpdate

VERSION: Final = 1
BLOCK_RAW_MAX: Final = 64 * 1024 * 1024
HEADER_MAX: Final = 64 * 1024
UPDATE_MAX: Final = 2 * 1024 * 1024
"""Maximum number of bytes of an update other than an account's. A transaction has some hundred thousand at most."""
VALUES_MAX: Final = 4 * 1024 * 1024
"""Maximum number of bytes of all updates of a block that are not accounts'.

A byte may represent a list, which takes 64 bytes in memory. An account has few values, however long its data.
"""
UPDATE_BYTES_MIN: Final = 32
"""Minimum number of bytes of an update. The names of its fields alone are longer."""

_MAGIC: Final = b"HREC"
_START: Final = struct.Struct("<4sHII")
_BLOCK: Final = struct.Struct("<IIIII")
_COUNTS: Final = struct.Struct("<IIII")
_ARRAY32: Final = struct.Struct(">BI")

_UNREADABLE: Final = (zstandard.ZstdError, msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_encoder: Final = msgspec.msgpack.Encoder()
_updates_decoder: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_update_decoder: Final = msgspec.msgpack.Decoder(AnyUpdate)
_ACCOUNT: Final = b"\xa4type\xa7account"
"""First bytes of the map of an AccountUpdate, after the byte with the number of fields."""


class RecordingHeader(msgspec.Struct, frozen=True, kw_only=True):
    """Header of a recording. `id` names the recording permanently; a replay takes its epochs from it."""

    id: str
    started_ns: int
    sources: tuple[str, ...] = ()
    about: str = ""


_header_decoder: Final = msgspec.msgpack.Decoder(RecordingHeader)


class Block(NamedTuple):
    """A block of updates. `offset` is its position in the file.

    A damaged block has no updates, and its `fault` says why.
    """

    offset: int
    updates: Sequence[AnyUpdate]
    fault: str = ""


class Tail(NamedTuple):
    """How a file ends. `good` is the offset after the last whole block; `fault` is empty if the file is complete."""

    good: int
    fault: str = ""


def encode_update(update: AnyUpdate) -> bytes:
    """Encode one update as msgpack.

    Raises BadInputError for an integer beyond 64 bits, which no chain value has, and for an update of more than
    UPDATE_MAX bytes, which no block may contain.
    """
    try:
        encoded = _encoder.encode(update)
    except OverflowError as error:
        raise BadInputError("not_recordable", str(error)) from error
    if len(encoded) > UPDATE_MAX and not _is_account(encoded):
        raise BadInputError("not_recordable", f"{len(encoded)} bytes, at most {UPDATE_MAX} are expected")
    return encoded


def encode_header(header: RecordingHeader) -> bytes:
    """Return the beginning of a file."""
    body = _encoder.encode(header)
    return _START.pack(_MAGIC, VERSION, len(body), crc32(body)) + body


def encode_block(updates: Sequence[bytes], *, level: int = 3) -> bytes:
    """Return a block of encoded updates. Without updates it is the end of the file."""
    raw = _ARRAY32.pack(0xDD, len(updates)) + b"".join(updates) if updates else b""
    payload = zstandard.compress(raw, level) if raw else b""
    counts = _COUNTS.pack(len(payload), len(raw), len(updates), crc32(payload))
    return counts + struct.pack("<I", crc32(counts)) + payload


def read_header(file: BinaryIO) -> RecordingHeader:
    """Read the header. Raises BadInputError for anything but a recording of a known version."""
    start = file.read(_START.size)
    if len(start) < _START.size or not start.startswith(_MAGIC):
        raise BadInputError("recording_foreign", "not a Headrace recording (it must begin with HREC)")
    _, version, size, checksum = _START.unpack(start)
    if version != VERSION:
        raise BadInputError("recording_version", f"written as version {version}, this Headrace reads {VERSION}")
    if size > HEADER_MAX:
        raise BadInputError("recording_header", f"declares a header of {size} bytes, at most {HEADER_MAX} are expected")
    body = file.read(size)
    if len(body) < size or crc32(body) != checksum:
        raise BadInputError("recording_header", f"header of {size} bytes at offset {_START.size} is damaged")
    try:
        return _header_decoder.decode(body)
    except _UNREADABLE as error:
        raise BadInputError("recording_header", str(error)) from error


def header_of(path: Path) -> RecordingHeader:
    """Return the header of the recording at `path`.

    Raises BadInputError if it is not a recording, and OSError if it can't be read.
    """
    with path.open("rb") as file:
        return read_header(file)


def read_blocks(file: BinaryIO) -> Iterator[Block | Tail]:
    """Read the blocks after the header. Yield each in order, damaged blocks as faults, and last the Tail.

    Only one block is in memory at a time.
    """
    for packed in _packed_blocks(file):
        yield packed if isinstance(packed, Tail) else _decode_block(packed)


def tail_of(file: BinaryIO) -> Tail:
    """Return how the file ends. Reads on from after the header, without decompressing."""
    return next(packed for packed in _packed_blocks(file) if isinstance(packed, Tail))


class _Packed(NamedTuple):
    offset: int
    payload: bytes
    raw_size: int
    updates: int
    checksum: int


def _packed_blocks(file: BinaryIO) -> Iterator[_Packed | Tail]:
    while True:
        offset = file.tell()
        head = file.read(_BLOCK.size)
        if len(head) < _BLOCK.size:
            yield Tail(
                offset, f"cut off at offset {offset}: " + ("no end mark" if not head else "part of a block head")
            )
            return
        size, raw_size, count, checksum, head_checksum = _BLOCK.unpack(head)
        if crc32(head[: _COUNTS.size]) != head_checksum:
            yield Tail(offset, f"block head at offset {offset} is damaged, nothing after it can be found")
            return
        if not size:
            yield Tail(offset)
            return
        if max(size, raw_size) > BLOCK_RAW_MAX:
            yield Tail(offset, f"block at offset {offset} declares {max(size, raw_size)} bytes, over {BLOCK_RAW_MAX}")
            return
        payload = file.read(size)
        if len(payload) < size:
            yield Tail(offset, f"cut off at offset {offset}: {len(payload)} of a block's {size} bytes")
            return
        yield _Packed(offset, payload, raw_size, count, checksum)


def _decode_block(packed: _Packed) -> Block:
    offset, payload, raw_size, count, checksum = packed
    if crc32(payload) != checksum:
        return Block(offset, (), f"block at offset {offset}: wrong checksum, {count} updates lost")
    try:
        # checked first, because decompress allocates the declared size
        if zstandard.frame_content_size(payload) != raw_size:
            return Block(offset, (), f"block at offset {offset}: zstd size is not the declared {raw_size} bytes")
        raw = zstandard.decompress(payload, raw_size)
        if count > raw_size // UPDATE_BYTES_MIN or not raw.startswith(_ARRAY32.pack(0xDD, count)):
            return Block(offset, (), f"block at offset {offset}: {raw_size} bytes do not hold {count} updates")
        packed_updates = _updates_decoder.decode(raw)
        values = sum(memoryview(each).nbytes for each in packed_updates if not _is_account(each))
        if values > VALUES_MAX:
            return Block(offset, (), f"block at offset {offset}: {values} bytes of values, over {VALUES_MAX}")
        updates = [_update_decoder.decode(each) for each in packed_updates]
    except _UNREADABLE as error:
        return Block(offset, (), f"block at offset {offset}: {error}")
    return Block(offset, updates)


def _is_account(encoded: bytes | msgspec.Raw) -> bool:
    """Return whether an update's msgpack is read as an AccountUpdate. If it has several `type`, the first decides."""
    return bytes(memoryview(encoded)[1 : 1 + len(_ACCOUNT)]) == _ACCOUNT
