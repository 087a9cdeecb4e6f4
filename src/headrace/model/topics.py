"""Topic names: the kinds that exist, and the keys that may follow the colon."""

import re
from typing import Final, NamedTuple

from headrace.model.errors import RequestError
from headrace.model.identity import SUBJECT_LENGTH_MAX, is_subject
from headrace.model.keys import is_key

TOPIC_LENGTH_MAX: Final = len("orders:") + SUBJECT_LENGTH_MAX
UNKNOWN_TOPIC: Final = 102

PLAIN: Final = frozenset({"token_updates", "market-data", "slots"})
"""Topics without a key."""

KEYED: Final = {
    "trades": "program or mint",
    "events": "program",
    "tx": "program, mint or wallet",
    "transfers": "mint or wallet",
    "accounts": "program",
    "account": "pubkey",
    "token": "mint",
    "market-data": "mint",
    "pool": "pubkey",
    "candles": "mint:quote:interval",
    "quotes": "mint:mint:amount",
    "order": "order id",
    "orders": "user",
    "app": "name",
}
"""Kind → the meaning of its key. A program is given as the name of its IDL file (`pump`) or as a program id."""

APPLICATION: Final = frozenset({"token_updates", "market-data", "token", "app"})
"""Kinds of topics on which an application may publish. All other topics have only messages made from the chain."""

USER_PREFIX: Final = "user:"
"""Prefix of the topics of one user. Such a topic is delivered on its user's connections, without a subscription."""

_LENGTH_MAX: Final = 64
_AMOUNT: Final = re.compile(r"[1-9][0-9]{0,19}")
_PROGRAM_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
_ID_CHARS: Final = _PROGRAM_CHARS | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ.@-")
"""Characters allowed in order ids and in names that applications choose."""


ORDER_PREFIX: Final = "order:"
"""Prefix of the topics of one order. The name does not name the order's owner."""

CANDLES_PREFIX: Final = "candles:"

QUOTES_PREFIX: Final = "quotes:"
"""Prefix of the topics of quotes: mint in, mint out, and base units in, in decimal without leading zeros."""

INTERVALS: Final = ("1m", "5m", "15m", "1h", "4h", "1d")
"""Lengths of live candles."""


class Topic(NamedTuple):
    """A parsed topic: `("trades", "pump")`, `("slots", "")`."""

    kind: str
    key: str


def parse(name: str) -> Topic:
    """Split and check a topic name. Raises RequestError 102 for a name that can't exist.

    Only printable ASCII passes. Look-alike letters and control characters are refused, so no other code checks them.
    """
    kind, colon, key = name.partition(":")
    if len(name) > TOPIC_LENGTH_MAX:
        raise RequestError(UNKNOWN_TOPIC, "unknown topic")
    if not colon:
        if kind in PLAIN:
            return Topic(kind, "")
        raise RequestError(UNKNOWN_TOPIC, "unknown topic")
    expected = KEYED.get(kind)
    if expected is None or not (_fits(expected, key) or (is_key(key) and ":" not in expected)):
        raise RequestError(UNKNOWN_TOPIC, "unknown topic")
    return Topic(kind, key)


def _fits(expected: str, key: str) -> bool:
    if expected == "user":
        return is_subject(key)
    if expected == "mint:quote:interval":
        mint, _, rest = key.partition(":")
        quote, _, interval = rest.partition(":")
        return is_key(mint) and is_key(quote) and interval in INTERVALS
    if expected == "mint:mint:amount":
        mint_in, _, rest = key.partition(":")
        mint_out, _, amount = rest.partition(":")
        return is_key(mint_in) and is_key(mint_out) and mint_in != mint_out and _AMOUNT.fullmatch(amount) is not None
    chars = _ID_CHARS if expected in ("order id", "name") else _PROGRAM_CHARS if "program" in expected else frozenset()
    return 0 < len(key) <= _LENGTH_MAX and chars.issuperset(key)
