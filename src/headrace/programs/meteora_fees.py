"""Fees of Meteora's programs: a schedule by time or price, or a limiter by size, plus a part by volatility."""

from math import isqrt
from typing import Final

import msgspec

from headrace.programs.quoting import BPS, TOO_LARGE, U64_MAX, UNSUPPORTED, NoQuoteError, ceil_div

FEE_WHOLE: Final = 1_000_000_000
LINEAR, EXPONENTIAL, LIMITER, CAP_LINEAR, CAP_EXPONENTIAL = range(5)
"""Values of `base_fee_mode`: the fee depends on time, on the size of a purchase, or on the price since the start."""
_ONE: Final = 1 << 64


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Base fee that falls step by step. Rates are in parts of FEE_WHOLE. A point is a slot or a time."""

    mode: int
    cliff: int
    periods: int
    frequency: int
    """Points in a step; for a schedule by price, bps of the price's square root in a step."""
    reduction: int
    expires: int = 0
    """Points after activation from which the last step applies. Only for a schedule by price."""

    def rate(self, point: int, activation: int, start_price: int, price: int) -> int:
        """Return the fee rate at this point in time (slot or second) and at `price`, a square root."""
        if self.mode in (LINEAR, EXPONENTIAL):
            if not self.frequency:
                return self.cliff
            step = self.periods if point < activation else (point - activation) // self.frequency
        elif point > activation + self.expires or point < activation:
            step = self.periods
        elif price <= start_price:
            step = 0
        else:
            step = (price - start_price) * BPS // start_price // self.frequency
        return self._at(min(step, self.periods))

    def _at(self, step: int) -> int:
        if self.mode in (LINEAR, CAP_LINEAR):
            return self.cliff - self.reduction * step
        return self.cliff * power(_ONE - (self.reduction << 64) // BPS, step) >> 64 if self.reduction else self.cliff


def power(base: int, exponent: int) -> int:
    """Return base^exponent in 64.64 fixed point for a base below one; each product rounds down."""
    result = _ONE
    while exponent:
        if exponent & 1:
            result = result * base >> 64
        base = base * base >> 64
        exponent >>= 1
    return result


class Limiter(msgspec.Struct, frozen=True, kw_only=True):
    """Base fee on purchases that grows with their size: by `increment` for each further `reference` amount."""

    cliff: int
    increment: int
    most: int
    reference: int
    duration: int

    def applies(self, point: int, activation: int) -> bool:
        """Return whether purchases are limited at this point."""
        some = self.reference or self.duration or self.increment
        return bool(some) and activation <= point <= activation + self.duration

    def rate(self, amount: int) -> int:
        """Return the rate for an amount that includes its fee; rounds up."""
        if amount <= self.reference:
            return self.cliff
        steps, rest = divmod(amount - self.reference, self.reference)
        cliff, more, last = self.cliff, self.increment, self._steps()
        whole = min(steps, last)
        fee = self.reference * (cliff + cliff * whole + more * whole * (whole + 1) // 2)
        if steps < last:
            fee += rest * (cliff + more * (steps + 1))
        else:
            fee += ((steps - last) * self.reference + rest) * self.most
        return ceil_div(ceil_div(fee, FEE_WHOLE) * FEE_WHOLE, amount)

    def rate_on_top(self, net: int) -> int:
        """Return the rate for an amount without its fee."""
        if net <= self._without_fee(self.reference):
            return self.cliff
        most = (self._steps() + 1) * self.reference
        most_net = self._without_fee(min(most, U64_MAX))
        if net == most_net:
            return self.rate(min(most, U64_MAX))
        if net < most_net:
            gross = self._with_fee(net)
        elif most > U64_MAX:
            raise NoQuoteError(TOO_LARGE, f"{net} with its fee")
        else:
            gross = most + with_fee(net - most_net, self.most)
        return ceil_div((gross - net) * FEE_WHOLE, gross)

    def _with_fee(self, net: int) -> int:
        """Return the amount that leaves `net` after its fee.

        Whole steps follow from the root of a quadratic equation; the remainder is then added with its fee.
        """
        more, reference = self.increment, self.reference
        linear = 2 * FEE_WHOLE * reference + more * reference - 2 * self.cliff * reference
        root = isqrt(linear * linear - 4 * more * 2 * net * FEE_WHOLE * reference)
        gross = (linear - root) // (2 * more)
        return gross + with_fee(net - self._without_fee(gross), self.cliff + more * (gross // reference))

    def _steps(self) -> int:
        return (self.most - self.cliff) // self.increment

    def _without_fee(self, amount: int) -> int:
        return amount - ceil_div(amount * self.rate(amount), FEE_WHOLE)


def with_fee(net: int, rate: int) -> int:
    """Return the amount that leaves `net` after the fee; rounds up."""
    return ceil_div(net * FEE_WHOLE, FEE_WHOLE - rate)


class TradeFee(msgspec.Struct, frozen=True, kw_only=True):
    """Whole fee of a pool at one time and price: base part plus volatility part, at most `most`."""

    base: Schedule | Limiter
    most: int
    variable: int
    point: int
    activation: int
    start_price: int
    price: int

    def rate(self, amount: int, *, buying: bool, on_top: bool = False) -> int:
        """Return the rate for an amount that includes the fee, or excludes it with `on_top`.

        `buying` is True for a purchase of the first token.
        """
        if isinstance(self.base, Schedule):
            base = self.base.rate(self.point, self.activation, self.start_price, self.price)
        elif not buying or not self.base.applies(self.point, self.activation):
            base = self.base.cliff
        else:
            base = self.base.rate_on_top(amount) if on_top else self.base.rate(amount)
        return min(base + self.variable, self.most)


def variable_rate(volatility: int, bin_step: int, control: int) -> int:
    """Return the part of the fee that depends on volatility; rounds up."""
    crossed = volatility * bin_step
    return ceil_div(crossed * crossed * control, 100_000_000_000)


def known_mode(mode: int, *modes: int) -> int:
    """Return the mode. Raises NoQuoteError if it is not one of `modes`."""
    if mode not in modes:
        raise NoQuoteError(UNSUPPORTED, f"base fee mode {mode}")
    return mode
