"""Candles: sums and prices of the trades of a mint against a quote mint in an interval. Exact, in any order. Pure."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from headrace.model.amounts import PRICE_DIGITS, ratio_text
from headrace.model.trades import PRICED_UNITS_MIN

MINUTE_S: Final = 60
INTERVALS_S: Final[Mapping[str, int]] = MappingProxyType(
    {"1s": 1, "5s": 5, "15s": 15, "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "1d": 86_400}
)
"""Lengths of intervals in seconds, by name. An interval begins at a multiple of its length in Unix time."""


class CandleKey(NamedTuple):
    """Mint, quote mint, and start of the minute (Unix seconds) of a minute candle."""

    mint: str
    quote_mint: str
    time_s: int


class Price(NamedTuple):
    """Price of the trade with this row number: `quote / base`, both in base units."""

    row: int
    base: int
    quote: int


class Candle:
    """Candle of an interval that begins at `time_s`.

    Trades are ordered by their row number, so by slot, then arrival. `open`, `close`, `low` and `high` are the first,
    last, lowest and highest price, counting only trades large enough to set a price; None if no trade is.
    `base_amount` and `quote_amount` are sums over all trades, in base units. `decimals` belongs to the base,
    `quote_decimals` to the quote; None where not known.
    """

    __slots__ = (
        "base_amount",
        "close",
        "decimals",
        "first",
        "high",
        "last",
        "low",
        "open",
        "quote_amount",
        "quote_decimals",
        "time_s",
        "trades",
    )

    def __init__(self, time_s: int) -> None:
        self.time_s = time_s
        self.trades = self.base_amount = self.quote_amount = 0
        self.first, self.last = 0, -1
        self.open: Price | None = None
        self.close: Price | None = None
        self.high: Price | None = None
        self.low: Price | None = None
        self.decimals: int | None = None
        self.quote_decimals: int | None = None

    def add(self, row: int, base: int, quote: int) -> None:
        """Count one trade."""
        self.first = min(self.first, row) if self.trades else row
        self.last = max(self.last, row)
        self.trades += 1
        self.base_amount += base
        self.quote_amount += quote
        if base < PRICED_UNITS_MIN or quote < PRICED_UNITS_MIN:
            return
        price = Price(row, base, quote)
        if self.open is None or self.close is None or self.high is None or self.low is None:
            self.open = self.close = self.high = self.low = price
            return
        if row < self.open.row:
            self.open = price
        if row >= self.close.row:
            self.close = price
        if quote * self.high.base > self.high.quote * base:
            self.high = price
        elif quote * self.low.base < self.low.quote * base:
            self.low = price

    def merge(self, other: "Candle") -> None:
        """Add the trades of another candle, none of which this candle has counted."""
        if not other.trades:
            return
        self.first = min(self.first, other.first) if self.trades else other.first
        self.last = max(self.last, other.last)
        self.trades += other.trades
        self.base_amount += other.base_amount
        self.quote_amount += other.quote_amount
        if other.open is None or other.close is None or other.high is None or other.low is None:
            return
        if self.open is None or self.close is None or self.high is None or self.low is None:
            self.open, self.close, self.high, self.low = other.open, other.close, other.high, other.low
            return
        self.open = min(self.open, other.open)
        self.close = max(self.close, other.close)
        if other.high.quote * self.high.base > self.high.quote * other.high.base:
            self.high = other.high
        if other.low.quote * self.low.base < self.low.quote * other.low.base:
            self.low = other.low

    def text(self, price: Price | None) -> str | None:
        """Return a price in whole quote tokens for one whole base token; None if the price or decimals are unknown.

        As in `market` messages, the text is exact, except that digits after the 12th are cut off.
        """
        if price is None or self.decimals is None or self.quote_decimals is None:
            return None
        return ratio_text(price.quote * 10**self.decimals, price.base * 10**self.quote_decimals, PRICE_DIGITS)


def shown(candle: Candle) -> dict[str, Any]:
    """Return a candle as clients see it: prices as text, amounts in base units as text."""
    return {
        "time": candle.time_s,
        "open": candle.text(candle.open),
        "high": candle.text(candle.high),
        "low": candle.text(candle.low),
        "close": candle.text(candle.close),
        "base_amount": str(candle.base_amount),
        "quote_amount": str(candle.quote_amount),
        "trades": candle.trades,
    }


def is_counted(base: int, quote: int) -> bool:
    """Return whether both amounts are above zero. Only such trades count in candles."""
    return base > 0 and quote > 0


def folded(candles: Iterable[Candle], interval_s: int) -> list[Candle]:
    """Merge candles into candles of the longer interval `interval_s`; return them, oldest first."""
    found: dict[int, Candle] = {}
    for candle in candles:
        time_s = candle.time_s // interval_s * interval_s
        found.setdefault(time_s, Candle(time_s)).merge(candle)
    return [found[time_s] for time_s in sorted(found) if found[time_s].trades]
