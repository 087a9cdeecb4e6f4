"""Parses the wire bytes of a transaction (legacy, v0 or v1), strictly and to the last byte."""

from typing import Final

import msgspec

from headrace.model.errors import BadInputError
from headrace.model.keys import key_text
from headrace.model.updates import TxVersion

SIZE_MAX: Final = 4096
"""Maximum number of bytes of a v1 transaction (SIMD-0385). Older versions have at most 1,232."""

_VERSIONED: Final = 0x80
_V1_CONFIG_KNOWN: Final = 0b11111


class WireInstruction(msgspec.Struct, frozen=True, gc=False):
    """An instruction before its indexes are resolved. Each byte of `accounts` is an index."""

    program_index: int
    accounts: bytes
    data: bytes


class WireTransaction(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A signed transaction. `looked_up` is the number of keys that lookup tables add to the static `keys` (v0 only).

    A version newer than v1 has only its number, because the layout of its bytes is unknown.
    """

    version: TxVersion
    signatures: tuple[bytes, ...] = ()
    signers: int = 0
    keys: tuple[str, ...] = ()
    instructions: tuple[WireInstruction, ...] = ()
    looked_up: int = 0


def parse_wire(raw: bytes) -> WireTransaction:
    """Return a complete transaction. Raises BadInputError `bad_wire` (or `too_large`) with the fault and its place.

    From v1 on, the first byte has its high bit set, and the signatures follow the message (SIMD-0385). In older
    versions the first byte counts the signatures, which come first, and the high bit of the message's first byte marks
    v0.
    """
    if len(raw) > SIZE_MAX:
        raise BadInputError("too_large", f"transaction has {len(raw)} bytes, at most {SIZE_MAX} are possible")
    reader = _Reader(raw)
    if raw and raw[0] & _VERSIONED:
        version = reader.byte() & ~_VERSIONED
        if version == 0:
            raise BadInputError("bad_wire", "v0 prefix before the signatures")
        return _v1(reader) if version == 1 else WireTransaction(version=version)
    signatures = tuple(reader.take(64) for _ in range(reader.compact()))
    return _legacy_or_v0(reader, signatures)


def _legacy_or_v0(reader: "_Reader", signatures: tuple[bytes, ...]) -> WireTransaction:
    version: TxVersion = "legacy"
    signers = reader.byte()
    if signers & _VERSIONED:
        version = signers & ~_VERSIONED
        if version != 0:
            return WireTransaction(version=version, signatures=signatures)
        signers = reader.byte()
    reader.take(2)
    keys = reader.keys(reader.compact())
    reader.take(32)
    instructions = tuple(
        WireInstruction(reader.byte(), reader.take(reader.compact()), reader.take(reader.compact()))
        for _ in range(reader.compact())
    )
    looked_up = 0
    if version == 0:
        for _ in range(reader.compact()):
            reader.take(32)
            looked_up += len(reader.take(reader.compact()))
            looked_up += len(reader.take(reader.compact()))
    reader.finish()
    return _checked(version, signatures, signers, keys, instructions, looked_up)


def _v1(reader: "_Reader") -> WireTransaction:
    signers = reader.byte()
    reader.take(2)
    config = int.from_bytes(reader.take(4), "little")
    if config & ~_V1_CONFIG_KNOWN or (config & 0b11) in {0b01, 0b10}:
        raise BadInputError("bad_wire", f"v1 config mask {config:#x}")
    reader.take(32)
    instruction_count, key_count = reader.byte(), reader.byte()
    keys = reader.keys(key_count)
    reader.take(4 * config.bit_count())
    heads = [(reader.byte(), reader.byte(), int.from_bytes(reader.take(2), "little")) for _ in range(instruction_count)]
    instructions = tuple(
        WireInstruction(program, reader.take(accounts), reader.take(size)) for program, accounts, size in heads
    )
    signatures = tuple(reader.take(64) for _ in range(signers))
    reader.finish()
    return _checked(1, signatures, signers, keys, instructions, 0)


def _checked(
    version: TxVersion,
    signatures: tuple[bytes, ...],
    signers: int,
    keys: tuple[str, ...],
    instructions: tuple[WireInstruction, ...],
    looked_up: int,
) -> WireTransaction:
    if not 0 < signers <= len(keys) or len(signatures) != signers:
        raise BadInputError("bad_wire", f"{len(signatures)} signatures, {signers} signers, {len(keys)} keys")
    return WireTransaction(
        version=version,
        signatures=signatures,
        signers=signers,
        keys=keys,
        instructions=instructions,
        looked_up=looked_up,
    )


class _Reader:
    """A cursor over the bytes that never reads past the end."""

    __slots__ = ("_at", "_raw")

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._raw):
            raise BadInputError("bad_wire", f"{size} bytes expected at {self._at}, {len(self._raw) - self._at} left")
        part = self._raw[self._at : end]
        self._at = end
        return part

    def byte(self) -> int:
        return self.take(1)[0]

    def compact(self) -> int:
        """Return a compact-u16: 7 bits a byte, low bits first, in at most 3 bytes and in the shortest form."""
        value = self.byte()
        if value < 0x80:
            return value
        second = self.byte()
        value = (value & 0x7F) | (second & 0x7F) << 7
        last = second
        if second >= 0x80:
            last = self.byte()
            value |= last << 14
        if last == 0 or value > 0xFFFF:
            raise BadInputError("bad_wire", f"length that is no compact-u16 before {self._at}")
        return value

    def keys(self, count: int) -> tuple[str, ...]:
        raw = self.take(32 * count)
        return tuple([key_text(raw[at : at + 32]) for at in range(0, len(raw), 32)])

    def finish(self) -> None:
        if self._at != len(self._raw):
            raise BadInputError("bad_wire", f"{len(self._raw) - self._at} bytes after the end at {self._at}")
