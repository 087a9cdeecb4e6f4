"""Quotes of Raydium's CLMM: liquidity in ranges of ticks, limit orders on ticks, and a fee that may be dynamic."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from headrace.model.errors import BadInputError
from headrace.programs.quoting import (
    DISABLED,
    NO_ACCOUNT,
    NO_ARRAY,
    NOT_OPEN,
    TOO_LARGE,
    Account,
    Accounts,
    Clock,
    Curve,
    Mint,
    NoQuoteError,
    PoolQuote,
    checked,
    fees,
    find,
    mint_fields,
    pda,
    read_mint,
    read_vault,
    side,
    sint,
    uint,
    whole,
)
from headrace.programs.ranges import at_spot
from headrace.programs.raydium_clmm.swap_state import RATE_WHOLE, DynamicFee, Fill, SwapState, Tick
from headrace.programs.ticks import SQRT_PRICE_MAX, SQRT_PRICE_MIN

PROGRAM: Final = "CAMMCzo5YL8w4VFF8KVHrK22GGUsp5VTaW7grrKgrWqK"
TICKS: Final = 60
"""Number of ticks in an array."""
BITS: Final = 512
"""Number of arrays that one bitmap of the extension covers; the pool's own bitmap covers twice as many."""
SPACING_WITHOUT_EXTENSION: Final = 15
"""Smallest spacing with which the pool's own bitmap covers all ticks."""
NEAR: Final = 7
"""Number of arrays on each side of the price that a quote reads."""
SWAP_DISABLED: Final = 16
FEE_ON_INPUT, FEE_ON_FIRST, FEE_ON_SECOND = range(3)

_POOL_FEE_ON: Final = 390
_POOL_BITMAP: Final = 904
_POOL_DYNAMIC_FEE: Final = 1096
_EXTENSION_POSITIVE: Final = 40
_EXTENSION_NEGATIVE: Final = _EXTENSION_POSITIVE + 14 * 64
_ARRAY_START: Final = 40
_ARRAY_TICKS: Final = 44
_TICK_SIZE: Final = 168
"""Offsets in the accounts of fields that older IDLs call padding."""


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """State of one pool.

    `starts` lists the first ticks of all arrays with liquidity or orders; `arrays` holds the known arrays.
    """

    key: str
    mints: tuple[Mint, Mint]
    spacing: int
    tick: int
    sqrt_price: int
    liquidity: int
    fee_rate: int
    protocol_rate: int
    fund_rate: int
    fee_on: int
    dynamic_fee: DynamicFee | None
    starts: tuple[int, ...]
    bounded: tuple[int, int]
    """Ticks between which `starts` is complete; beyond them the bitmap extension is needed."""
    arrays: Mapping[int, Sequence[Tick]]
    now: int

    def quote(self, mint_in: str, amount: int, *, exact_out: bool = False) -> PoolQuote:
        """Return the quote. Raises NoQuoteError if the swap does not end within the known arrays."""
        first = side((self.mints[0].key, self.mints[1].key), mint_in, self.key)
        given, wanted = self.mints if first else self.mints[::-1]
        checked(amount)
        asked = checked(wanted.fee.before(amount)) if exact_out else amount - given.fee.of(amount)
        on_input = self.fee_on == FEE_ON_INPUT or (self.fee_on == FEE_ON_FIRST) == first
        fill = self._swap(asked, first_in=first, exact_out=exact_out, on_input=on_input)
        taken, got = (fill.calculated, asked) if exact_out else (asked, fill.calculated)
        amount_in = checked(given.fee.before(taken)) if exact_out else amount
        transfer_out = wanted.fee.of(got)
        fee_mint = given.key if on_input else wanted.key
        priced, gross = (taken - fill.fee, got) if on_input else (taken, got + fill.fee)
        spot = at_spot(priced, self.sqrt_price, first_in=first)
        return PoolQuote(
            pool=self.key,
            mint_in=given.key,
            mint_out=wanted.key,
            amount_in=amount_in,
            amount_out=got - transfer_out,
            fees=fees(
                ("transfer", given.key, amount_in - taken),
                ("lp", fee_mint, fill.fee - fill.protocol_fee - fill.fund_fee),
                ("protocol", fee_mint, fill.protocol_fee),
                ("fund", fee_mint, fill.fund_fee),
                ("transfer", wanted.key, transfer_out),
            ),
            impact=max(0, spot - gross),
        )

    def _swap(self, amount: int, *, first_in: bool, exact_out: bool, on_input: bool) -> Fill:
        """Trade the amount tick by tick; return the result of the swap."""
        state = SwapState(
            remaining=amount,
            tick=self.tick,
            sqrt_price=self.sqrt_price,
            liquidity=self.liquidity,
            first_in=first_in,
            exact_out=exact_out,
            on_input=on_input,
            spacing=self.spacing,
            base_rate=self.fee_rate,
            shares=(self.protocol_rate, self.fund_rate),
            dynamic_fee=None if self.dynamic_fee is None else self.dynamic_fee.at(self.tick, self.spacing, self.now),
        )
        limit = SQRT_PRICE_MIN + 1 if first_in else SQRT_PRICE_MAX - 1
        start = array_start(self.tick, self.spacing)
        within = start in self.starts
        if not within:
            start = self._next_start(start, first_in=first_in)
        while state.remaining and state.sqrt_price != limit:
            tick = next_tick(self._array(start), state.tick, start, self.spacing, first_in=first_in)
            if tick is None:
                if within:
                    start = self._next_start(start, first_in=first_in)
                within = True
                tick = _first(self._array(start), first_in=first_in)
            state.go_to(tick, limit)
        if state.remaining:
            raise NoQuoteError(TOO_LARGE, f"{state.remaining} of {amount} are left at the last price")
        return state.fill()

    def _array(self, start: int) -> Sequence[Tick]:
        array = self.arrays.get(start)
        if array is None:
            raise NoQuoteError(NO_ARRAY, f"tick array {array_key(self.key, start)}, from tick {start}")
        return array

    def _next_start(self, start: int, *, first_in: bool) -> int:
        """Return the first tick of the next array with liquidity, downwards if the first token comes in."""
        at = bisect_left(self.starts, start) - 1 if first_in else bisect_right(self.starts, start)
        if 0 <= at < len(self.starts):
            return self.starts[at]
        if self.spacing < SPACING_WITHOUT_EXTENSION and self.bounded != (-BITS * 15, BITS * 15):
            raise NoQuoteError(NO_ACCOUNT, f"bitmap extension {extension_key(self.key)}")
        raise NoQuoteError(TOO_LARGE, "the liquidity ends")


