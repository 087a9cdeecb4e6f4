"""Venues: each quotes swaps and gives the instructions of a swap. Port and register."""

from collections.abc import Hashable, Sequence
from typing import Final, Protocol, runtime_checkable

from headrace.adapters import Register
from headrace.model.amounts import BaseUnits
from headrace.model.orders import OrderRequest, Quote
from headrace.model.transactions import Instruction


class Venue(Protocol):
    """A market for pairs of mints. A quote is an offer, not a promise: the price may move until the swap lands.

    A venue whose swaps only some chains execute has the names of these chains in `CHAINS`.

    Calls may run at the same time, and each may be cancelled at any moment. No call changes anything.
    """

    @property
    def name(self) -> str:
        """The venue's name in the register; each quote carries it."""

    async def quote(self, request: OrderRequest) -> Quote:
        """Return the offer for the request's amount, after fees, with its route.

        The route leads from the mint in to the mint out, or all its pools trade these two mints and share the amount.
        Raises TransientError if the venue does not answer or has no pool for these mints.
        """

    async def swap(self, quote: Quote, owner: str, min_out: BaseUnits) -> Sequence[Instruction]:
        """Return the instructions of a swap along the route of `quote`, which must be a quote of this venue.

        The swap spends from and pays to the coin accounts of `owner`. Its instructions fail on the chain if less than
        `min_out` would arrive. Raises TransientError if the venue can't make them at present. Sends nothing.
        """

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError while the venue gives no quotes. `thorough`: the last check failed."""

    async def close(self) -> None:
        """Release all resources of the venue. Idempotent."""


@runtime_checkable
class ExactOutVenue(Protocol):
    """A venue that also quotes the input for a wanted output."""

    async def quote_exact_out(self, request: OrderRequest) -> Quote:
        """Return the offer with the lowest input that brings at least `request.amount` of the mint out.

        Raises TransientError as `Venue.quote` does.
        """


@runtime_checkable
class RevisedVenue(Protocol):
    """A venue that knows when its quotes may have changed."""

    def revision(self) -> Hashable:
        """Return a value that changes whenever a quote may have changed, and seldom otherwise. Cheap."""


VENUES: Final[Register[Venue]] = Register(
    "venues",
    {
        "meteora": "headrace.venues.mock:MockMeteora",
        "pools": "headrace.venues.pools:PoolVenue",
        "raydium": "headrace.venues.mock:MockRaydium",
    },
)
"""All venues. `[orders] venues` names those in use."""
