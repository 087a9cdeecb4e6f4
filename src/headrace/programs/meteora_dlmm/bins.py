"""One bin of Meteora's DLMM: its output for an input at its price, and its fee."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, Self

import msgspec

from headrace.programs.meteora_fees import FEE_WHOLE, power, variable_rate
from headrace.programs.quoting import BPS, TOO_LARGE, U64_MAX, NoQuoteError, ceil_div

FEE_MAX: Final = 100_000_000
ORDER_FEE_SHARE: Final = 5_000
"""Share of the fee on limit orders, in bps, that goes to the users who placed the orders."""
_ONE: Final = 1 << 64
_U128_MAX: Final = (1 << 128) - 1


@lru_cache(maxsize=16384)
def price_of(number: int, bin_step: int) -> int:
    """Return the price of a bin: (1 + step)^number in 64.64 fixed point, each product rounded down."""
    inverse = _U128_MAX // (_ONE + (bin_step << 64) // BPS)
    result = power(inverse, abs(number))
    if not result:
        raise NoQuoteError(TOO_LARGE, f"bin {number} of step {bin_step} has no price")
    return _U128_MAX // result if number > 0 else result


class Fees(msgspec.Struct, frozen=True, kw_only=True):
    """Fee of a pair at one time: a base rate, and a variable rate that depends on how many bins the price has moved."""

    base: int
    control: int
    bin_step: int
    volatility_max: int
    volatility_reference: int
    reference: int
    protocol_share: int
    rate: int = 0
    """Rate in parts of FEE_WHOLE, set by `moved`."""

    @classmethod
    def at(cls, static: Mapping[str, int], variable: Mapping[str, int], active: int, step: int, now: int) -> Self:
        """Return the fee at the start of a swap at this time (s); the effect of earlier price moves decays."""
        passed = now - variable["last_update_timestamp"]
        reference, kept = variable["index_reference"], variable["volatility_reference"]
        if passed >= static["filter_period"]:
            reference, kept = active, 0
            if passed < static["decay_period"]:
                kept = variable["volatility_accumulator"] * static["reduction_factor"] // BPS
        power = static.get("base_fee_power_factor") or 0
        return cls(
            base=static["base_factor"] * step * 10 * 10**power,
            control=static["variable_fee_control"],
            bin_step=step,
            volatility_max=static["max_volatility_accumulator"],
            volatility_reference=kept,
            reference=reference,
            protocol_share=static["protocol_share"],
        )

    def moved(self, number: int) -> Self:
        """Return the fee in this bin; the variable part rounds up."""
        volatility = min(self.volatility_reference + abs(self.reference - number) * BPS, self.volatility_max)
        variable = variable_rate(volatility, self.bin_step, self.control)
        return msgspec.structs.replace(self, rate=min(self.base + variable, FEE_MAX))

    def within(self, amount: int) -> int:
        """Return the fee that is part of an amount; rounds up."""
        return ceil_div(amount * self.rate, FEE_WHOLE)

    def on_top(self, amount: int) -> int:
        """Return the fee that is added to an amount; rounds up."""
        return ceil_div(amount * self.rate, FEE_WHOLE - self.rate)

    def protocol(self, fee: int, from_makers: int, total: int) -> int:
        """Return the protocol's part of a fee, if market makers filled `from_makers` of `total`."""
        if not total or not fee:
            return 0
        makers = ceil_div(fee * from_makers, total)
        orders = fee - makers
        return orders - orders * ORDER_FEE_SHARE // BPS + makers * self.protocol_share // BPS


class Part(NamedTuple):
    """Swap in one bin. `amount_in` includes a fee on the input; a fee on the output is taken off `amount_out`."""

    amount_in: int
    amount_out: int
    fee: int
    protocol_fee: int


class Bin(NamedTuple):
    """One bin for one direction of swaps. `layers`: market makers' liquidity, older limit orders, newer ones."""

    price: int
    for_y: bool
    layers: tuple[int, int, int]

    @classmethod
    def of(cls, content: Mapping[str, Any], number: int, bin_step: int, *, for_y: bool, takes_orders: bool) -> "Bin":
        """Return a bin from its fields."""
        makers: int = content["amount_y" if for_y else "amount_x"]
        layers = (makers, 0, 0)
        if takes_orders and bool(content.get("limit_order_ask_side")) != for_y:
            processed, opened = content.get("processed_order_remaining_amount"), content.get("open_order_amount")
            layers = (makers, processed or 0, opened or 0)
        return cls(content["price"] or price_of(number, bin_step), for_y, layers)

    @property
    def holds(self) -> int:
        """Maximum output of the bin."""
        return sum(self.layers)

    def exact_in(self, amount: int, fees: Fees, on_input: bool) -> Part:
        """Return the swap of `amount`, or of as much of `amount` as the bin can take."""
        fee = fees.within(amount) if on_input else 0
        taken = amount
        left = amount - fee
        makers, filled, out = 0, 0, 0
        for number, layer in enumerate(self.layers):
            if not left or not layer:
                continue
            most = self.input_for(layer)
            part = min(left, most)
            out += layer if left >= most else self._output_for(left)
            left, filled = left - part, filled + part
            makers += 0 if number else part
        if left:
            fee = fees.on_top(filled) if on_input else 0
            taken = filled + fee
        if not on_input:
            fee = fees.within(out)
            out -= fee
        return Part(taken, out, fee, fees.protocol(fee, makers, filled))

    def exact_out(self, amount: int, fees: Fees, on_input: bool) -> Part:
        """Return the swap with an output of `amount`, or of all that the bin holds."""
        gross = amount if on_input else amount + fees.on_top(amount)
        if gross >= self.holds:
            return self.exact_in(U64_MAX, fees, on_input)
        taken, left = 0, gross
        for layer in self.layers:
            part = min(left, layer)
            taken, left = taken + self.input_for(part), left - part
        part_of = self.exact_in(taken + fees.on_top(taken) if on_input else taken, fees, on_input)
        excess = part_of.amount_out - amount
        return part_of._replace(amount_out=amount, protocol_fee=part_of.protocol_fee + (excess if excess > 1 else 0))

    def input_for(self, out: int) -> int:
        """Return the input for an output of `out`, without fees; rounds up."""
        return ceil_div(out << 64, self.price) if self.for_y else ceil_div(out * self.price, _ONE)

    def _output_for(self, amount: int) -> int:
        return amount * self.price >> 64 if self.for_y else (amount << 64) // self.price
