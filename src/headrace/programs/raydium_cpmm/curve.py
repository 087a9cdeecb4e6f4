"""Quotes of Raydium's CPMM: constant product, with a creator's fee on the input or the output."""

from typing import Final

import msgspec

from headrace.programs.quoting import (
    DISABLED,
    EMPTY,
    NOT_OPEN,
    TOO_LARGE,
    UNSUPPORTED,
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
    whole,
)

RATE_WHOLE: Final = 1_000_000
SWAP_DISABLED: Final = 4
BOTH, ONLY_FIRST, ONLY_SECOND = range(3)
"""Values of `creator_fee_on`: the creator's fee is always taken from the input, or only if the input is this token."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Fee rates in millionths; `protocol` and `fund` are shares of the trade fee."""

    trade: int
    protocol: int
    fund: int
    creator: int


class _Split(msgspec.Struct, frozen=True):
    """Swap between the vaults. `priced` is the input without fees, and `gross` the output before fees."""

    taken: int
    given: int
    priced: int
    gross: int
    trade_fee: int
    creator_fee: int


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """State of one pool."""

    key: str
    mints: tuple[Mint, Mint]
    reserves: tuple[int, int]
    rates: Rates
    creator_fee_on: int

    def quote(self, mint_in: str, amount: int, *, exact_out: bool = False) -> PoolQuote:
        """Return the quote."""
        first = side((self.mints[0].key, self.mints[1].key), mint_in, self.key)
        checked(amount)
        given, wanted = self.mints if first else self.mints[::-1]
        reserves = self.reserves if first else self.reserves[::-1]
        on_input = self.creator_fee_on in (BOTH, ONLY_FIRST if first else ONLY_SECOND)
        if exact_out:
            split = self._for_output(wanted.fee.before(amount), *reserves, on_input=on_input)
            amount_in = checked(given.fee.before(split.taken))
            out, transfer_out = amount, split.given - amount
        else:
            amount_in = amount
            split = self._for_input(amount - given.fee.of(amount), *reserves, on_input=on_input)
            transfer_out = wanted.fee.of(split.given)
            out = split.given - transfer_out
        # protocol's and fund's shares round down; the LPs get the remainder
        protocol = split.trade_fee * self.rates.protocol // RATE_WHOLE
        fund = split.trade_fee * self.rates.fund // RATE_WHOLE
        return PoolQuote(
            pool=self.key,
            mint_in=given.key,
            mint_out=wanted.key,
            amount_in=amount_in,
            amount_out=out,
            fees=fees(
                ("transfer", given.key, amount_in - split.taken),
                ("lp", given.key, split.trade_fee - protocol - fund),
                ("protocol", given.key, protocol),
                ("fund", given.key, fund),
                ("creator", given.key if on_input else wanted.key, split.creator_fee),
                ("transfer", wanted.key, transfer_out),
            ),
            impact=max(0, split.priced * reserves[1] // reserves[0] - split.gross),
        )

    def _for_input(self, amount: int, reserve_in: int, reserve_out: int, *, on_input: bool) -> _Split:
        """Return the swap of an amount that arrives in the vault. Fees round up, the output rounds down."""
        trade, creator = self.rates.trade, self.rates.creator
        if on_input:
            total = ceil_div(amount * (trade + creator), RATE_WHOLE)
            creator_fee = total * creator // (trade + creator) if creator else 0
            priced = amount - total
            gross = priced * reserve_out // (reserve_in + priced)
            return _Split(amount, gross, priced, gross, total - creator_fee, creator_fee)
        trade_fee = ceil_div(amount * trade, RATE_WHOLE)
        priced = amount - trade_fee
        gross = priced * reserve_out // (reserve_in + priced)
        creator_fee = ceil_div(gross * creator, RATE_WHOLE)
        return _Split(amount, gross - creator_fee, priced, gross, trade_fee, creator_fee)

    def _for_output(self, amount: int, reserve_in: int, reserve_out: int, *, on_input: bool) -> _Split:
        """Return the swap with an output of `amount` from the vault. The input rounds up."""
        trade, creator = self.rates.trade, self.rates.creator
        gross = amount if on_input else _before_fee(amount, creator)
        if gross >= reserve_out:
            raise NoQuoteError(TOO_LARGE, f"{gross}, and the pool holds {reserve_out}")
        priced = ceil_div(reserve_in * gross, reserve_out - gross)
        taken = _before_fee(priced, trade + creator if on_input else trade)
        creator_fee = gross - amount
        if on_input and creator:
            creator_fee = (taken - priced) * creator // (trade + creator)
        return _Split(taken, amount, priced, gross, taken - priced - (creator_fee if on_input else 0), creator_fee)


def _before_fee(amount: int, rate: int) -> int:
    """Return the least amount that leaves `amount` after a fee; rounds up."""
    return ceil_div(amount * RATE_WHOLE, RATE_WHOLE - rate)


def _read(key: str, accounts: Accounts, clock: Clock) -> Pool:
    account = find(accounts, key, "raydium_cpmm", "PoolState")
    config_key, status, open_time = whole(account, "amm_config", "status", "open_time")
    if status & SWAP_DISABLED:
        raise NoQuoteError(DISABLED, f"pool {key} has status {status}")
    if open_time and clock.now() < open_time:
        raise NoQuoteError(NOT_OPEN, f"pool {key} opens at {open_time}")
    config = find(accounts, config_key, "raydium_cpmm", "AmmConfig")
    trade, protocol, fund = whole(config, "trade_fee_rate", "protocol_fee_rate", "fund_fee_rate")
    mints, reserves = [], []
    for number in (0, 1):
        mint, program, vault = whole(
            account, f"token_{number}_mint", f"token_{number}_program", f"token_{number}_vault"
        )
        kept = (f"{whose}_fees_token_{number}" for whose in ("protocol", "fund", "creator"))
        mints.append(read_mint(accounts, mint, clock, program=program))
        reserves.append(read_vault(accounts, vault) - sum(account.fields.get(name) or 0 for name in kept))
    if min(reserves) < 1:
        raise NoQuoteError(EMPTY, f"pool {key} holds {reserves[0]} and {reserves[1]}")
    fields = account.fields
    creator = (config.fields.get("creator_fee_rate") or 0) if fields.get("enable_creator_fee") else 0
    on = fields.get("creator_fee_on") or BOTH
    if on > ONLY_SECOND or trade + creator >= RATE_WHOLE:
        raise NoQuoteError(UNSUPPORTED, f"creator fee on {on}, fees of {trade + creator} millionths")
    return Pool(
        key=key,
        mints=(mints[0], mints[1]),
        reserves=(reserves[0], reserves[1]),
        rates=Rates(trade=trade, protocol=protocol, fund=fund, creator=creator),
        creator_fee_on=on,
    )


CURVE: Final = Curve(
    "PoolState",
    mint_fields("token_0_mint", "token_1_mint"),
    key_fields("amm_config", "token_0_vault", "token_1_vault", "token_0_mint", "token_1_mint"),
    _read,
)
