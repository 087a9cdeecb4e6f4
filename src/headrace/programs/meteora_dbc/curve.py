"""Quotes of Meteora's dynamic bonding curves: up to twenty ranges of liquidity, until the curve is complete."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from headrace.programs.meteora_fees import (
    EXPONENTIAL,
    FEE_WHOLE,
    LIMITER,
    LINEAR,
    Limiter,
    Schedule,
    TradeFee,
    known_mode,
    variable_rate,
    with_fee,
)
from headrace.programs.quoting import (
    BPS,
    COMPLETE,
    MIGRATED,
    NO_ACCOUNT,
    NOT_OPEN,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
    TOO_LARGE,
    UNSUPPORTED,
    Account,
    Accounts,
    Clock,
    Curve,
    NoQuoteError,
    PoolQuote,
    ceil_div,
    checked,
    fees,
    find,
    read_mint,
    side,
    whole,
)
from headrace.programs.ranges import Range, at_spot, price_after_input, price_after_output

OUTPUT_TOKEN: Final = 1
"""`collect_fee_mode` for a fee that is always taken from the output; otherwise it is taken from the quote token."""
RATE_MAX: Final = 990_000_000
PROTOCOL_PERCENT: Final = 20


class _Moved(NamedTuple):
    """A swap along the curve, without fees."""

    taken: int
    given: int


class VirtualPool(msgspec.Struct, frozen=True, kw_only=True):
    """State of one curve. `ranges` ascend in price from the start; at the price `end` the curve is complete."""

    key: str
    mints: tuple[str, str]
    fee_on_output: bool
    sqrt_price: int
    end: int
    ranges: tuple[Range, ...]
    fee: TradeFee

    def quote(self, mint_in: str, amount: int, *, exact_out: bool = False) -> PoolQuote:
        """Return the quote. Raises NoQuoteError for a purchase of more than the curve has left."""
        selling = side(self.mints, mint_in, self.key)
        mint_out = self.mints[1] if selling else self.mints[0]
        checked(amount)
        on_input = not self.fee_on_output and not selling
        if exact_out:
            gross, fee = amount, 0
            if not on_input:
                gross = with_fee(amount, self.fee.rate(amount, buying=not selling, on_top=True))
                fee = gross - amount
            moved = self._sold_for(gross) if selling else self._bought(gross)
            amount_in = moved.taken
            if on_input:
                amount_in = with_fee(moved.taken, self.fee.rate(moved.taken, buying=True, on_top=True))
                fee = amount_in - moved.taken
            out = amount
        else:
            amount_in, rate = amount, self.fee.rate(amount, buying=not selling)
            fee = ceil_div(amount * rate, FEE_WHOLE) if on_input else 0
            moved = self._sold(amount) if selling else self._bought_for(amount - fee)
            if not on_input:
                fee = ceil_div(moved.given * rate, FEE_WHOLE)
            out = moved.given if on_input else moved.given - fee
        protocol = fee * PROTOCOL_PERCENT // 100
        fee_mint = mint_in if on_input else mint_out
        return PoolQuote(
            pool=self.key,
            mint_in=mint_in,
            mint_out=mint_out,
            amount_in=checked(amount_in),
            amount_out=out,
            fees=fees(("partner", fee_mint, fee - protocol), ("protocol", fee_mint, protocol)),
            impact=max(0, at_spot(moved.taken, self.sqrt_price, first_in=selling) - moved.given),
        )

    def _above(self) -> Iterator[Range]:
        """Yield the curve's ranges above the price, nearest first."""
        for each in self.ranges:
            if each.high > self.sqrt_price:
                yield Range(max(each.low, self.sqrt_price), each.high, each.liquidity)

    def _below(self) -> Iterator[Range]:
        """Yield the curve's ranges below the price, nearest first."""
        for each in reversed(self.ranges):
            if each.low < self.sqrt_price:
                yield Range(each.low, min(each.high, self.sqrt_price), each.liquidity)

    def _bought_for(self, quote: int) -> _Moved:
        """Return a purchase for `quote`. The output rounds down in each range."""
        left, given = quote, 0
        for each in self._above():
            part = Range(each.low, min(each.high, self.end), each.liquidity)
            if part.high <= part.low:
                break
            most = part.second(up=True)
            if left < most:
                price = price_after_input(part.low, part.liquidity, left, first_in=False)
                return _Moved(quote, given + Range(part.low, price, part.liquidity).first(up=False))
            left, given = left - most, given + part.first(up=False)
        if left:
            raise NoQuoteError(TOO_LARGE, f"{left} of {quote} would be left when the curve is complete")
        return _Moved(quote, given)

    def _bought(self, base: int) -> _Moved:
        """Return a purchase of `base`. The input rounds up in each range."""
        left, taken, price = base, 0, self.sqrt_price
        for each in self._above():
            most = each.first(up=False)
            if left < most:
                price = price_after_output(each.low, each.liquidity, left, first_in=False)
                taken, left = taken + Range(each.low, price, each.liquidity).second(up=True), 0
                break
            price, taken, left = each.high, taken + each.second(up=True), left - most
        if left or price > self.end:
            raise NoQuoteError(TOO_LARGE, f"{base}, and the curve has less left")
        return _Moved(taken, base)

    def _sold(self, base: int) -> _Moved:
        """Return the result of selling `base`. The output rounds down in each range."""
        left, given = base, 0
        for each in self._below():
            most = each.first(up=True)
            if left < most or (left == most and each.low == self.ranges[0].low):
                price = max(price_after_input(each.high, each.liquidity, left, first_in=True), each.low)
                return _Moved(base, given + Range(price, each.high, each.liquidity).second(up=False))
            left, given = left - most, given + each.second(up=False)
        if left:
            raise NoQuoteError(TOO_LARGE, f"{left} of {base} would be left at the curve's start")
        return _Moved(base, given)

    def _sold_for(self, quote: int) -> _Moved:
        """Return a sale with an output of `quote`. The input rounds up in each range."""
        left, taken = quote, 0
        for each in self._below():
            most = each.second(up=False)
            if left < most or (left == most and each.low == self.ranges[0].low):
                price = price_after_output(each.high, each.liquidity, left, first_in=True)
                if price < each.low:
                    break
                return _Moved(taken + Range(price, each.high, each.liquidity).first(up=True), quote)
            left, taken = left - most, taken + each.first(up=True)
        if left:
            raise NoQuoteError(TOO_LARGE, f"{quote}, and the curve has raised less")
        return _Moved(taken, quote)