def array_start(tick: int, spacing: int) -> int:
    """Return the first tick of the array that contains a tick."""
    return tick // (TICKS * spacing) * TICKS * spacing


def next_tick(array: Sequence[Tick], tick: int, start: int, spacing: int, *, first_in: bool) -> Tick | None:
    """Return the next tick in the swap's direction, which may be `tick` itself if the price falls.

    None if the next tick is in another array.
    """
    if array_start(tick, spacing) != start:
        return None
    if first_in:
        return next((each for each in reversed(array) if each.number <= tick), None)
    return next((each for each in array if each.number > tick - tick % spacing), None)


def _first(array: Sequence[Tick], *, first_in: bool) -> Tick:
    if not array:
        raise BadInputError("wrong account", "a tick array without liquidity, expected one with some")
    return array[-1] if first_in else array[0]


def array_key(pool: str, start: int) -> str:
    """Return the address of a tick array."""
    return pda(PROGRAM, b"tick_array", pool, start.to_bytes(4, "big", signed=True))


def extension_key(pool: str) -> str:
    """Return the address of the bitmap extension."""
    return pda(PROGRAM, b"pool_tick_array_bitmap_extension", pool)


def starts_of(pool: Account, extension: Account | None, spacing: int) -> tuple[int, ...]:
    """Return the first ticks of all arrays whose bit is set, in order."""
    numbers = [bit - BITS for bit in _bits(pool.data, _POOL_BITMAP, 2 * BITS)]
    if extension is not None:
        for k in range(14):
            numbers += [(k + 1) * BITS + bit for bit in _bits(extension.data, _EXTENSION_POSITIVE + 64 * k, BITS)]
            numbers += [bit - (k + 2) * BITS for bit in _bits(extension.data, _EXTENSION_NEGATIVE + 64 * k, BITS)]
    return tuple(sorted(number * TICKS * spacing for number in numbers))


