"""A swap in progress on Raydium's CLMM, which moves the price in the same steps as the program."""

from typing import Final, NamedTuple

import msgspec

from headrace.programs.quoting import TOO_LARGE, U64_MAX, NoQuoteError, ceil_div
from headrace.programs.ranges import Range, price_after_input, price_after_output
from headrace.programs.ticks import Q64, TICK_MAX, sqrt_price_at, tick_at

RATE_WHOLE: Final = 1_000_000
RATE_MAX: Final = 100_000
"""Highest rate of base fee and dynamic fee together, in millionths."""
VOLATILITY_SCALE: Final = 10_000
REDUCTION_WHOLE: Final = 10_000
CONTROL_WHOLE: Final = 100_000


class Tick(NamedTuple):
    """Tick with liquidity or orders. `number` is its index, `orders` the output that its limit orders still offer."""

    number: int
    liquidity_net: int
    has_liquidity: bool
    orders: int


class Fill(NamedTuple):
    """Result of a swap. `calculated` is the amount of the other side; protocol and fund fee are parts of `fee`."""

    calculated: int
    fee: int
    protocol_fee: int
    fund_fee: int


class DynamicFee(msgspec.Struct, frozen=True, kw_only=True):
    """Fee that grows with the square of the price's move, and decays with time. Periods are in seconds."""

    filter_period: int
    decay_period: int
    reduction_factor: int
    control: int
    volatility_max: int
    group_reference: int
    volatility_reference: int
    volatility: int
    updated: int

    def at(self, tick: int, spacing: int, now: int) -> "DynamicFee":
        """Return the state at the start of a swap at this time."""
        passed = max(0, now - self.updated)
        if passed < self.filter_period:
            return self
        kept = self.volatility * self.reduction_factor // REDUCTION_WHOLE if passed < self.decay_period else 0
        return msgspec.structs.replace(self, group_reference=tick // spacing, volatility_reference=kept, updated=now)

    def moved(self, group: int) -> "DynamicFee":
        """Return the state with the price in this group of ticks."""
        volatility = self.volatility_reference + abs(self.group_reference - group) * VOLATILITY_SCALE
        return msgspec.structs.replace(self, volatility=min(volatility, self.volatility_max))

    @property
    def capped(self) -> bool:
        """Return whether the fee has its highest value."""
        return self.volatility == self.volatility_max

    def rate(self, spacing: int) -> int:
        """Return the rate in millionths; rounds up."""
        crossed = self.volatility * spacing
        return min(
            ceil_div(self.control * crossed * crossed, CONTROL_WHOLE * VOLATILITY_SCALE * VOLATILITY_SCALE), RATE_MAX
        )


class Step(NamedTuple):
    """One move of the price within one range."""

    sqrt_price: int
    amount_in: int
    amount_out: int
    fee: int


class SwapState:
    """State of a swap so far. `remaining` is the part of the requested amount, in or out, that is not swapped yet."""

    def __init__(
        self,
        *,
        remaining: int,
        tick: int,
        sqrt_price: int,
        liquidity: int,
        first_in: bool,
        exact_out: bool,
        on_input: bool,
        spacing: int,
        base_rate: int,
        shares: tuple[int, int],
        dynamic_fee: DynamicFee | None,
    ) -> None:
        self.remaining, self.tick, self.sqrt_price, self.liquidity = remaining, tick, sqrt_price, liquidity
        self._first_in, self._exact_out, self._on_input = first_in, exact_out, on_input
        self._spacing, self._base_rate, self._shares = spacing, base_rate, shares
        self._dynamic_fee = dynamic_fee
        self._group = tick // spacing
        self._calculated = self._fee = self._protocol_fee = self._fund_fee = 0

    def fill(self) -> Fill:
        """Return the result of the swap. Raises NoQuoteError if an amount exceeds the program's integers."""
        if self._calculated > U64_MAX:
            raise NoQuoteError(TOO_LARGE, f"{self._calculated}, expected at most {U64_MAX}")
        return Fill(self._calculated, self._fee, self._protocol_fee, self._fund_fee)

    def go_to(self, tick: Tick, limit: int) -> None:
        """Move the price to the next tick and across it. Stop before it if nothing remains."""
        index = min(max(tick.number, -TICK_MAX), TICK_MAX)
        at_tick = sqrt_price_at(index)
        target = max(at_tick, limit) if self._first_in else min(at_tick, limit)
        liquidity = self.liquidity
        while True:
            if self._dynamic_fee is not None:
                self._dynamic_fee = self._dynamic_fee.moved(self._group)
            rate = self._rate()
            bound, bound_tick, skipping = self._bound(target)
            price = bound
            if self.sqrt_price != bound:
                step = self._step(bound, rate)
                self._apply(step)
                price = step.sqrt_price
            if price == at_tick:
                orders = self._match(tick.orders, at_tick, rate)
                if tick.has_liquidity and not orders:
                    liquidity = self.liquidity + (-tick.liquidity_net if self._first_in else tick.liquidity_net)
                self.tick = index - 1 if self._first_in == (orders == 0) else index
            elif price != self.sqrt_price:
                self.tick = bound_tick if bound_tick is not None and price == bound else tick_at(price)
            self.sqrt_price = price
            self._next_group(index, at_tick, skipping=skipping)
            if not self.remaining or price == target:
                break
        self.liquidity = liquidity

    def _rate(self) -> int:
        if self._dynamic_fee is None:
            return self._base_rate
        return min(self._base_rate + self._dynamic_fee.rate(self._spacing), RATE_MAX)

    def _bound(self, target: int) -> tuple[int, int | None, bool]:
        """Return how far one fee rate applies: (price, tick if a group ends there, whether groups are skipped)."""
        if self._dynamic_fee is None or not self.liquidity or self._dynamic_fee.capped:
            return target, None, True
        bound = (self._group if self._first_in else self._group + 1) * self._spacing
        bound = min(max(bound, -TICK_MAX), TICK_MAX)
        price = sqrt_price_at(bound)
        if target > price if self._first_in else target < price:
            return target, None, False
        return price, bound, False

    def _next_group(self, index: int, at_tick: int, *, skipping: bool) -> None:
        """Continue with the next group of ticks; if groups were skipped, from the price's group."""
        if self._dynamic_fee is None:
            return
        if skipping:
            tick = index if self.sqrt_price == at_tick else self.tick
            self._group = tick // self._spacing
            if not self._first_in and tick % self._spacing == 0:
                self._group -= 1
            if not self._dynamic_fee.capped:
                self._dynamic_fee = self._dynamic_fee.moved(self._group)
        self._group += -1 if self._first_in else 1

    def _step(self, target: int, rate: int) -> Step:
        """Return the move towards the price `target`, as far as `remaining` allows. Fees and inputs round up."""
        remaining, whole = self.remaining, RATE_WHOLE
        priced = remaining
        if self._on_input and not self._exact_out:
            priced = remaining * (whole - rate) // whole
        elif not self._on_input and self._exact_out:
            priced = ceil_div(remaining * whole, whole - rate)
        price = target
        amount_in, amount_out = self._between(target)
        reached = max(amount_in, amount_out) <= U64_MAX and priced >= (amount_out if self._exact_out else amount_in)
        if not reached:
            price = self._price_after(priced)
            amount_in, amount_out = self._between(price)
        if self._exact_out:
            if self._on_input:
                return Step(price, amount_in, min(amount_out, remaining), ceil_div(amount_in * rate, whole - rate))
            fee = ceil_div(amount_out * rate, whole)
            if amount_out - fee > remaining:
                fee = amount_out - remaining
            return Step(price, amount_in, amount_out - fee, fee)
        if self._on_input:
            fee = remaining - amount_in if price != target else ceil_div(amount_in * rate, whole - rate)
            return Step(price, amount_in, amount_out, fee)
        fee = ceil_div(amount_out * rate, whole)
        return Step(price, remaining if price != target else amount_in, amount_out - fee, fee)

    def _between(self, price: int) -> tuple[int, int]:
        """Return the input (rounded up) and the output (rounded down) of a swap that moves the price to `price`."""
        low, high = sorted((self.sqrt_price, price))
        crossed = Range(low, high, self.liquidity << 64)
        first, second = crossed.first(up=self._first_in), crossed.second(up=not self._first_in)
        return (first, second) if self._first_in else (second, first)

    def _price_after(self, amount: int) -> int:
        move = price_after_output if self._exact_out else price_after_input
        return move(self.sqrt_price, self.liquidity << 64, amount, first_in=self._first_in)

    def _match(self, orders: int, at_tick: int, rate: int) -> int:
        """Fill limit orders at the price of their tick; return the output that they still offer."""
        if not self.remaining or not orders:
            return orders
        square = at_tick * at_tick
        price = square >> 64 if self._first_in else ceil_div(square, Q64)
        fee = 0
        if self._exact_out:
            out = min(self.remaining, orders)
            if not self._on_input:
                out = min(ceil_div(out * RATE_WHOLE, RATE_WHOLE - rate), orders)
            taken = self._input_for(out, price)
            if self._on_input:
                fee = ceil_div(taken * rate, RATE_WHOLE - rate)
        else:
            fee = ceil_div(self.remaining * rate, RATE_WHOLE) if self._on_input else 0
            taken = self.remaining - fee
            out = taken * price >> 64 if self._first_in else taken * Q64 // price
            if out > orders:
                out, taken = orders, self._input_for(orders, price)
                fee = ceil_div(taken * rate, RATE_WHOLE - rate) if self._on_input else 0
        left = orders - out
        if not self._on_input:
            fee = ceil_div(out * rate, RATE_WHOLE)
            out -= fee
        self._apply(Step(at_tick, taken, out, fee))
        return left

    def _input_for(self, out: int, price: int) -> int:
        """Return the input of limit orders for an output of `out`; rounds up."""
        return ceil_div(out * Q64, price) if self._first_in else ceil_div(out * price, Q64)

    def _apply(self, step: Step) -> None:
        taken = step.amount_in + step.fee if self._on_input else step.amount_in
        asked, other = (step.amount_out, taken) if self._exact_out else (taken, step.amount_out)
        self.remaining -= asked
        self._calculated += other
        self._fee += step.fee
        protocol, fund = (step.fee * rate // RATE_WHOLE for rate in self._shares)
        self._fund_fee += fund
        self._protocol_fee += protocol if self.liquidity else step.fee - fund