def base_fee(config: Mapping[str, int]) -> Schedule | Limiter:
    mode = known_mode(config["base_fee_mode"], LINEAR, EXPONENTIAL, LIMITER)
    first, second, third = config["first_factor"], config["second_factor"], config["third_factor"]
    cliff = config["cliff_fee_numerator"]
    if mode == LIMITER:
        increment = first * (FEE_WHOLE // BPS)
        return Limiter(cliff=cliff, increment=increment, most=RATE_MAX, duration=second, reference=third)
    return Schedule(mode=mode, cliff=cliff, periods=first, frequency=second, reduction=third)


def ranges_of(start: int, curve: Sequence[Mapping[str, int]]) -> tuple[Range, ...]:
    """Return the curve's ranges; each point ends a range."""
    ranges, low = [], start
    for point in curve:
        if not point["sqrt_price"] or not point["liquidity"]:
            break
        ranges.append(Range(low, point["sqrt_price"], point["liquidity"]))
        low = point["sqrt_price"]
    return tuple(ranges)


def _mints(key: str, account: Account, accounts: Accounts) -> tuple[str, str] | None:
    state = whole(account, "pool_state")[0]
    config = accounts.get(state["config"])
    if config is None or config.name != "PoolConfig":
        return None
    return state["base_mint"], whole(config, "quote_mint")[0]


def _needs(key: str, accounts: Accounts) -> Iterator[str]:
    yield key
    if (pool := accounts.get(key)) is None:
        return
    state: Mapping[str, Any] = whole(pool, "pool_state")[0]
    yield from (state["config"], state["base_mint"])
    mints = _mints(key, pool, accounts)
    if mints is not None:
        yield mints[1]


def _read(key: str, accounts: Accounts, clock: Clock) -> VirtualPool:
    account = find(accounts, key, "meteora_dbc", "VirtualPool")
    state: Mapping[str, Any] = whole(account, "pool_state")[0]
    if None in state.values():
        raise NoQuoteError(UNSUPPORTED, f"pool {key} of an older layout")
    config = find(accounts, state["config"], "meteora_dbc", "PoolConfig")
    names = ("pool_fees", "quote_mint", "activation_type", "collect_fee_mode", "token_type", "quote_token_flag")
    pool_fees, quote_mint, by_time, mode, token_type, quote_flag = whole(config, *names)
    threshold, end, start, curve = whole(
        config, "migration_quote_threshold", "migration_sqrt_price", "sqrt_start_price", "curve"
    )
    if state["is_migrated"]:
        raise NoQuoteError(MIGRATED, f"pool {key}")
    if state["quote_reserve"] >= threshold:
        raise NoQuoteError(COMPLETE, f"pool {key}")
    point = clock.now() if by_time else clock.slot
    if point is None:
        raise NoQuoteError(NO_ACCOUNT, "the slot of the state is not known")
    if point < state["activation_point"]:
        raise NoQuoteError(NOT_OPEN, f"pool {key} opens at {state['activation_point']}")
    if mode > OUTPUT_TOKEN:
        raise NoQuoteError(UNSUPPORTED, f"pool {key} collects fees in mode {mode}")
    for mint, flag in ((state["base_mint"], token_type), (quote_mint, quote_flag)):
        fee = read_mint(accounts, mint, clock, program=TOKEN_2022_PROGRAM if flag else TOKEN_PROGRAM).fee
        if fee.bps:
            raise NoQuoteError(UNSUPPORTED, f"mint {mint} has a transfer fee")
    ranges = ranges_of(start, curve)
    if not ranges:
        raise NoQuoteError(UNSUPPORTED, f"pool {key} without a curve")
    dynamic = pool_fees["dynamic_fee"]
    volatility = state["volatility_tracker"]["volatility_accumulator"]
    variable = variable_rate(volatility, dynamic["bin_step"], dynamic["variable_fee_control"])
    return VirtualPool(
        key=key,
        mints=(state["base_mint"], quote_mint),
        fee_on_output=mode == OUTPUT_TOKEN,
        sqrt_price=state["sqrt_price"],
        end=end,
        ranges=ranges,
        fee=TradeFee(
            base=base_fee(pool_fees["base_fee"]),
            most=RATE_MAX,
            variable=variable if dynamic["initialized"] else 0,
            point=point,
            activation=state["activation_point"],
            start_price=0,
            price=state["sqrt_price"],
        ),
    )


CURVE: Final = Curve("VirtualPool", _mints, _needs, _read)
