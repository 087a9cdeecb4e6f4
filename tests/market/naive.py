"""Market numbers the slow way: all trades are kept, and everything is reckoned anew, in fractions."""

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

DAY_MINUTES = 1440
DUST_UNITS = 1000


class Told(NamedTuple):
    """A trade as the model keeps it, in the order of time, slot and arrival."""

    minute: int
    slot: int
    nth: int
    base: int
    quote: int
    time_s: int


class Numbers(NamedTuple):
    """What messages should say; price and change as exact fractions, volume and cap in base units of the quote."""

    price: Fraction
    change: Fraction
    volume: int
    since: int
    slot: int


def numbers(trades: Iterable[Told]) -> Numbers | None:
    """Price and change are in base units of quote for one of base; None without a trade that has a price."""
    ordered = sorted(trades)
    priced = [t for t in ordered if t.base >= DUST_UNITS and t.quote >= DUST_UNITS]
    if not priced:
        return None
    window_begins = ordered[-1].minute - DAY_MINUTES + 1
    window = [t for t in ordered if t.minute >= window_begins]
    before = [t for t in priced if t.minute < window_begins]
    last, reference = priced[-1], before[-1] if before else priced[0]
    price, then = Fraction(last.quote, last.base), Fraction(reference.quote, reference.base)
    return Numbers(
        price=price,
        change=(price - then) / then * 100,
        volume=sum(t.quote for t in window),
        since=window_begins * 60 if before else reference.time_s,
        slot=ordered[-1].slot,
    )


def cut(exact: Fraction, digits: int) -> Decimal:
    """Cut towards zero after so many digits behind the point."""
    scaled = abs(exact) * 10**digits
    units = Decimal(int(scaled)).scaleb(-digits)
    return -units if exact < 0 else units


def cut_significant(exact: Fraction, digits: int) -> Decimal:
    """A positive fraction cut to so many significant digits; digits before the point stay."""
    behind = 0
    while exact * 10**behind < 10 ** (digits - 1) and behind < 400:
        behind += 1
    return cut(exact, behind)
