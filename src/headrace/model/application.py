"""Messages that applications send to each other through Headrace, and the members that each type must have. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

MEMBERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "TokenCreated": ("token_id", "name", "symbol", "creator"),
        "TokenPriceUpdate": ("token_id", "price", "change_24h"),
        "TransactionUpdate": ("transaction_id", "status", "user_id"),
        "MarketData": ("token_id", "price", "volume_24h", "market_cap"),
        "Notification": ("user_id", "title", "message", "notification_type"),
        "UserActivity": ("user_id", "activity_type", "data"),
    }
)
"""`data.type` → the other members that are required with it. Headrace does not check messages of other types."""


def missing_members(data: Mapping[str, Any]) -> list[str]:
    """Return the required members that a message of a known type lacks."""
    return [member for member in MEMBERS.get(str(data.get("type")), ()) if member not in data]
