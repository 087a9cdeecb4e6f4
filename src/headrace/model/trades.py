"""Trades, and what is made of many of them."""

import uuid
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

Side: TypeAlias = Literal["buy", "sell"]

PRICED_UNITS_MIN: Final = 1_000
"""A trade of fewer base units, on either side, sets no price: rounding alone would move the price by 0.1 %."""

TOKEN_ID_NAMESPACE: Final = uuid.NAMESPACE_URL


def token_id_of(mint: str) -> str:
    """`uuid5(NAMESPACE_URL, mint)`: the same everywhere, in any language."""
    return str(uuid.uuid5(TOKEN_ID_NAMESPACE, mint))


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One swap. The base is what is bought or sold, the quote what it is paid in; amounts in base units of their mints.

    `user` is the signer on whose behalf it was made; `authority` whom the program names in that place where the user
    went through a router or vault, else None. `mint` (of the base) and `quote_mint` are None where neither the event
    nor its transaction names them and the pool is not known; base and quote then follow the pool's own order.
    """

    mint: str | None
    quote_mint: str | None
    side: Side
    user: str | None
    base_amount: int
    quote_amount: int
    pool: str | None
    authority: str | None = None


class Place(NamedTuple):
    """Where on the chain something was seen, and by which source and feed."""

    slot: int
    signature: str
    source: str
    feed: str


class SeenTrade(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A trade between two known mints, with what is known about them.

    `decimals` of base and quote and the base's `supply` (in base units) are None where not known. `time_s` is the
    chain's own, in Unix seconds. `final`: nothing will take the trade back. `unproven`: whether its transaction is in
    the slot's block is yet to be proven.
    """

    mint: str
    quote_mint: str
    base_amount: int
    quote_amount: int
    time_s: int
    place: Place
    final: bool
    unproven: bool = False
    decimals: int | None = None
    quote_decimals: int | None = None
    supply: int | None = None


class Derived(NamedTuple):
    """A message that follows from many trades; `place` is that of the newest of them.

    It goes to `topic`, and to `single`, which is the mint's own: there it is the state of `key`. `data` is JSON.
    `name` ends the event's id.
    """

    topic: str
    single: str
    key: str
    name: str
    data: bytes
    place: Place
    final: bool
