"""A venue of real pools: quotes by the programs' own rules, and the instructions of swaps along their routes."""

import asyncio
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import ClassVar, Final, Self

from headrace.adapters import Context
from headrace.model.amounts import BaseUnits, Bps
from headrace.model.errors import TransientError
from headrace.model.orders import BPS_WHOLE, Charge, Leg, OrderRequest, Quote
from headrace.model.transactions import Instruction
from headrace.programs.quoting import NoQuoteError, PoolQuote
from headrace.solana.bank import shared_bank
from headrace.venues.followed import FollowedPools
from headrace.venues.router import THROUGH, Candidate, Route, cheapest_route, routes_of
from headrace.venues.settings import PoolVenueSettings
from headrace.venues.supply import BankPools, PoolState, PoolSupply
from headrace.venues.swapping import fits, instructions_of

ROUTES_MAX: Final = 8
"""Maximum number of routes that are tried for one that fits into a transaction, the best first."""


class PoolVenue:
    """All pools of all programs with a curve: in the bank if there is one, else those that the stream and nodes show.

    A quote is the best route whose swap fits into one transaction: one pool, two pools in turn, or a split over pools.
    """

    Settings: ClassVar = PoolVenueSettings
    SECTION: ClassVar = "quotes"
    name: ClassVar[str] = "pools"
    CHAINS: ClassVar = ("local",)

    @classmethod
    async def open(cls, settings: PoolVenueSettings, context: Context) -> Self:
        """Return the venue. Raises BadInputError for a file that is not a bank."""
        programs = await asyncio.to_thread(context.programs)
        if settings.bank is None:
            return cls(FollowedPools(context, programs, settings))
        return cls(BankPools(await asyncio.to_thread(shared_bank, Path(settings.bank)), programs))

    def __init__(self, supply: PoolSupply) -> None:
        self._supply = supply

    async def quote(self, request: OrderRequest) -> Quote:
        """Return the best offer. Raises TransientError if no route gives a quote for the whole amount."""
        mint_in, mint_out = request.token_in.mint, request.token_out.mint
        pools, candidates = await self._pools(mint_in, mint_out)
        try:
            routes = routes_of(candidates, mint_in, mint_out, request.amount)[:ROUTES_MAX]
        except NoQuoteError as error:
            raise TransientError("no pool gives a quote") from error
        route = next((route for route in routes if fits(route, pools)), None)
        if route is None:
            raise TransientError("no route fits into one transaction")
        return self._offer(route, pools)

    async def quote_exact_out(self, request: OrderRequest) -> Quote:
        """Return the offer with the lowest input, over one or two pools."""
        mint_in, mint_out = request.token_in.mint, request.token_out.mint
        pools, candidates = await self._pools(mint_in, mint_out)
        try:
            return self._offer(cheapest_route(candidates, mint_in, mint_out, request.amount), pools)
        except NoQuoteError as error:
            raise TransientError("no pool gives a quote") from error

    async def _pools(self, mint_in: str, mint_out: str) -> tuple[dict[str, PoolState], list[Candidate]]:
        """Return the pools by key, and those that can be quoted."""
        pools = {pool.key: pool for pool in await self._supply.pools(mint_in, mint_out, THROUGH)}
        read = [(pool.mints, pool.market()) for pool in pools.values()]
        return pools, [Candidate(mints, market) for mints, market in read if market is not None]

    def _offer(self, route: Route, pools: dict[str, PoolState]) -> Quote:
        quotes = [quote for path in route.paths for quote in path]
        slots = [slot for quote in quotes if (slot := pools[quote.pool].slot) is not None]
        return Quote(
            venue=self.name,
            amount_in=BaseUnits(route.amount_in),
            amount_out=BaseUnits(route.amount_out),
            fee_bps=_fee_bps(route),
            route=tuple(
                Leg(quote.pool, quote.mint_in, quote.mint_out, BaseUnits(quote.amount_in), BaseUnits(quote.amount_out))
                for quote in quotes
            ),
            slot=min(slots, default=None),
            fees=tuple(Charge(fee.to, fee.mint, BaseUnits(fee.amount)) for quote in quotes for fee in quote.fees),
            impact=BaseUnits(sum(map(_impact, route.paths))),
            spot=BaseUnits(sum(map(_spot, route.paths))),
        )

    async def swap(self, quote: Quote, owner: str, min_out: BaseUnits) -> Sequence[Instruction]:
        """Return the instructions along the quote's route in the current state of its pools.

        The last swap of each path enforces its part of `min_out`.
        """
        mint_in, mint_out = quote.route[0].mint_in, quote.route[-1].mint_out
        pools = {pool.key: pool for pool in await self._supply.pools(mint_in, mint_out, THROUGH)}
        if any(leg.pool not in pools for leg in quote.route):
            raise TransientError("a pool of the route is not known any more")
        try:
            return instructions_of(quote, pools, owner, min_out)
        except NoQuoteError as error:
            raise TransientError("the pools give no swap") from error

    def revision(self) -> Hashable:
        """Return a value that changes whenever the state of a pool may have changed."""
        return self._supply.revision()

    async def check(self, *, thorough: bool) -> None:
        """Do nothing: whether nodes answer is shown by the source."""

    async def close(self) -> None:
        """Release the accounts that the venue follows."""
        await self._supply.close()


def _impact(path: Sequence[PoolQuote]) -> int:
    """Return the output that a path loses because its swaps move prices; rounds down at each pool.

    What the first pool loses is worth as much as the second pool's price before the swap says.
    """
    lost = 0
    for quote in path:
        net, gross = _priced(quote)
        lost = quote.impact + (lost * gross // net if net else 0)
    return lost


def _spot(path: Sequence[PoolQuote]) -> int:
    """Return the output of a path's input at the prices before the swap, without fees; rounds down at each pool."""
    worth = path[0].amount_in
    for quote in path:
        net, gross = _priced(quote)
        worth = worth * gross // net if net else 0
    return worth


def _priced(quote: PoolQuote) -> tuple[int, int]:
    """Return the input after fees, and the output before fees at the price before the swap."""
    of_input = sum(fee.amount for fee in quote.fees if fee.mint == quote.mint_in)
    of_output = sum(fee.amount for fee in quote.fees if fee.mint == quote.mint_out)
    return quote.amount_in - of_input, quote.amount_out + of_output + quote.impact


def _fee_bps(route: Route) -> Bps:
    """Return the fees of a route, each in basis points of the amount from which it is taken; rounded up.

    The pools of a path add up; of a split, the path with the highest fees counts.
    """
    return Bps(min(BPS_WHOLE - 1, max(sum(map(_fee_bps_of, path)) for path in route.paths)))


def _fee_bps_of(quote: PoolQuote) -> int:
    of_input = sum(fee.amount for fee in quote.fees if fee.mint == quote.mint_in)
    of_output = sum(fee.amount for fee in quote.fees if fee.mint == quote.mint_out)
    gross = quote.amount_out + of_output
    return -(-of_input * BPS_WHOLE // quote.amount_in) + (-(-of_output * BPS_WHOLE // gross) if gross else 0)
