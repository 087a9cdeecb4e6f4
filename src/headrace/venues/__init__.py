"""Where swaps are made: each venue quotes a price and gives the instructions of a swap. Port and register."""

from collections.abc import Sequence
from typing import Final, Protocol

from headrace.adapters import Register
from headrace.model.amounts import BaseUnits
from headrace.model.orders import OrderRequest, Quote
from headrace.model.transactions import Instruction


class Venue(Protocol):
    """A market for pairs of mints. A quote is an offer, not a promise: the price may move until the swap lands.

    Many quotes may be asked for at once, and a call may be cancelled at any moment. No call changes anything.
    """

    @property
    def name(self) -> str:
        """The venue's name in the register, which quotes carry."""

    async def quote(self, request: OrderRequest) -> Quote:
        """Return the offer for the request's amount, after fees, with its route.

        Raises TransientError when there is no answer, or no pool for these mints.
        """

    async def swap(self, quote: Quote, owner: str, min_out: BaseUnits) -> Sequence[Instruction]:
        """Return the instructions that swap along the route of `quote`, one of this venue's.

        The tokens come from and go to the accounts of `owner`. The instructions fail on the chain when less than
        `min_out` would arrive. Raises TransientError when none can be made for now. Nothing is sent.
        """

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError while the venue gives no quotes. `thorough`: the last check failed."""

    async def close(self) -> None:
        """Release what the venue holds. Idempotent."""


VENUES: Final[Register[Venue]] = Register(
    "venues",
    {
        "meteora": "headrace.venues.mock:MockMeteora",
        "pools": "headrace.venues.pools:PoolVenue",
        "raydium": "headrace.venues.mock:MockRaydium",
    },
)
"""All venues. `[orders] venues` names those that are used."""
