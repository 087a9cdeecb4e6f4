"""How values stand in the columns of a database: keys, signatures and event ids as bytes, u64 in signed integers. Pure.

A key that is no base58 of 32 bytes, as a program from outside may name one, is kept as text behind a prefix that makes
it longer than any key.
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
"""Standing of a row: decided with its slot, not before its signature is proven, or certain from the start."""

STATUSES: Final[tuple[SlotStatus, ...]] = ("processed", "confirmed", "finalized", "dead", "created_bank")
"""Statuses of slots, by the number that stands for each."""


def wrapped(value: int) -> int:
    """Return a u64 as the signed integer of the same bits."""
    return value - 2 * _SIGN if value >= _SIGN else value


def unwrapped(value: int) -> int:
    """Return the u64 that stands in a signed integer."""
    return value + 2 * _SIGN if value < 0 else value


def halves(total: int) -> tuple[int, int]:
    """Return a sum of any size below 2**125 as two signed integers."""
    return total >> _HALF, total & _LOW


def whole(high: int, low: int) -> int:
    """Return the sum that stands in two integers."""
    return (high << _HALF) + low


def key_bytes(text: str) -> bytes:
    """Return the 32 bytes of a key; of other text, its bytes behind a prefix."""
    try:
        return bytes(Pubkey.from_string(text))
    except ValueError:
        return b"\0" * (KEY_BYTES + 1) + text.encode("utf-8", "surrogatepass")


def key_of(raw: bytes) -> str:
    """Return the text of which `key_bytes` made these bytes."""
    if len(raw) == KEY_BYTES:
        return key_text(raw)
    return raw[KEY_BYTES + 1 :].decode("utf-8", "surrogatepass")


def signature_bytes(text: str) -> bytes:
    """Return the 64 bytes of a signature; of other text, its bytes behind a prefix."""
    try:
        return bytes(Signature.from_string(text))
    except ValueError:
        return b"\0" * (SIGNATURE_BYTES + 1) + text.encode("utf-8", "surrogatepass")


def signature_of(raw: bytes) -> str:
    """Return the text of which `signature_bytes` made these bytes."""
    if len(raw) == SIGNATURE_BYTES:
        return str(Signature.from_bytes(raw))
    return raw[SIGNATURE_BYTES + 1 :].decode("utf-8", "surrogatepass")


def place_in(event_id: str, slot: int, signature: str) -> str:
    """Return what an event's id says beside slot and signature: `slot:signature:2.1:0` has the place `2.1:0`."""
    head = f"{slot}:{signature}:"
    return event_id.removeprefix(head) if event_id.startswith(head) else f"={event_id}"


def event_id_of(slot: int, signature: str, place: str) -> str:
    """Return the event's id of which `place_in` made this place."""
    return place[1:] if place.startswith("=") else f"{slot}:{signature}:{place}"


def commitment_of(standing: int, status: int | None) -> Commitment:
    """Return how certain a row is, by its standing and the status of its slot (None: not known)."""
    if standing == UNPROVEN:
        return "processed"
    if status == STATUSES.index("finalized"):
        return "finalized"
    return "confirmed" if standing == CERTAIN or status == STATUSES.index("confirmed") else "processed"
