"""Topic names: which there are, and what may stand behind the colon."""

from typing import Final, NamedTuple

from headrace.model.errors import RequestError
from headrace.model.keys import is_key

TOPIC_LENGTH_MAX: Final = 128
UNKNOWN_TOPIC: Final = 102

PLAIN: Final = frozenset({"token_updates", "market-data", "slots"})
"""Topics without a key."""

KEYED: Final = {
    "trades": "program or mint",
    "events": "program",
    "tx": "program",
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

OWNER_CHARS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.@-")
"""What ids of users and orders, and names that applications choose, are made of."""

OWNER_LENGTH_MAX: Final = 64

_NAME_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")


ORDER_PREFIX: Final = "order:"
"""What one order is told. Whose it is, its name does not say."""


class Topic(NamedTuple):
    """A parsed topic: `("trades", "pump")`, `("slots", "")`."""

    kind: str
    key: str


def parse(name: str) -> Topic:
    """Split and check a topic name. Raises RequestError 102 for one that can't exist.

    Only printable ASCII passes, so look-alike letters, control characters and wildcards are refused here, once.
    """
    kind, colon, key = name.partition(":")
    if len(name) > TOPIC_LENGTH_MAX:
        raise RequestError(UNKNOWN_TOPIC, "unknown topic")
    if not colon:
        if kind in PLAIN:
            return Topic(kind, "")
        raise RequestError(UNKNOWN_TOPIC, "unknown topic")
    expected = KEYED.get(kind)
    named = "program" in (expected or "") and 0 < len(key) <= 64 and _NAME_CHARS.issuperset(key)
    owned = expected in ("order id", "user", "name") and is_owner(key)
    if expected is None or not (named or owned or is_key(key)):
        raise RequestError(UNKNOWN_TOPIC, "unknown topic")
    return Topic(kind, key)


def is_owner(key: str) -> bool:
    """Whether `key` may be the id of a user or an order."""
    return 0 < len(key) <= OWNER_LENGTH_MAX and OWNER_CHARS.issuperset(key)
