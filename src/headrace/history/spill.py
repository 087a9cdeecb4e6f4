"""A file that keeps facts in their order while the database of the history is away.

The file is `HRSPILL1` and frames: length (u32), checksum (u32), number (u64), payload. The numbers count from 0. The
checksum is the CRC-32 of the other fields. The first frame that is cut short, damaged or out of order ends the file; a
process that ends while it writes leaves such a frame.
"""

import fcntl
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final
from zlib import crc32

import msgspec

from headrace.history import KEPT, Kept
from headrace.model.errors import TransientError
from headrace.model.events import EventBody
from headrace.model.facts import TokenCreated, Traded

MAGIC: Final = b"HRSPILL1"
_HEAD: Final = struct.Struct("<IIQ")
FRAME_MAX: Final = 64 * 1024 * 1024

_NO_BODY: Final = EventBody(b"", 0, 0, 0)
_encode: Final = msgspec.msgpack.Encoder().encode
_decoders: Final[tuple[Callable[[Any], Any], ...]] = tuple(msgspec.msgpack.Decoder(kind).decode for kind in KEPT)
_read_frame: Final = msgspec.msgpack.Decoder(list[tuple[int, msgspec.Raw]]).decode


class Spill:
    """File of facts that wait, first in, first out. All methods block; at most one call runs at a time.

    A process that starts finds the facts that an earlier process left. Facts of a frame that was read stay in the file
    until all frames are read, so that a crash may repeat facts, and loses none that `append` has written. Methods raise
    OSError if the disk fails, and `append` then leaves the file as it was before.
    """

    def __init__(self, path: Path, *, bytes_max: int) -> None:
        """Open the file. Raises TransientError while another process has the file."""
        self._bytes_max = bytes_max
        self._file: BinaryIO = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise TransientError(f"another process has the file {path.name}") from error
        self._read_at = self._end = len(MAGIC)
        self._next = 0
        """Number of the next frame that is appended."""
        self.frames = 0
        """Number of frames that are not read yet."""
        self._find_end()

    @property
    def is_full(self) -> bool:
        """Return whether the file has reached its limit."""
        return self._end >= self._bytes_max

    def append(self, facts: Sequence[Kept]) -> list[Kept]:
        """Append a frame of facts. Return those that can't be encoded, which are left out."""
        refused: list[Kept] = []
        payload = _encode(list(_encoded(facts, refused)))
        number = self._next.to_bytes(8, "little")
        head = _HEAD.pack(len(payload), crc32(payload, crc32(number + len(payload).to_bytes(4, "little"))), self._next)
        try:
            if self._end == len(MAGIC):
                os.ftruncate(self._file.fileno(), 0)
                self._write(MAGIC)
            self._write(head + payload)
        except OSError:
            os.ftruncate(self._file.fileno(), self._end if self._next else 0)
            raise
        self._end += len(head) + len(payload)
        self._next += 1
        self.frames += 1
        return refused

    def read(self) -> list[Kept]:
        """Return the facts of the oldest frame that is not read yet; `remove` must follow before the next call."""
        self._file.seek(self._read_at)
        length, _, _ = _HEAD.unpack(self._file.read(_HEAD.size))
        return [_decoders[kind](raw) for kind, raw in _read_frame(self._file.read(length))]

    def remove(self) -> None:
        """Count the oldest frame as read. Empties the file after the last one."""
        self._file.seek(self._read_at)
        length, _, _ = _HEAD.unpack(self._file.read(_HEAD.size))
        self._read_at += _HEAD.size + length
        self.frames -= 1
        if not self.frames:
            self.clear()

    def clear(self) -> None:
        """Delete all facts."""
        os.ftruncate(self._file.fileno(), 0)
        self._read_at = self._end = len(MAGIC)
        self._next = self.frames = 0

    def close(self) -> None:
        """Close the file, which keeps its facts."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]

    def _find_end(self) -> None:
        """Count the frames of an earlier process, and cut off what follows the last whole frame."""
        self._file.seek(0)
        if self._file.read(len(MAGIC)) == MAGIC:
            while (frame := self._file.read(_HEAD.size)) and len(frame) == _HEAD.size:
                length, checksum, number = _HEAD.unpack(frame)
                if number != self._next or length > FRAME_MAX:
                    break
                payload = self._file.read(length)
                expected = crc32(payload, crc32(number.to_bytes(8, "little") + length.to_bytes(4, "little")))
                if len(payload) != length or checksum != expected:
                    break
                self._end += _HEAD.size + length
                self._next += 1
        self.frames = self._next
        os.ftruncate(self._file.fileno(), self._end if self._next else 0)


def _encoded(facts: Sequence[Kept], refused: list[Kept]) -> Iterator[tuple[int, msgspec.Raw]]:
    """Yield the kind and the bytes of each fact, without what a history does not keep of its event."""
    for fact in facts:
        lean = fact
        if isinstance(fact, Traded | TokenCreated):
            event = msgspec.structs.replace(fact.seen.event, data={})
            lean = msgspec.structs.replace(fact, seen=msgspec.structs.replace(fact.seen, event=event, body=_NO_BODY))
        try:
            yield KEPT.index(type(fact)), msgspec.Raw(_encode(lean))
        except (OverflowError, ValueError, TypeError):  # an integer beyond u64, or half of a surrogate pair
            refused.append(fact)