def _bits(data: bytes, at: int, count: int) -> Iterator[int]:
    word = uint(data, at, count // 8)
    while word:
        lowest = word & -word
        yield lowest.bit_length() - 1
        word ^= lowest


def _ticks(account: Account) -> tuple[Tick, ...]:
    """Return the ticks of an array that have liquidity or orders, in order."""
    data, ticks = account.data, []
    if len(data) < _ARRAY_TICKS + TICKS * _TICK_SIZE:
        raise BadInputError("truncated account", f"a tick array of {len(data)} bytes")
    for at in range(_ARRAY_TICKS, _ARRAY_TICKS + TICKS * _TICK_SIZE, _TICK_SIZE):
        gross, orders, part = uint(data, at + 20, 16), uint(data, at + 124, 8), uint(data, at + 132, 8)
        if gross or orders or part:
            ticks.append(Tick(sint(data, at, 4), sint(data, at + 4, 16), gross > 0, orders + part))
    return tuple(ticks)


def _dynamic_fee(data: bytes) -> DynamicFee | None:
    at = _POOL_DYNAMIC_FEE
    if not any(data[at : at + 80]):
        return None
    return DynamicFee(
        filter_period=uint(data, at, 2),
        decay_period=uint(data, at + 2, 2),
        reduction_factor=uint(data, at + 4, 2),
        control=uint(data, at + 6, 4),
        volatility_max=uint(data, at + 10, 4),
        group_reference=sint(data, at + 14, 4),
        volatility_reference=uint(data, at + 18, 4),
        volatility=uint(data, at + 22, 4),
        updated=uint(data, at + 26, 8),
    )


def _needs(key: str, accounts: Accounts) -> Iterator[str]:
    yield key
    if (pool := accounts.get(key)) is None:
        return
    names = ("amm_config", "token_mint_0", "token_mint_1", "token_vault_0", "token_vault_1")
    yield from whole(pool, *names)
    tick, spacing = whole(pool, "tick_current", "tick_spacing")
    if spacing < SPACING_WITHOUT_EXTENSION:
        yield extension_key(key)
    starts = starts_of(pool, accounts.get(extension_key(key)), spacing)
    at = bisect_right(starts, array_start(tick, spacing))
    yield from (array_key(key, start) for start in starts[max(0, at - NEAR) : at + NEAR])


def _read(key: str, accounts: Accounts, clock: Clock) -> Pool:
    account = find(accounts, key, "raydium_clmm", "PoolState")
    names = ("amm_config", "tick_spacing", "tick_current", "sqrt_price_x64", "liquidity", "status", "open_time")
    config_key, spacing, tick, sqrt_price, liquidity, status, open_time = whole(account, *names)
    if status & SWAP_DISABLED:
        raise NoQuoteError(DISABLED, f"pool {key} has status {status}")
    now = clock.now()
    if now <= open_time:
        raise NoQuoteError(NOT_OPEN, f"pool {key} opens after {open_time}")
    if spacing < 1 or not SQRT_PRICE_MIN <= sqrt_price < SQRT_PRICE_MAX:
        raise BadInputError("wrong account", f"pool {key} with tick spacing {spacing}, square root {sqrt_price}")
    config = find(accounts, config_key, "raydium_clmm", "AmmConfig")
    fee_rate, protocol, fund = whole(config, "trade_fee_rate", "protocol_fee_rate", "fund_fee_rate")
    if fee_rate >= RATE_WHOLE:
        raise NoQuoteError(DISABLED, f"a fee of {fee_rate} millionths")
    mints = []
    for number in (0, 1):
        mint, vault = whole(account, f"token_mint_{number}", f"token_vault_{number}")
        mints.append(read_mint(accounts, mint, clock, program=_owner(accounts, vault)))
        read_vault(accounts, vault)
    extension_at = extension_key(key)
    extension = (
        find(accounts, extension_at, "raydium_clmm", "TickArrayBitmapExtension") if extension_at in accounts else None
    )
    starts = starts_of(account, extension, spacing)
    arrays = {}
    for start in starts:
        at = array_key(key, start)
        if at in accounts:
            arrays[start] = _ticks(find(accounts, at, "raydium_clmm", "TickArrayState"))
    return Pool(
        key=key,
        mints=(mints[0], mints[1]),
        spacing=spacing,
        tick=tick,
        sqrt_price=sqrt_price,
        liquidity=liquidity,
        fee_rate=fee_rate,
        protocol_rate=protocol,
        fund_rate=fund,
        fee_on=uint(account.data, _POOL_FEE_ON, 1),
        dynamic_fee=_dynamic_fee(account.data),
        starts=starts,
        bounded=(-BITS, BITS) if extension is None else (-BITS * 15, BITS * 15),
        arrays=arrays,
        now=now,
    )


def _owner(accounts: Accounts, key: str) -> str:
    account = accounts.get(key)
    return "" if account is None else account.owner


CURVE: Final = Curve("PoolState", mint_fields("token_mint_0", "token_mint_1"), _needs, _read)
