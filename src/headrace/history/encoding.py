"""Encodes values for database columns: keys and signatures as bytes, u64 as signed integers. Pure.

A program with a foreign IDL may name a key that is not base58 of 32 bytes. Such a key is stored as its text after a
prefix, which makes it longer than any valid key.
"""

from typing import Final

from solders.pubkey import Pubkey
from solders.signature import Signature

from headrace.model.keys import key_text
from headrace.model.updates import Commitment, SlotStatus

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
U64_MAX: Final = 2**64 - 1
TIME_S_MAX: Final = 2**32 - 1
_SIGN: Final = 2**63
_HALF: Final = 62
_LOW: Final = 2**_HALF - 1

BY_SLOT: Final = 0
UNPROVEN: Final = 1
CERTAIN: Final = 2
"""Standings of a row: as certain as its slot, waiting for proof of its signature, or certain from the start."""

STATUSES: Final[tuple[SlotStatus, ...]] = ("processed", "confirmed", "finalized", "dead", "created_bank")
"""Statuses of slots; the database stores a status as its index here."""


def wrapped(value: int) -> int:
    """Return the signed integer with the same 64 bits as a u64."""
    return value - 2 * _SIGN if value >= _SIGN else value


def unwrapped(value: int) -> int:
    """Return the u64 with the same 64 bits as a signed integer."""
    return value + 2 * _SIGN if value < 0 else value


def halves(total: int) -> tuple[int, int]:
    """Return a sum below 2**125 as two signed integers, the high bits first."""
    return total >> _HALF, total & _LOW


def whole(high: int, low: int) -> int:
    """Return the sum that `halves` split into these integers."""
    return (high << _HALF) + low


def key_bytes(text: str) -> bytes:
    """Return the 32 bytes of a key. If `text` is not a key, return a prefix followed by the text in UTF-8."""
    try:
        return bytes(Pubkey.from_string(text))
    except ValueError:
        return b"\0" * (KEY_BYTES + 1) + text.encode("utf-8", "surrogatepass")


def key_of(raw: bytes) -> str:
    """Return the text that `key_bytes` encoded as these bytes."""
    if len(raw) == KEY_BYTES:
        return key_text(raw)
    return raw[KEY_BYTES + 1 :].decode("utf-8", "surrogatepass")


def signature_bytes(text: str) -> bytes:
    """Return the 64 bytes of a signature.

    If `text` is not a signature, return a prefix followed by the text in UTF-8.
    """
    try:
        return bytes(Signature.from_string(text))
    except ValueError:
        return b"\0" * (SIGNATURE_BYTES + 1) + text.encode("utf-8", "surrogatepass")


def signature_of(raw: bytes) -> str:
    """Return the text that `signature_bytes` encoded as these bytes."""
    if len(raw) == SIGNATURE_BYTES:
        return str(Signature.from_bytes(raw))
    return raw[SIGNATURE_BYTES + 1 :].decode("utf-8", "surrogatepass")


def place_in(event_id: str, slot: int, signature: str) -> str:
    """Return an event's id without slot and signature: `2.1:0` for `slot:signature:2.1:0`. Other ids get a `=`."""
    head = f"{slot}:{signature}:"
    return event_id.removeprefix(head) if event_id.startswith(head) else f"={event_id}"


def event_id_of(slot: int, signature: str, place: str) -> str:
    """Return the event's id that `place_in` shortened to this place."""
    return place[1:] if place.startswith("=") else f"{slot}:{signature}:{place}"


def commitment_of(standing: int, status: int | None) -> Commitment:
    """Return the commitment of a row, from its standing and its slot's status (None if not known)."""
    if standing == UNPROVEN:
        return "processed"
    if status == STATUSES.index("finalized"):
        return "finalized"
    return "confirmed" if standing == CERTAIN or status == STATUSES.index("confirmed") else "processed"
