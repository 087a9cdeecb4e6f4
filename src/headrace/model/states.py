"""Names of the topics that have a state, and the members of a message that form the key of its state. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

STATEFUL: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "account": ("pubkey",),
        "accounts": ("pubkey",),
        "token": ("type", "mint", "quote_mint"),
        "token_updates": ("type", "mint", "quote_mint"),
        "market-data": ("type", "mint", "quote_mint"),
        "pool": ("type",),
        "quotes": ("inputMint", "outputMint"),
    }
)
"""Kind of topic → the members of `data` that together form the key. A `quote_mint` may be missing.

The state of a topic is, for each key, the newest event with that key that was not retracted. `market-data` and
`market-data:<mint>` are of one kind. On `token:<mint>` the mint is the topic's, whatever `data` says.
"""


def has_state(topic: str) -> bool:
    """Return whether the messages of a topic add up to a state. Messages of other topics only report events."""
    return topic.partition(":")[0] in STATEFUL


def state_key(topic: str, data: Mapping[str, Any]) -> str | None:
    """Return the key of an event with these `data` on the topic: its members, joined by spaces. None: it has no key."""
    kind, _, name = topic.partition(":")
    values = {"quote_mint": "", **data}
    if kind == "token":
        values["mint"] = name
    members = STATEFUL.get(kind, ())
    parts = [part for member in members if isinstance(part := values.get(member), str)]
    return " ".join(parts) if parts and len(parts) == len(members) else None
