"""Trades, and the messages that are computed from many trades."""

import uuid
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

Side: TypeAlias = Literal["buy", "sell"]

PRICED_UNITS_MIN: Final = 1_000
"""Minimum base units, on each side, of a trade that sets a price.

With fewer, rounding alone can move the price by 0.1 %.
"""

TOKEN_ID_NAMESPACE: Final = uuid.NAMESPACE_URL


def token_id_of(mint: str) -> str:
    """Return the id of a coin in application messages: `uuid5(NAMESPACE_URL, mint)`, which any language can compute."""
    return str(uuid.uuid5(TOKEN_ID_NAMESPACE, mint))


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One swap. The base is bought or sold and the quote pays for it. Amounts are in base units of their mints.

    - `user`: the signer on whose behalf the swap was made.
    - `authority`: set if the user went through a router or a vault. It is the account that the program names in the
      user's place.
    - `mint` (of the base) and `quote_mint`: None if neither the event nor its transaction names them and the pool is
      unknown. In that case base and quote follow the pool's own order.
    """

    mint: str | None
    quote_mint: str | None
    side: Side
    user: str | None
    base_amount: int
    quote_amount: int
    pool: str | None
    authority: str | None = None


class Place(msgspec.Struct, frozen=True, gc=False):
    """Place on the chain where something was seen, with the source and feed that delivered it."""

    slot: int
    signature: str
    source: str
    feed: str


class SeenTrade(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A trade between two known mints, with the known facts about the mints.

    The `decimals` of base and quote, and the base's `supply` in base units, are None while unknown. `time_s` is the
    chain's own time, in Unix seconds. `final` means that nothing can take the trade back. `unproven` means that it is
    not yet proven that the slot's block contains the transaction.
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
    """A message that is computed from many trades. `place` is the place of the newest trade.

    The message is published on `topic`, and on `single`, the mint's own topic, where it is the state of `key`. `data`
    is JSON. `name` is the last part of the event's id.
    """

    topic: str
    single: str
    key: str
    name: str
    data: bytes
    place: Place
    final: bool
