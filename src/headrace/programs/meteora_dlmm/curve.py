"""Quotes of Meteora's DLMM: each bin has one price and may hold limit orders; the fee grows as the price moves."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from headrace.model.errors import BadInputError
from headrace.model.keys import SYSTEM_PROGRAM
from headrace.programs.meteora_dlmm.bins import Bin, Fees, price_of
from headrace.programs.quoting import (
    DISABLED,
    NO_ACCOUNT,
    NO_ARRAY,
    NOT_OPEN,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
    TOO_LARGE,
    UNSUPPORTED,
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
    whole,
)

PROGRAM: Final = "LBUZKhRxPF3XUpBCjp4YzTKgLccjZhTSDM9YuVaPwxo"
BINS: Final = 70
"""Number of bins in an array."""
BITS: Final = 512
"""Number of arrays on each side of zero that the pair's own bitmap covers."""
BITMAPS: Final = 12
"""Number of bitmaps in the extension, on each side."""
BIN_MAX: Final = 443_636
NEAR: Final = 3
"""Number of arrays on each side of the price that a quote reads."""
PERMISSION, CUSTOMIZABLE = 1, 2
"""Types of pair that open at `activation_point`, which is a slot, or a time if `activation_type` is 1."""
INPUT_ONLY, ONLY_Y = range(2)
"""Values of `collect_fee_mode`: the fee is taken from the input, or always from token Y."""
UNDETERMINED, LIQUIDITY_MINING, LIMIT_ORDER = range(3)
"""Values of `function_type`. LIMIT_ORDER pairs take limit orders, and UNDETERMINED pairs do if they have no rewards."""


class _Fill(NamedTuple):
    """Result of a swap: input, output, the fee, and the protocol's part of the fee."""

    taken: int
    given: int
    fee: int
    protocol_fee: int


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """State of one pair. `indexes` names all arrays with liquidity or orders; `arrays` holds the known arrays."""

    key: str
    mints: tuple[Mint, Mint]
    active: int
    bin_step: int
    fees: Fees
    collect_fee_mode: int
    takes_orders: bool
    indexes: tuple[int, ...]
    whole: bool
    """True if the indexes are complete, because the bitmap extension is known."""
    arrays: Mapping[int, Sequence[Mapping[str, Any]]]

    def quote(self, mint_in: str, amount: int, *, exact_out: bool = False) -> PoolQuote:
        """Return the quote. Raises NoQuoteError if the swap does not end within the known arrays."""
        for_y = side((self.mints[0].key, self.mints[1].key), mint_in, self.key)
        given, wanted = self.mints if for_y else self.mints[::-1]
        checked(amount)
        asked = checked(wanted.fee.before(amount)) if exact_out else amount - given.fee.of(amount)
        fill = self._swap(asked, for_y=for_y, exact_out=exact_out)
        amount_in = checked(given.fee.before(fill.taken)) if exact_out else amount
        transfer_out = wanted.fee.of(fill.given)
        on_input = self._fee_on_input(for_y=for_y)
        fee_mint = given.key if on_input else wanted.key
        priced, gross = (fill.taken - fill.fee, fill.given) if on_input else (fill.taken, fill.given + fill.fee)
        price = price_of(self.active, self.bin_step)
        spot = priced * price >> 64 if for_y else (priced << 64) // price
        return PoolQuote(
            pool=self.key,
            mint_in=given.key,
            mint_out=wanted.key,
            amount_in=amount_in,
            amount_out=fill.given - transfer_out,
            fees=fees(
                ("transfer", given.key, amount_in - fill.taken),
                ("lp", fee_mint, fill.fee - fill.protocol_fee),
                ("protocol", fee_mint, fill.protocol_fee),
                ("transfer", wanted.key, transfer_out),
            ),
            impact=max(0, spot - gross),
        )

    def _swap(self, amount: int, *, for_y: bool, exact_out: bool) -> _Fill:
        """Trade the amount bin by bin; return the result of the swap."""
        on_input = self._fee_on_input(for_y=for_y)
        left, taken, given, fee, protocol_fee = amount, 0, 0, 0, 0
        for number, content in self._bins(for_y=for_y):
            bin_ = Bin.of(content, number, self.bin_step, for_y=for_y, takes_orders=self.takes_orders)
            if not bin_.holds:
                continue
            rates = self.fees.moved(number)
            part = bin_.exact_out(left, rates, on_input) if exact_out else bin_.exact_in(left, rates, on_input)
            left -= part.amount_out if exact_out else part.amount_in
            taken, given = taken + part.amount_in, given + part.amount_out
            fee, protocol_fee = fee + part.fee, protocol_fee + part.protocol_fee
            if not left:
                return _Fill(taken, given, fee, protocol_fee)
        return _Fill(taken, given, fee, protocol_fee)

    def _bins(self, *, for_y: bool) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the bins from the active one on, downwards if X comes in.

        Raises NoQuoteError at the end of the bins.
        """
        number = self.active
        while True:
            index = self._next_index(number // BINS, for_y=for_y)
            array = self.arrays.get(index)
            if array is None:
                raise NoQuoteError(NO_ARRAY, f"bin array {array_key(self.key, index)}, number {index}")
            if number // BINS != index:
                number = index * BINS + BINS - 1 if for_y else index * BINS
            while number // BINS == index:
                yield number, array[number - index * BINS]
                number += -1 if for_y else 1
                if abs(number) > BIN_MAX:
                    raise NoQuoteError(TOO_LARGE, "the liquidity ends")

    def _next_index(self, index: int, *, for_y: bool) -> int:
        """Return the index of the first array with liquidity or orders, from this index on in the swap's direction."""
        at = bisect_right(self.indexes, index) - 1 if for_y else bisect_left(self.indexes, index)
        if 0 <= at < len(self.indexes):
            return self.indexes[at]
        if not self.whole:
            raise NoQuoteError(TOO_LARGE, f"the liquidity ends, or goes on in what {extension_key(self.key)} names")
        raise NoQuoteError(TOO_LARGE, "the liquidity ends")

    def _fee_on_input(self, *, for_y: bool) -> bool:
        return self.collect_fee_mode != ONLY_Y or not for_y


