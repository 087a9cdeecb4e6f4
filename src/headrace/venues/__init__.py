"""Where swaps are made: each venue quotes a price and gives the instructions of a swap. Port and register."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from headrace.model.amounts import BaseUnits
from headrace.model.instructions import Instruction
from headrace.model.orders import OrderRequest, Quote


class Venue(Protocol):
    """A market for pairs of mints. A quote is an offer, not a promise: the price may move until the swap lands."""

    name: str

    async def quote(self, request: OrderRequest) -> Quote:
        """What comes out for the request's amount, after fees. Raises TransientError when there is no answer."""

    async def swap(self, quote: Quote, owner: str, min_out: BaseUnits) -> Sequence[Instruction]:
        """Return the instructions that swap along the route of `quote`, one of this venue's, from and to the token
        accounts of `owner`, and that fail on the chain when less than `min_out` would arrive.

        Raises TransientError when the instructions can't be made for now. Nothing is sent.
        """

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError when it gives no quotes for now. `thorough`: it just failed."""


VENUES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "raydium": "headrace.venues.mock_raydium:MockRaydium",
        "meteora": "headrace.venues.mock_meteora:MockMeteora",
    }
)
"""Name → "module:Class", imported when first used."""
