"""32-byte public keys and 64-byte signatures as base58 text, with a bounded cache for the hot path."""

from typing import Final

import based58
from solders.pubkey import Pubkey

SYSTEM_PROGRAM: Final = "11111111111111111111111111111111"
"""The system program, and what an all-zero key reads as: "no key" in many accounts."""

WSOL_MINT: Final = "So11111111111111111111111111111111111111112"

_CACHE_MAX: Final = 65_536
_cache: dict[bytes, str] = {}


def key_text(raw: bytes) -> str:
    """Base58 text of a 32-byte key. Cached: a repeat costs one dict hit (0.04 µs against 0.27 µs).

    When the cache is full it is emptied, so its memory is bounded at 65,536 keys. Raises ValueError for another length.
    """
    text = _cache.get(raw)
    if text is None:
        if len(raw) != 32:
            raise ValueError(f"key has {len(raw)} bytes, expected 32")
        if len(_cache) >= _CACHE_MAX:
            _cache.clear()
        text = _cache[bytes(raw)] = str(Pubkey(raw))
    return text


def is_key(text: str) -> bool:
    """Whether `text` is the base58 form of 32 bytes."""
    if not 32 <= len(text) <= 44:
        return False
    try:
        Pubkey.from_string(text)
    except ValueError:
        return False
    return True


def b58encode(raw: bytes) -> str:
    """Base58 text of any bytes."""
    return str(based58.b58encode(raw), "ascii") if raw else ""


def b58decode(text: str) -> bytes:
    """Bytes of base58 text of any length. Raises ValueError for a character outside the alphabet."""
    if not text:
        return b""
    try:
        return bytes(based58.b58decode(text.encode("ascii")))
    except Exception as error:
        raise ValueError("not base58") from error
