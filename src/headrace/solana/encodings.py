"""Decoders of bytes in the nodes' JSON: base58, base64 and base64+zstd. They are strict and limit sizes."""

from typing import Final

import pybase64
import zstandard

from headrace.model.errors import BadInputError
from headrace.model.keys import b58decode, b58encode

BASE58_BYTES_MAX: Final = 10_240
"""Maximum number of bytes in base58, that of an instruction's data.

For accounts, nodes refuse base58 above 128 bytes.
"""

_SIGNATURE_SIZE: Final = 64
_NO_SIGNATURE: Final = "1" * _SIGNATURE_SIZE
_LARGEST_SIGNATURE: Final = b58encode(b"\xff" * _SIGNATURE_SIZE)
_SIGNATURE_CHARACTERS_MAX: Final = len(_LARGEST_SIGNATURE)

_LIKELY_MIN: Final = 16_384
_unpacker: Final = zstandard.ZstdDecompressor()


def bytes_of(written: object, *, size_max: int) -> bytes:
    """Return the bytes of a JSON value: `["…", "base64"]`, or a bare string, which is base58 (the old form).

    Raises BadInputError: `bad_encoding`, `bad_base58`, `bad_base64`, `bad_zstd`, or `too_large` for more than
    `size_max` bytes. No decoder allocates more than `size_max` bytes.
    """
    text, encoding = (written, "base58") if isinstance(written, str) else _pair(written)
    if encoding == "base64":
        return from_base64(text, size_max=size_max)
    if encoding == "base64+zstd":
        return from_zstd(from_base64(text, size_max=size_max + size_max // 128 + 64), size_max=size_max)
    if encoding == "base58":
        return from_base58(text, size_max=size_max)
    raise BadInputError("bad_encoding", f"encoding is {encoding[:32]!r}, expected base58, base64 or base64+zstd")


def _pair(written: object) -> tuple[str, str]:
    if isinstance(written, list | tuple) and len(written) == 2:
        text, encoding = written
        if isinstance(text, str) and isinstance(encoding, str):
            return text, encoding
    raise BadInputError("bad_encoding", 'expected ["…", "base64"] or a base58 string')


def from_base64(text: str, *, size_max: int) -> bytes:
    """Return the bytes of standard base64, parsed strictly and with padding.

    Raises BadInputError `bad_base64` or `too_large`.
    """
    if len(text) > size_max * 4 // 3 + 4:
        raise BadInputError("too_large", f"{len(text)} characters of base64, at most {size_max} bytes expected")
    try:
        raw = pybase64.b64decode(text, validate=True)
    except ValueError as error:
        raise BadInputError("bad_base64", str(error)) from None
    if len(raw) > size_max:
        raise BadInputError("too_large", f"{len(raw)} bytes, expected at most {size_max}")
    return raw


def from_zstd(packed: bytes, *, size_max: int) -> bytes:
    """Return the content of one complete zstd frame, at most `size_max` bytes.

    Raises BadInputError `bad_zstd` or `too_large`.
    A frame may declare any size, so the declared size is checked before memory is allocated. Nodes' frames declare no
    size, because nodes stream them. Such a frame gets a buffer of 16 times its packed length. If that is too small, it
    gets a buffer of `size_max`. Always using the larger buffer would be six times slower.
    """
    try:
        declared = zstandard.frame_content_size(packed)
        if declared > size_max:
            raise BadInputError("too_large", f"zstd frame declares {declared} bytes, expected at most {size_max}")
        likely = max(_LIKELY_MIN, 16 * len(packed))
        if declared < 0 and likely < size_max:
            try:
                return _unpacker.decompress(packed, max_output_size=likely, allow_extra_data=False)
            except zstandard.ZstdError:
                pass  # longer than expected, or malformed: the next line decides
        return _unpacker.decompress(packed, max_output_size=size_max, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BadInputError("bad_zstd", str(error)) from None


def from_base58(text: str, *, size_max: int) -> bytes:
    """Return the bytes of base58, at most `size_max` and BASE58_BYTES_MAX.

    The limit is low, because the work grows with the square of the length. Raises BadInputError `bad_base58` or
    `too_large`.
    """
    size_max = min(size_max, BASE58_BYTES_MAX)
    if len(text) > size_max * 138 // 100 + 1:
        raise BadInputError("too_large", f"{len(text)} characters of base58, at most {size_max} bytes expected")
    try:
        return b58decode(text)
    except ValueError:
        raise BadInputError("bad_base58", "a character outside the base58 alphabet") from None


def is_signature(text: str) -> bool:
    """Return whether `text`, of the base58 alphabet, can be a signature: 64 bytes, not all of them zero.

    The alphabet is in ASCII order, so the length and one comparison decide for nearly every text (0.1 µs). Only the
    remaining texts are decoded. 64 zero bytes are an unset field.
    """
    size = len(text)
    if size == _SIGNATURE_CHARACTERS_MAX and text[0] != "1":
        return text <= _LARGEST_SIGNATURE
    if size == _SIGNATURE_CHARACTERS_MAX - 1 and text[0] > "2":
        return True
    if not _SIGNATURE_SIZE <= size <= _SIGNATURE_CHARACTERS_MAX or text == _NO_SIGNATURE:
        return False
    try:
        return len(b58decode(text)) == _SIGNATURE_SIZE
    except ValueError:
        return False
