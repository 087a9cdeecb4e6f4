"""Quotes of Raydium's AMM v4: constant product over the vaults, with the fee taken from the input."""

from typing import Final

import msgspec

from headrace.programs.quoting import (
    DISABLED,
    EMPTY,
    NOT_OPEN,
    TOO_LARGE,
    Accounts,
    Clock,
    Curve,
    NoQuoteError,
    PoolQuote,
    ceil_div,
    checked,
    fees,
    find,
    key_fields,
    mint_fields,
    read_vault,
    side,
    whole,
)

OPEN: Final = frozenset((1, 6))
"""States in which the program swaps: initialized, swap only."""
WAITING: Final = 7
"""State in which swaps begin at `pool_open_time`."""


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """State of one pool. `reserves` are of coin and pc; the fee is `fee_of` parts of `fee_whole`."""

    key: str
    mints: tuple[str, str]
    reserves: tuple[int, int]
    fee_of: int
    fee_whole: int

    def quote(self, mint_in: str, amount: int, *, exact_out: bool = False) -> PoolQuote:
        """Return the quote."""
        first = side(self.mints, mint_in, self.key)
        checked(amount)
        mint_out = self.mints[1] if first else self.mints[0]
        reserve_in, reserve_out = self.reserves if first else self.reserves[::-1]
        if exact_out:
            if amount >= reserve_out:
                raise NoQuoteError(TOO_LARGE, f"{amount}, and the pool holds {reserve_out}")
            priced = ceil_div(reserve_in * amount, reserve_out - amount)
            amount_in = checked(ceil_div(priced * self.fee_whole, self.fee_whole - self.fee_of))
            out, fee = amount, amount_in - priced
        else:
            fee = ceil_div(amount * self.fee_of, self.fee_whole)
            amount_in, priced = amount, amount - fee
            out = priced * reserve_out // (reserve_in + priced)  # rounds down
        return PoolQuote(
            pool=self.key,
            mint_in=mint_in,
            mint_out=mint_out,
            amount_in=amount_in,
            amount_out=out,
            fees=fees(("lp", mint_in, fee)),
            impact=max(0, priced * reserve_out // reserve_in - out),
        )


def _read(key: str, accounts: Accounts, clock: Clock) -> Pool:
    account = find(accounts, key, "raydium_amm_v4", "AmmInfo")
    status, rates, out = whole(account, "status", "fees", "out_put")
    if status == WAITING:
        if clock.now() < out["pool_open_time"]:
            raise NoQuoteError(NOT_OPEN, f"pool {key} opens at {out['pool_open_time']}")
    elif status not in OPEN:
        raise NoQuoteError(DISABLED, f"pool {key} has status {status}")
    coin_mint, pc_mint, coin_key, pc_key = whole(account, "coin_mint", "pc_mint", "token_coin", "token_pc")
    coin = read_vault(accounts, coin_key) - out["need_take_pnl_coin"]
    pc = read_vault(accounts, pc_key) - out["need_take_pnl_pc"]
    if coin < 1 or pc < 1:
        raise NoQuoteError(EMPTY, f"pool {key} holds {coin} and {pc}")
    fee_of, fee_whole = rates["swap_fee_numerator"], rates["swap_fee_denominator"]
    if not fee_of < fee_whole:
        raise NoQuoteError(DISABLED, f"a fee of {fee_of}/{fee_whole}")
    return Pool(key=key, mints=(coin_mint, pc_mint), reserves=(coin, pc), fee_of=fee_of, fee_whole=fee_whole)


CURVE: Final = Curve("AmmInfo", mint_fields("coin_mint", "pc_mint"), key_fields("token_coin", "token_pc"), _read)
