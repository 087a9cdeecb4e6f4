"""Amounts in a range of prices with constant liquidity, and the price after a swap in it, as the programs compute them.

Prices are given by their square roots. These, and liquidity, have 64 fractional bits.
"""

import msgspec

from headrace.programs.quoting import TOO_LARGE, NoQuoteError, ceil_div


class Range(msgspec.Struct, frozen=True):
    """Liquidity between two square roots of prices, low and high. All three have 64 fractional bits."""

    low: int
    high: int
    liquidity: int

    def first(self, *, up: bool) -> int:
        """Return the amount of the first token in the range. Rounds up if `up`, else down."""
        number, by = self.liquidity * (self.high - self.low), self.low * self.high
        return ceil_div(number, by) if up else number // by

    def second(self, *, up: bool) -> int:
        """Return the amount of the second token in the range. Rounds up if `up`, else down."""
        number = self.liquidity * (self.high - self.low)
        return ceil_div(number, 1 << 128) if up else number >> 128


def price_after_input(price: int, liquidity: int, amount: int, *, first_in: bool) -> int:
    """Return the square root of the price after an input of `amount`. Rounds so that the price moves less."""
    if first_in:
        return ceil_div(liquidity * price, liquidity + amount * price)
    return price + (amount << 128) // liquidity


def price_after_output(price: int, liquidity: int, amount: int, *, first_in: bool) -> int:
    """Return the square root of the price after an output of `amount`. Raises NoQuoteError if the range has less."""
    if first_in:
        after = price - ceil_div(amount << 128, liquidity)
    else:
        left = liquidity - amount * price
        after = ceil_div(liquidity * price, left) if left > 0 else 0
    if after <= 0:
        raise NoQuoteError(TOO_LARGE, f"{amount}, and the range holds less")
    return after


def at_spot(amount: int, price: int, *, first_in: bool) -> int:
    """Return the output of `amount` at this square root of the price; rounds down."""
    square = price * price
    return amount * square >> 128 if first_in else (amount << 128) // square