def array_key(pair: str, index: int) -> str:
    """Return the address of a bin array."""
    return pda(PROGRAM, b"bin_array", pair, index.to_bytes(8, "little", signed=True))


def extension_key(pair: str) -> str:
    """Return the address of the bitmap extension."""
    return pda(PROGRAM, b"bitmap", pair)


def indexes_of(pair: Account, extension: Account | None) -> tuple[int, ...]:
    """Return the indexes of all arrays whose bit is set, in order."""
    found = [bit - BITS for bit in _bits(whole(pair, "bin_array_bitmap")[0])]
    if extension is not None:
        positive, negative = whole(extension, "positive_bin_array_bitmap", "negative_bin_array_bitmap")
        for k in range(BITMAPS):
            found += [(k + 1) * BITS + bit for bit in _bits(positive[k])]
            found += [-(k + 1) * BITS - bit - 1 for bit in _bits(negative[k])]
    return tuple(sorted(found))


def _bits(words: Sequence[int]) -> Iterator[int]:
    for number, word in enumerate(words):
        left = word
        while left:
            lowest = left & -left
            yield number * 64 + lowest.bit_length() - 1
            left ^= lowest


def _needs(key: str, accounts: Accounts) -> Iterator[str]:
    yield key
    if (pair := accounts.get(key)) is None:
        return
    yield from whole(pair, "token_x_mint", "token_y_mint", "reserve_x", "reserve_y")
    yield extension_key(key)
    indexes = indexes_of(pair, accounts.get(extension_key(key)))
    at = bisect_right(indexes, whole(pair, "active_id")[0] // BINS)
    yield from (array_key(key, index) for index in indexes[max(0, at - NEAR) : at + NEAR])


def _read(key: str, accounts: Accounts, clock: Clock) -> Pair:
    account = find(accounts, key, "meteora_dlmm", "LbPair")
    names = ("parameters", "v_parameters", "active_id", "bin_step", "status", "pair_type", "reward_infos")
    static, variable, active, bin_step, status, pair_type, rewards = whole(account, *names)
    if status:
        raise NoQuoteError(DISABLED, f"pair {key} has status {status}")
    _check_open(key, account, clock, pair_type)
    if not -BIN_MAX <= active <= BIN_MAX or not bin_step:
        raise BadInputError("wrong account", f"pair {key} with active bin {active}, step {bin_step}")
    mode = static.get("collect_fee_mode") or INPUT_ONLY
    if mode > ONLY_Y:
        raise NoQuoteError(UNSUPPORTED, f"pair {key} collects fees in mode {mode}")
    function = static.get("function_type") or UNDETERMINED
    rewarded = any(each["mint"] != SYSTEM_PROGRAM for each in rewards)
    mints = []
    for name in ("x", "y"):
        mint, reserve, flag = whole(account, f"token_{name}_mint", f"reserve_{name}", f"token_mint_{name}_program_flag")
        mints.append(read_mint(accounts, mint, clock, program=TOKEN_2022_PROGRAM if flag else TOKEN_PROGRAM))
        read_vault(accounts, reserve)
    extension_at = extension_key(key)
    extension = (
        find(accounts, extension_at, "meteora_dlmm", "BinArrayBitmapExtension") if extension_at in accounts else None
    )
    indexes = indexes_of(account, extension)
    arrays = {}
    for index in indexes:
        at = array_key(key, index)
        if at in accounts:
            arrays[index] = whole(find(accounts, at, "meteora_dlmm", "BinArray"), "bins")[0]
    return Pair(
        key=key,
        mints=(mints[0], mints[1]),
        active=active,
        bin_step=bin_step,
        fees=Fees.at(static, variable, active, bin_step, clock.now()),
        collect_fee_mode=mode,
        takes_orders=function == LIMIT_ORDER or (function == UNDETERMINED and not rewarded),
        indexes=indexes,
        whole=extension is not None,
        arrays=arrays,
    )


def _check_open(key: str, account: Account, clock: Clock, pair_type: int) -> None:
    """Raise NoQuoteError before the pair's activation, or if the slot of the state is not known."""
    if pair_type not in (PERMISSION, CUSTOMIZABLE):
        return
    by_time, opens = whole(account, "activation_type", "activation_point")
    now = clock.now() if by_time else clock.slot
    if now is None:
        raise NoQuoteError(NO_ACCOUNT, "the slot of the state is not known")
    if now < opens:
        raise NoQuoteError(NOT_OPEN, f"pair {key} opens at {opens}")


CURVE: Final = Curve("LbPair", mint_fields("token_x_mint", "token_y_mint"), _needs, _read)
