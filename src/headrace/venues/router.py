"""Finds the route with the highest output: one pool, two pools in sequence, or a split over several pools of one pair.

Pure. Markets quote exactly. A route with more pools needs a larger transaction; the caller weighs that cost.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from headrace.model.keys import USDC_MINT, WSOL_MINT
from headrace.programs.quoting import Market, NoQuoteError, PoolQuote

THROUGH: Final = (WSOL_MINT, USDC_MINT)
"""Mints that may be the intermediate mint of a route over two pools."""
PARTS: Final = 16
"""Number of equal parts into which a split first divides the amount.

Each part goes to the pool that pays most for it.
"""
HALVINGS: Final = 6
"""Number of times that the parts are halved afterwards.

Parts of each size move between pools while the output grows.
"""
MOVES_MAX: Final = 64
"""Maximum number of moves of parts of one size, to limit the time."""
NO_ROUTE: Final = "no_route"


class Candidate(NamedTuple):
    """Pool that a route may use, with its two mints and its state."""

    mints: tuple[str, str]
    market: Market


class Route(NamedTuple):
    """Way from one mint to another. The amount is divided among paths; a path lists its pools' quotes in order."""

    paths: tuple[tuple[PoolQuote, ...], ...]

    @property
    def amount_in(self) -> int:
        """Return the input of all paths together."""
        return sum(path[0].amount_in for path in self.paths)

    @property
    def amount_out(self) -> int:
        """Return the output of all paths together."""
        return sum(path[-1].amount_out for path in self.paths)


def best_route(
    candidates: Iterable[Candidate], mint_in: str, mint_out: str, amount: int, through: Sequence[str] = THROUGH
) -> Route:
    """Return the route with the highest output for the whole amount.

    Of equal routes, return the one with the fewest pools.
    Raises NoQuoteError if no route has a quote for the whole amount.
    """
    return routes_of(candidates, mint_in, mint_out, amount, through)[0]


def routes_of(
    candidates: Iterable[Candidate], mint_in: str, mint_out: str, amount: int, through: Sequence[str] = THROUGH
) -> list[Route]:
    """Return all routes for the whole amount, the best first. Raises NoQuoteError if there is none."""
    known = list(candidates)
    direct = _markets(known, mint_in, mint_out)
    routes = [Route(((quote,),)) for quote in _quotes(direct, mint_in, amount)]
    if len(direct) > 1:
        routes.append(split(direct, mint_in, amount))
    routes += two_hops(known, mint_in, mint_out, amount, through)
    routes = [route for route in routes if route.paths]
    if not routes:
        raise NoQuoteError(NO_ROUTE, f"from {mint_in} to {mint_out}")
    return sorted(routes, key=lambda route: (-route.amount_out, sum(map(len, route.paths))))


def cheapest_route(
    candidates: Iterable[Candidate], mint_in: str, mint_out: str, amount: int, through: Sequence[str] = THROUGH
) -> Route:
    """Return the route over one or two pools with the lowest input that brings at least `amount` of `mint_out`.

    The first pool of two brings at least what the second takes. Raises NoQuoteError if no route brings so much.
    """
    known = list(candidates)
    routes = [Route(((quote,),)) for quote in _costs(known, mint_in, mint_out, amount)]
    for middle in through:
        if middle in (mint_in, mint_out):
            continue
        second = _cheapest(_costs(known, middle, mint_out, amount))
        first = None if second is None else _cheapest(_costs(known, mint_in, middle, second.amount_in))
        if first is not None and second is not None and first.pool != second.pool:
            routes.append(Route(((first, second),)))
    if not routes:
        raise NoQuoteError(NO_ROUTE, f"from {mint_in} to {mint_out}")
    return min(routes, key=lambda route: (route.amount_in, len(route.paths[0])))


def _costs(candidates: Sequence[Candidate], mint_in: str, mint_out: str, amount: int) -> list[PoolQuote]:
    """Return the quotes that bring at least `amount`; a pool that has less gives a quote for less, or none."""
    found = []
    for market in _markets(candidates, mint_in, mint_out):
        try:
            quote = market.quote(mint_in, amount, exact_out=True)
        except NoQuoteError:
            continue
        if quote.amount_out >= amount:
            found.append(quote)
    return found


def _cheapest(quotes: Sequence[PoolQuote]) -> PoolQuote | None:
    return min(quotes, key=lambda quote: quote.amount_in, default=None)


def two_hops(
    candidates: Sequence[Candidate], mint_in: str, mint_out: str, amount: int, through: Sequence[str] = THROUGH
) -> list[Route]:
    """Return the best route over two pools for each mint of `through`.

    The first pool's output is the second's input.
    """
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
    """Return the best split of an amount over pools of one pair. The route has no paths if the pools can't take it all.

    Each pool pays less for each further part. So for parts of one size, it is best to give every part to the pool that
    pays most for it. Smaller parts then move until the prices of the pools meet.
    If the amount is so small that a part yields only a few base units, rounding decides, and a split can be worse than
    one pool.
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
    """One pool's share of a split: `amount` is the pool's input, `brings` its output."""

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
        """Return how much more the pool pays with this part added; negative for a negative part. None: no quote."""
        if self.amount + part == 0:
            return -self.brings
        quote = self.at(self.amount + part) if self.amount + part > 0 else None
        return None if quote is None else quote.amount_out - self.brings

    def take(self, part: int) -> None:
        self.amount += part
        self.quote = self.at(self.amount) if self.amount else None
        self.brings = 0 if self.quote is None else self.quote.amount_out


def _give(pools: Sequence[_Share], part: int) -> bool:
    """Give a part to the pool that pays most for it. Return whether any pool took the part."""
    gains = [(gain, -number) for number, pool in enumerate(pools) if (gain := pool.gain(part)) is not None]
    if not gains:
        return False
    pools[-max(gains)[1]].take(part)
    return True


def _move(pools: Sequence[_Share], part: int) -> bool:
    """Move a part from one pool to another, where the move gains most. Return False if no move gains anything."""
    gains = [(gain, number) for number, pool in enumerate(pools) if (gain := pool.gain(part)) is not None]
    losses = [(loss, number) for number, pool in enumerate(pools) if (loss := pool.gain(-part)) is not None]
    best = max(((gain + loss, to, of) for gain, to in gains for loss, of in losses if to != of), default=(0, 0, 0))
    if best[0] <= 0:
        return False
    pools[best[1]].take(part)
    pools[best[2]].take(-part)
    return True


def _best(candidates: Sequence[Candidate], mint_in: str, mint_out: str, amount: int) -> PoolQuote | None:
    quotes = _quotes(_markets(candidates, mint_in, mint_out), mint_in, amount)
    return max(quotes, key=lambda quote: quote.amount_out, default=None)


def _markets(candidates: Sequence[Candidate], mint_in: str, mint_out: str) -> list[Market]:
    return [each.market for each in candidates if set(each.mints) == {mint_in, mint_out}]


def _quotes(markets: Sequence[Market], mint_in: str, amount: int) -> list[PoolQuote]:
    return [quote for market in markets if (quote := _quote(market, mint_in, amount)) is not None]


def _quote(market: Market, mint_in: str, amount: int) -> PoolQuote | None:
    """Return the quote for the whole amount. None: the pool has no quote, or quotes only a smaller amount."""
    try:
        quote = market.quote(mint_in, amount)
    except NoQuoteError:
        return None
    return quote if quote.amount_in == amount else None
