"""Which topics have a state, and what tells one thing of it from another. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

STATEFUL: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "account": ("pubkey",),
        "accounts": ("pubkey",),
        "token": ("type", "quote_mint"),
        "token_updates": ("type", "mint", "quote_mint"),
        "market-data": ("type", "mint", "quote_mint"),
        "pool": ("type",),
    }
)
"""Kind of topic → the members of `data` that together are the key; a `quote_mint` may be missing.

The state of a topic is, for each key, the newest event that has one and was not retracted. `market-data` and
`market-data:<mint>` are of one kind.
"""


def state_key(topic: str) -> tuple[str, ...] | None:
    """The members that make the key on this topic; None for a topic that only tells what happened."""
    return STATEFUL.get(topic.partition(":")[0])
