"""Decompresses messages up to a largest size. Pure."""

import io
import zlib
from typing import Final

import zstandard

from headrace.sources.yellowstone.endings import WireEnd

ENCODINGS: Final = {"none": "identity", "gzip": "identity,gzip", "zstd": "identity,zstd,gzip"}
"""Encodings offered to a node in `grpc-accept-encoding`, by the value of the setting `compression`."""
_GZIP: Final = 16 + zlib.MAX_WBITS


def decompress(message: bytes, encoding: str, size_max: int) -> bytes:
    """Return the message decompressed.

    Raises WireEnd if the encoding is unknown or does not fit, or the result is longer than `size_max` bytes.
    """
    try:
        if encoding == "gzip":
            machine = zlib.decompressobj(_GZIP)
            found = machine.decompress(message, size_max + 1)
            whole = machine.eof
        elif encoding == "zstd":
            with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(message)) as reader:
                found = reader.read(size_max + 1)
            whole = True
        else:
            raise WireEnd("INTERNAL", f"a compressed message in the encoding {encoding[:40]}")
    except (zlib.error, zstandard.ZstdError) as error:
        raise WireEnd("INTERNAL", f"a message that is no {encoding}: {error}") from None
    if len(found) > size_max:
        raise WireEnd("RESOURCE_EXHAUSTED", f"a decompressed message is larger than max ({size_max})")
    if not whole:
        raise WireEnd("INTERNAL", f"a message that is no whole {encoding}")
    return found
