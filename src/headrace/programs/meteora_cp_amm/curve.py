"""Quotes of Meteora's DAMM v2. A pool has one range of liquidity, or is a constant product with compounding fees."""

from typing import Any, Final, NamedTuple

import msgspec

from headrace.programs.meteora_fees import (
    CAP_EXPONENTIAL,
    CAP_LINEAR,
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
    DISABLED,
    EMPTY,
    NO_ACCOUNT,
    NOT_OPEN,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
    TOO_LARGE,
    TOO_SMALL,
    UNSUPPORTED,
    Account,
    Accounts,
    Clock,
    Curve,
    Mint,
    NoQuoteError,
    PoolQuote,
    ceil_div,
    checked,
    fees,
    find,
    key_fields,
    mint_fields,
    read_mint,
    read_vault,
    side,
    uint,
    whole,
)
from headrace.programs.ranges import Range, at_spot, price_after_input, price_after_output

BOTH_TOKENS, ONLY_B, COMPOUNDING = range(3)
"""Values of `collect_fee_mode`: the fee is taken from the output (BOTH_TOKENS), or always from token B (the others)."""
RATE_MAX: Final = (500_000_000, 990_000_000)
"""Highest fee rate, in parts of FEE_WHOLE, by `fee_version`."""


class _Moved(NamedTuple):
    """A swap between the pool's sides, without fees."""

    taken: int
    given: int


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """State of one pool. If fees compound, `reserves` set the price; otherwise `low` and `high` bound it."""

    key: str
    mints: tuple[Mint, Mint]
    collect_fee_mode: int
    sqrt_price: int
    low: int
    high: int
    liquidity: int
    reserves: tuple[int, int]
    fee: TradeFee
    protocol_percent: int
    compounding_bps: int

    def quote(self, mint_in: str, amount: int, *, exact_out: bool = False) -> PoolQuote:
        """Return the quote. Raises NoQuoteError if the price would leave the range, or nothing would arrive."""
        first = side((self.mints[0].key, self.mints[1].key), mint_in, self.key)
        given, wanted = self.mints if first else self.mints[::-1]
        checked(amount)
        on_input = self.collect_fee_mode != BOTH_TOKENS and not first
        if exact_out:
            asked = checked(wanted.fee.before(amount))
            gross, fee = asked, 0
            if not on_input:
                gross = with_fee(asked, self.fee.rate(asked, buying=not first, on_top=True))
                fee = gross - asked
            moved = self._moved_out(gross, first_in=first)
            taken = moved.taken
            if on_input:
                taken = with_fee(moved.taken, self.fee.rate(moved.taken, buying=not first, on_top=True))
                fee = taken - moved.taken
            amount_in, out = checked(given.fee.before(taken)), asked
        else:
            amount_in, taken = amount, amount - given.fee.of(amount)
            rate = self.fee.rate(taken, buying=not first)
            fee = ceil_div(taken * rate, FEE_WHOLE) if on_input else 0
            moved = self._moved_in(taken - fee, first_in=first)
            if not on_input:
                fee = ceil_div(moved.given * rate, FEE_WHOLE)
            out = moved.given if on_input else moved.given - fee
            if out < 1:
                raise NoQuoteError(TOO_SMALL, f"{amount} brings nothing")
        protocol = fee * self.protocol_percent // 100
        compounding = (fee - protocol) * self.compounding_bps // BPS
        transfer_out = wanted.fee.of(out)
        fee_mint = given.key if on_input else wanted.key
        return PoolQuote(
            pool=self.key,
            mint_in=given.key,
            mint_out=wanted.key,
            amount_in=amount_in,
            amount_out=out - transfer_out,
            fees=fees(
                ("transfer", given.key, amount_in - taken),
                ("lp", fee_mint, fee - protocol - compounding),
                ("compounding", fee_mint, compounding),
                ("protocol", fee_mint, protocol),
                ("transfer", wanted.key, transfer_out),
            ),
            impact=max(0, self._at_spot(moved.taken, first_in=first) - moved.given),
        )

    def _moved_in(self, amount: int, *, first_in: bool) -> _Moved:
        """Return the swap of `amount`. The output rounds down."""
        if self.collect_fee_mode == COMPOUNDING:
            reserve_in, reserve_out = self.reserves if first_in else self.reserves[::-1]
            return _Moved(amount, amount * reserve_out // (reserve_in + amount))
        price = price_after_input(self.sqrt_price, self.liquidity, amount, first_in=first_in)
        crossed = self._crossed(price)
        return _Moved(amount, crossed.second(up=False) if first_in else crossed.first(up=False))

    def _moved_out(self, amount: int, *, first_in: bool) -> _Moved:
        """Return the swap with an output of `amount`. The input rounds up."""
        if self.collect_fee_mode == COMPOUNDING:
            reserve_in, reserve_out = self.reserves if first_in else self.reserves[::-1]
            if amount >= reserve_out:
                raise NoQuoteError(TOO_LARGE, f"{amount}, and the pool holds {reserve_out}")
            return _Moved(ceil_div(reserve_in * amount, reserve_out - amount), amount)
        price = price_after_output(self.sqrt_price, self.liquidity, amount, first_in=first_in)
        crossed = self._crossed(price)
        return _Moved(crossed.first(up=True) if first_in else crossed.second(up=True), amount)

    def _crossed(self, price: int) -> Range:
        if not self.low <= price <= self.high:
            raise NoQuoteError(TOO_LARGE, "the price would leave the pool's range")
        return Range(min(price, self.sqrt_price), max(price, self.sqrt_price), self.liquidity)

    def _at_spot(self, amount: int, *, first_in: bool) -> int:
        if self.collect_fee_mode == COMPOUNDING:
            reserve_in, reserve_out = self.reserves if first_in else self.reserves[::-1]
            return amount * reserve_out // reserve_in
        return at_spot(amount, self.sqrt_price, first_in=first_in)


def base_fee(data: bytes) -> Schedule | Limiter:
    """Return the base fee encoded in these 32 bytes."""
    cliff, mode = uint(data, 0, 8), uint(data, 8, 1)
    known_mode(mode, LINEAR, EXPONENTIAL, LIMITER, CAP_LINEAR, CAP_EXPONENTIAL)
    if mode == LIMITER:
        bps = FEE_WHOLE // BPS
        return Limiter(
            cliff=cliff,
            increment=uint(data, 14, 2) * bps,
            duration=uint(data, 16, 4),
            most=uint(data, 20, 4) * bps,
            reference=uint(data, 24, 8),
        )
    by_price = mode in (CAP_LINEAR, CAP_EXPONENTIAL)
    return Schedule(
        mode=mode,
        cliff=cliff,
        periods=uint(data, 14, 2),
        frequency=uint(data, 16, 4 if by_price else 8),
        expires=uint(data, 20, 4) if by_price else 0,
        reduction=uint(data, 24, 8),
    )


def _trade_fee(account: Account, pool_fees: dict[str, Any], point: int) -> TradeFee:
    activation, price, version = whole(account, "activation_point", "sqrt_price", "fee_version")
    if version >= len(RATE_MAX):
        raise NoQuoteError(UNSUPPORTED, f"fee version {version}")
    dynamic = pool_fees["dynamic_fee"]
    variable = 0
    if dynamic["initialized"]:
        variable = variable_rate(
            dynamic["volatility_accumulator"], dynamic["bin_step"], dynamic["variable_fee_control"]
        )
    return TradeFee(
        base=base_fee(bytes(pool_fees["base_fee"]["base_fee_info"]["data"])),
        most=RATE_MAX[version],
        variable=variable,
        point=point,
        activation=activation,
        start_price=pool_fees.get("init_sqrt_price") or 0,
        price=price,
    )


def _read(key: str, accounts: Accounts, clock: Clock) -> Pool:
    account = find(accounts, key, "meteora_cp_amm", "Pool")
    names = ("pool_fees", "pool_status", "activation_type", "activation_point", "collect_fee_mode", "liquidity")
    pool_fees, status, by_time, opens, mode, liquidity = whole(account, *names)
    if status:
        raise NoQuoteError(DISABLED, f"pool {key} has status {status}")
    point = clock.now() if by_time else clock.slot
    if point is None:
        raise NoQuoteError(NO_ACCOUNT, "the slot of the state is not known")
    if point < opens:
        raise NoQuoteError(NOT_OPEN, f"pool {key} opens at {opens}")
    if mode > COMPOUNDING:
        raise NoQuoteError(UNSUPPORTED, f"pool {key} collects fees in mode {mode}")
    if not liquidity:
        raise NoQuoteError(EMPTY, f"pool {key}")
    mints = []
    for name in ("a", "b"):
        mint, vault, flag = whole(account, f"token_{name}_mint", f"token_{name}_vault", f"token_{name}_flag")
        mints.append(read_mint(accounts, mint, clock, program=TOKEN_2022_PROGRAM if flag else TOKEN_PROGRAM))
        read_vault(accounts, vault)
    low, high, price = whole(account, "sqrt_min_price", "sqrt_max_price", "sqrt_price")
    reserves = (0, 0)
    if mode == COMPOUNDING:
        a, b = whole(account, "token_a_amount", "token_b_amount")
        if not a or not b:
            raise NoQuoteError(EMPTY, f"pool {key} holds {a} and {b}")
        reserves = (a, b)
    return Pool(
        key=key,
        mints=(mints[0], mints[1]),
        collect_fee_mode=mode,
        sqrt_price=price,
        low=low,
        high=high,
        liquidity=liquidity,
        reserves=reserves,
        fee=_trade_fee(account, pool_fees, point),
        protocol_percent=pool_fees["protocol_fee_percent"],
        compounding_bps=pool_fees.get("compounding_fee_bps") or 0,
    )


CURVE: Final = Curve(
    "Pool",
    mint_fields("token_a_mint", "token_b_mint"),
    key_fields("token_a_mint", "token_b_mint", "token_a_vault", "token_b_vault"),
    _read,
)
