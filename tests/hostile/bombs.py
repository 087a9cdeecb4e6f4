"""Streams that are small until somebody inflates them."""

import zlib


def deflated(megabytes: int, wbits: int = zlib.MAX_WBITS | 16, *, of: bytes = b" ") -> bytes:
    """Return a stream of so many megabytes of one byte: gzip, or what else `wbits` says to zlib.

    After a full flush an equal megabyte is equal bytes: one is compressed, then repeated. Only the checksum at the end
    is wrong, which a reader meets after all megabytes.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    head = packer.flush(zlib.Z_FULL_FLUSH)
    first = packer.copy()
    megabyte = first.compress(of * 1_000_000) + first.flush(zlib.Z_FULL_FLUSH)
    return head + megabyte * megabytes + packer.flush()
