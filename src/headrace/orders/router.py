"""Find the route that brings most: one pool, two pools one after the other, or one amount split over pools of a pair.

Pure. Markets quote exactly; what a route costs beside the pools' fees (a larger transaction) is the caller's to weigh.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from headrace.model.keys import USDC_MINT, WSOL_MINT
from headrace.programs.quoting import Market, NoQuoteError, PoolQuote

THROUGH: Final = (WSOL_MINT, USDC_MINT)
"""Mints that a route of two hops may pass."""
PARTS: Final = 16
"""A split begins with so many equal parts; each goes where it brings most."""
HALVINGS: Final = 6
"""Then parts half as large, a quarter, … move from pool to pool while that brings more."""
MOVES_MAX: Final = 64
"""Parts of one size that move, which bounds the time."""
NO_ROUTE: Final = "no_route"


class Candidate(NamedTuple):
    """Pool that a route may pass: its two mints and its state."""

    mints: tuple[str, str]
    market: Market


class Route(NamedTuple):
    """Way from one mint to another. Each path is quotes one after the other; paths share the amount between them."""

    paths: tuple[tuple[PoolQuote, ...], ...]

    @property
    def amount_in(self) -> int:
        """What is given, over all paths."""
        return sum(path[0].amount_in for path in self.paths)

    @property
    def amount_out(self) -> int:
        """What arrives, over all paths."""
        return sum(path[-1].amount_out for path in self.paths)


def best_route(
    candidates: Iterable[Candidate], mint_in: str, mint_out: str, amount: int, through: Sequence[str] = THROUGH
) -> Route:
    """Return the route that brings most for the whole amount; of equal ones the one with fewest pools.

    Raise NoQuoteError where no pool or two give a quote.
    """
    known = list(candidates)
    direct = [each.market for each in known if set(each.mints) == {mint_in, mint_out}]
    routes = [Route(((quote,),)) for market in direct if (quote := _quote(market, mint_in, amount)) is not None]
    if len(direct) > 1:
        routes.append(split(direct, mint_in, amount))
    routes += two_hops(known, mint_in, mint_out, amount, through)
    routes = [route for route in routes if route.paths]
    if not routes:
        raise NoQuoteError(NO_ROUTE, f"from {mint_in} to {mint_out}")
    return max(routes, key=lambda route: (route.amount_out, -sum(map(len, route.paths))))


def two_hops(
    candidates: Sequence[Candidate], mint_in: str, mint_out: str, amount: int, through: Sequence[str] = THROUGH
) -> list[Route]:
    """Return the best route over each mint between. The second pool gets what the first brings, no more."""
    routes = []
    for middle in through:
        if middle in (mint_in, mint_out):
            continue
        first = _best(candidates, mint_in, middle, amount)
        second = None if first is None else _best(candidates, middle, mint_out, first.amount_out)
        if first is not None and second is not None and first.pool != second.pool:
            routes.append(Route(((first, second),)))
    return routes


def split(markets: Sequence[Market], mint_in: str, amount: int) -> Route:
    """Return the best split of an amount over pools of one pair; a route without paths where none takes all of it.

    Each pool brings less for each further part, so giving every part to the pool where that part brings most is best
    for parts of one size; smaller parts then move until the prices of the pools meet. Of amounts so small that a part
    brings a few base units, rounding decides, and a split can be worse than one pool.
    """
    pools = [_Share(market, mint_in) for market in markets]
    size, rest = divmod(amount, PARTS)
    for number in range(PARTS):
        part = size + (rest if number == 0 else 0)
        if part and not _give(pools, part):
            return Route(())
    for _ in range(HALVINGS):
        size //= 2
        for _ in range(MOVES_MAX):
            if not size or not _move(pools, size):
                break
    return Route(tuple((pool.quote,) for pool in pools if pool.quote is not None))


class _Share:
    """What one pool gets of a split, and brings for that."""

    def __init__(self, market: Market, mint_in: str) -> None:
        self._market, self._mint_in = market, mint_in
        self.amount = self.brings = 0
        self.quote: PoolQuote | None = None
        self._asked: dict[int, PoolQuote | None] = {}

    def at(self, amount: int) -> PoolQuote | None:
        if amount not in self._asked:
            self._asked[amount] = _quote(self._market, self._mint_in, amount)
        return self._asked[amount]

    def gain(self, part: int) -> int | None:
        """Return what a part more brings, or with a negative part how much less (below zero)."""
        if self.amount + part == 0:
            return -self.brings
        quote = self.at(self.amount + part) if self.amount + part > 0 else None
        return None if quote is None else quote.amount_out - self.brings

    def take(self, part: int) -> None:
        self.amount += part
        self.quote = self.at(self.amount) if self.amount else None
        self.brings = 0 if self.quote is None else self.quote.amount_out


def _give(pools: Sequence[_Share], part: int) -> bool:
    """Give a part to the pool where that brings most; return whether any takes the part."""
    gains = [(gain, -number) for number, pool in enumerate(pools) if (gain := pool.gain(part)) is not None]
    if not gains:
        return False
    pools[-max(gains)[1]].take(part)
    return True


def _move(pools: Sequence[_Share], part: int) -> bool:
    """Move a part from the pool that loses least to the one that gains most; return whether that brought more."""
    gains = [(gain, number) for number, pool in enumerate(pools) if (gain := pool.gain(part)) is not None]
    losses = [(loss, number) for number, pool in enumerate(pools) if (loss := pool.gain(-part)) is not None]
    best = max(((gain + loss, to, of) for gain, to in gains for loss, of in losses if to != of), default=(0, 0, 0))
    if best[0] <= 0:
        return False
    pools[best[1]].take(part)
    pools[best[2]].take(-part)
    return True


def _best(candidates: Sequence[Candidate], mint_in: str, mint_out: str, amount: int) -> PoolQuote | None:
    markets = [each.market for each in candidates if set(each.mints) == {mint_in, mint_out}]
    quotes = [quote for market in markets if (quote := _quote(market, mint_in, amount)) is not None]
    return max(quotes, key=lambda quote: quote.amount_out, default=None)


def _quote(market: Market, mint_in: str, amount: int) -> PoolQuote | None:
    """Return the quote for the whole amount; None where there is none, or for less."""
    try:
        quote = market.quote(mint_in, amount)
    except NoQuoteError:
        return None
    return quote if quote.amount_in == amount else None
