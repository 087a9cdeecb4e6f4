"""Topic names: which there are, and what may stand behind the colon."""

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
    "accounts": "program",
    "account": "pubkey",
    "token": "mint",
    "market-data": "mint",
    "pool": "pubkey",
    "order": "order id",
    "orders": "user",
    "app": "name",
}
"""Kind → what its key is. A program is a name of its IDL file (`pump`) or a program id."""

APPLICATION: Final = frozenset({"token_updates", "market-data", "token", "app"})
"""Kinds of topics that an application may publish on; what is told on the others is known from the chain alone."""

USER_PREFIX: Final = "user:"
"""What a user is told, and nobody else: such a topic is had by being that user, not by subscribing."""

_LENGTH_MAX: Final = 64
_PROGRAM_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
_ID_CHARS: Final = _PROGRAM_CHARS | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ.@-")
"""What ids of orders, and names that applications choose, are made of."""


ORDER_PREFIX: Final = "order:"
"""What one order is told. Whose it is, its name does not say."""


class Topic(NamedTuple):
    """A parsed topic: `("trades", "pump")`, `("slots", "")`."""

    kind: str
    key: str


def parse(name: str) -> Topic:
    """Split and check a topic name. Raises RequestError 102 for one that can't exist.

    Only printable ASCII passes, so look-alike letters and control characters are refused here, once.
    """
    kind, colon, key = name.partition(":")
    if len(name) > TOPIC_LENGTH_MAX:
        raise RequestError(UNKNOWN_TOPIC, "unknown topic")
    if not colon:
        if kind in PLAIN:
            return Topic(kind, "")
        raise RequestError(UNKNOWN_TOPIC, "unknown topic")
    expected = KEYED.get(kind)
    if expected is None or not (_fits(expected, key) or is_key(key)):
        raise RequestError(UNKNOWN_TOPIC, "unknown topic")
    return Topic(kind, key)


def _fits(expected: str, key: str) -> bool:
    if expected == "user":
        return is_subject(key)
    chars = _ID_CHARS if expected in ("order id", "name") else _PROGRAM_CHARS if "program" in expected else frozenset()
    return 0 < len(key) <= _LENGTH_MAX and chars.issuperset(key)
