"""Where swaps are made: each venue quotes a price. Port and register."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from headrace.model.orders import OrderRequest, Quote


class Venue(Protocol):
    """A market for pairs of mints. A quote is an offer, not a promise: the price may move until the swap lands."""

    name: str

    async def quote(self, request: OrderRequest) -> Quote:
        """What comes out for the request's amount, after fees. Raises TransientError when there is no answer."""

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError when it gives no quotes for now. `thorough`: it just failed."""


VENUES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "raydium": "headrace.venues.mock_raydium:MockRaydium",
        "meteora": "headrace.venues.mock_meteora:MockMeteora",
    }
)
"""Name → "module:Class", imported when first used."""
