"""Quotes of Raydium's LaunchLab: a curve of one of three shapes, with all fees on the quote side."""

from collections.abc import Iterator
from math import isqrt
from typing import Final

import msgspec

from headrace.programs.quoting import (
    COMPLETE,
    MIGRATED,
    TOO_LARGE,
    UNSUPPORTED,
    Accounts,
    Clock,
    Curve,
    Fee,
    Mint,
    NoQuoteError,
    PoolQuote,
    ceil_div,
    checked,
    fees,
    find,
    key_fields,
    mint_fields,
    pda,
    read_mint,
    side,
    whole,
)

PROGRAM: Final = "LanMV9sAd7wArD4vJFi2qDdfnVhFxYSUg6eADduJ3uj"
RATE_WHOLE: Final = 1_000_000
CONSTANT_PRODUCT, FIXED_PRICE, LINEAR_PRICE = range(3)
"""Values of `curve_type`."""
FUND, MIGRATE, TRADE = range(3)
"""Values of `status`: the curve sells, its coin waits for migration to a pool, or the coin trades in the pool."""
TWICE_Q64: Final = 2 << 64


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Fee rates in millionths of the quote amount."""

    protocol: int
    platform: int
    creator: int

    def total(self) -> int:
        return self.protocol + self.platform + self.creator


class LaunchCurve(msgspec.Struct, frozen=True, kw_only=True):
    """State of one curve. `sold` of `for_sale` base units are sold; buyers paid `raised` for them."""

    key: str
    mints: tuple[Mint, Mint]
    curve_type: int
    virtual_base: int
    virtual_quote: int
    sold: int
    raised: int
    for_sale: int
    rates: Rates

    def quote(self, mint_in: str, amount: int, *, exact_out: bool = False) -> PoolQuote:
        """Return the quote. If a purchase asks for more than is left, the quote is for all that is left."""
        selling = side((self.mints[0].key, self.mints[1].key), mint_in, self.key)
        checked(amount)
        if selling:
            return self._sale_for(amount) if exact_out else self._sale_of(amount)
        if exact_out:
            return self._purchase_of(self.mints[0].fee.before(amount))
        return self._purchase_for(amount)

    def _purchase_for(self, amount: int) -> PoolQuote:
        taken = amount - self.mints[1].fee.of(amount)
        fee = ceil_div(taken * self.rates.total(), RATE_WHOLE)
        base = self._bought(taken - fee) if taken > fee else 0
        if base > self.for_sale - self.sold:
            return self._purchase_of(self.for_sale - self.sold)
        return self._purchase(amount, taken, fee, base)

    def _purchase_of(self, base: int) -> PoolQuote:
        """Return the quote of buying `base` units from the curve, or the remaining units. The cost rounds up."""
        base = min(base, self.for_sale - self.sold)
        cost = self._cost(base)
        taken = ceil_div(cost * RATE_WHOLE, RATE_WHOLE - self.rates.total())
        return self._purchase(checked(self.mints[1].fee.before(taken)), taken, taken - cost, base)

    def _purchase(self, amount_in: int, taken: int, fee: int, base: int) -> PoolQuote:
        first, second = self.mints
        transfer_out = first.fee.of(base)
        return PoolQuote(
            pool=self.key,
            mint_in=second.key,
            mint_out=first.key,
            amount_in=amount_in,
            amount_out=base - transfer_out,
            fees=(
                *fees(("transfer", second.key, amount_in - taken)),
                *self._fees(fee),
                *fees(("transfer", first.key, transfer_out)),
            ),
            impact=max(0, self._at_spot(taken - fee, buying=True) - base),
        )

    def _sale_of(self, amount: int) -> PoolQuote:
        taken = amount - self.mints[0].fee.of(amount)
        if taken > self.sold:
            raise NoQuoteError(TOO_LARGE, f"{taken}, and the curve has sold {self.sold}")
        gross = self._paid(taken) if taken else 0
        if gross > self.raised:
            raise NoQuoteError(TOO_LARGE, f"the curve would owe {gross} and has {self.raised}")
        return self._sale(amount, taken, gross, ceil_div(gross * self.rates.total(), RATE_WHOLE))

    def _sale_for(self, amount: int) -> PoolQuote:
        """Return the quote of a sale with an output of `amount`; the input rounds up."""
        net = self.mints[1].fee.before(amount)
        gross = ceil_div(net * RATE_WHOLE, RATE_WHOLE - self.rates.total())
        if gross > self.raised:
            raise NoQuoteError(TOO_LARGE, f"the curve would owe {gross} and has {self.raised}")
        taken = self._base_for(gross)
        if taken > self.sold:
            raise NoQuoteError(TOO_LARGE, f"{taken}, and the curve has sold {self.sold}")
        return self._sale(checked(self.mints[0].fee.before(taken)), taken, gross, gross - net)

    def _sale(self, amount_in: int, taken: int, gross: int, fee: int) -> PoolQuote:
        first, second = self.mints
        transfer_out = second.fee.of(gross - fee)
        return PoolQuote(
            pool=self.key,
            mint_in=first.key,
            mint_out=second.key,
            amount_in=amount_in,
            amount_out=gross - fee - transfer_out,
            fees=(
                *fees(("transfer", first.key, amount_in - taken)),
                *self._fees(fee),
                *fees(("transfer", second.key, transfer_out)),
            ),
            impact=max(0, self._at_spot(taken, buying=False) - gross),
        )

    def _fees(self, total: int) -> tuple[Fee, ...]:
        """Return the fee by recipient: shares round down, and the protocol gets the remainder."""
        rates, quote = self.rates, self.mints[1].key
        if not total:
            return ()
        platform, creator = (total * rate // rates.total() for rate in (rates.platform, rates.creator))
        parts = (("protocol", quote, total - platform - creator), ("platform", quote, platform))
        return fees(*parts, ("creator", quote, creator))

    def _bought(self, quote: int) -> int:
        """Return a purchase's output for `quote` after fees. Rounds down, on a linear curve to the nearest unit."""
        if self.curve_type == FIXED_PRICE:
            return quote * self.virtual_base // self.virtual_quote
        if self.curve_type == LINEAR_PRICE:
            return self._sold_at(self.raised + quote) - self.sold
        left, paid = self.virtual_base - self.sold, self.virtual_quote + self.raised
        return quote * left // (paid + quote)

    def _cost(self, base: int) -> int:
        """Return the cost of `base` before fees; rounds up."""
        if self.curve_type == FIXED_PRICE:
            return ceil_div(base * self.virtual_quote, self.virtual_base)
        if self.curve_type == LINEAR_PRICE:
            return self._raised_at(self.sold + base) - self.raised
        left, paid = self.virtual_base - self.sold, self.virtual_quote + self.raised
        if base >= left:
            raise NoQuoteError(TOO_LARGE, f"{base}, and the curve prices {left}")
        return ceil_div(base * paid, left - base)

    def _paid(self, base: int) -> int:
        """Return the curve's payment for `base` before fees; rounds down."""
        if self.curve_type == FIXED_PRICE:
            return base * self.virtual_quote // self.virtual_base
        if self.curve_type == LINEAR_PRICE:
            return self.raised - self._raised_at(self.sold - base)
        left, paid = self.virtual_base - self.sold, self.virtual_quote + self.raised
        return base * paid // (left + base)

    def _base_for(self, quote: int) -> int:
        """Return the input of a sale that pays `quote` before fees. Rounds up, on a linear curve to nearest."""
        if self.curve_type == FIXED_PRICE:
            return ceil_div(quote * self.virtual_base, self.virtual_quote)
        if self.curve_type == LINEAR_PRICE:
            return self.sold - self._sold_at(self.raised - quote)
        left, paid = self.virtual_base - self.sold, self.virtual_quote + self.raised
        if quote >= paid:
            raise NoQuoteError(TOO_LARGE, f"{quote}, and the curve prices {paid}")
        return ceil_div(quote * left, paid - quote)

    def _sold_at(self, raised: int) -> int:
        """Return the base units that a linear curve has sold for `raised`: a square root, to the nearest unit."""
        return (isqrt(4 * (raised * TWICE_Q64 // self.virtual_base)) + 1) // 2

    def _raised_at(self, sold: int) -> int:
        """Return the amount that a linear curve has raised once it has sold `sold`; rounds up."""
        return ceil_div(self.virtual_base * sold * sold, TWICE_Q64)

    def _at_spot(self, amount: int, *, buying: bool) -> int:
        """Return the output of `amount` at the price before the swap; rounds down."""
        if self.curve_type == FIXED_PRICE:
            base, quote = self.virtual_base, self.virtual_quote
        elif self.curve_type == LINEAR_PRICE:
            base, quote = 1 << 64, self.virtual_base * self.sold
        else:
            base, quote = self.virtual_base - self.sold, self.virtual_quote + self.raised
        if not quote:
            return 0
        return amount * base // quote if buying else amount * quote // base


def _read(key: str, accounts: Accounts, clock: Clock) -> LaunchCurve:
    account = find(accounts, key, "raydium_launchlab", "PoolState")
    status, config_key, platform_key = whole(account, "status", "global_config", "platform_config")
    if status != FUND:
        raise NoQuoteError(COMPLETE if status == MIGRATE else MIGRATED, f"curve {key}")
    config = find(accounts, config_key, "raydium_launchlab", "GlobalConfig")
    platform = find(accounts, platform_key, "raydium_launchlab", "PlatformConfig")
    curve_type, protocol_rate = whole(config, "curve_type", "trade_fee_rate")
    rates = Rates(
        protocol=protocol_rate,
        platform=whole(platform, "fee_rate")[0],
        creator=platform.fields.get("creator_fee_rate") or 0,
    )
    if curve_type > LINEAR_PRICE or rates.total() >= RATE_WHOLE:
        raise NoQuoteError(UNSUPPORTED, f"curve type {curve_type}, fees of {rates.total()} millionths")
    names = ("virtual_base", "virtual_quote", "real_base", "real_quote", "total_base_sell", "base_mint", "quote_mint")
    base, quote, sold, raised, for_sale, base_mint, quote_mint = whole(account, *names)
    if sold >= for_sale:
        raise NoQuoteError(COMPLETE, f"curve {key}")
    if not base or (not quote and curve_type != LINEAR_PRICE):
        raise NoQuoteError(UNSUPPORTED, f"curve {key} without virtual reserves")
    return LaunchCurve(
        key=key,
        mints=(read_mint(accounts, base_mint, clock), read_mint(accounts, quote_mint, clock)),
        curve_type=curve_type,
        virtual_base=base,
        virtual_quote=quote,
        sold=sold,
        raised=raised,
        for_sale=for_sale,
        rates=rates,
    )


def _derive(base: str, quote: str) -> Iterator[str]:
    yield pda(PROGRAM, b"pool", base, quote)


CURVE: Final = Curve(
    "PoolState",
    mint_fields("base_mint", "quote_mint"),
    key_fields("global_config", "platform_config", "base_mint", "quote_mint"),
    _read,
    _derive,
)
