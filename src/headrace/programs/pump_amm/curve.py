"""Quotes of PumpSwap's pools: constant product over the vaults, with virtual reserves added to the quote vault."""

from collections.abc import Iterator
from typing import Final

import msgspec

from headrace.model.keys import WSOL_MINT
from headrace.programs.pump_fees.schedule import SUPPLY, Rates, creator_of, rates_of, with_creator
from headrace.programs.quoting import (
    BPS,
    DISABLED,
    EMPTY,
    NO_ACCOUNT,
    TOO_LARGE,
    TOO_SMALL,
    Accounts,
    Clock,
    Curve,
    Fee,
    NoQuoteError,
    PoolQuote,
    ceil_div,
    checked,
    fees,
    find,
    key_fields,
    mint_fields,
    pda,
    read_plain_mint,
    read_vault,
    side,
    whole,
)

PROGRAM: Final = "pAMMBay6oceH9fJKBRHGP5D4bD4sWpmSwMn52FMfXEA"
PUMP: Final = "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P"
GLOBAL_CONFIG: Final = "ADyA8hdefvWN2dbGGWFotbzWxrAvLW83WG6QCVXvJKqw"
FEE_CONFIG: Final = "5PHirr8joyTMp9JMm6nW7hNDVyEYdkzDqazxPD7RaTjx"
BUY_DISABLED: Final = 8
SELL_DISABLED: Final = 16


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """State of one pool. Sales are paid from `quote_vault`; `quote_reserve` sets the price."""

    key: str
    mints: tuple[str, str]
    base_reserve: int
    quote_reserve: int
    quote_vault: int
    rates: Rates
    creator: str
    disable_flags: int

    def quote(self, mint_in: str, amount: int, *, exact_out: bool = False) -> PoolQuote:
        """Return the quote."""
        selling = side(self.mints, mint_in, self.key)
        checked(amount)
        if self.disable_flags & (SELL_DISABLED if selling else BUY_DISABLED):
            raise NoQuoteError(DISABLED, "sales" if selling else "purchases")
        if selling:
            return self._sale(self._base_for(amount) if exact_out else amount)
        return self._purchase_of(amount) if exact_out else self._purchase_for(amount)

    def _purchase_for(self, amount: int) -> PoolQuote:
        """Return the quote of spending `amount`. The output rounds down."""
        net = max(0, self.rates.net(amount))
        priced = net - 1
        base = priced * self.base_reserve // (self.quote_reserve + priced) if priced > 0 else 0
        return self._bought(amount, net, base, self.rates.of(net))

    def _purchase_of(self, base: int) -> PoolQuote:
        """Return the quote of buying `base`; the cost rounds up."""
        if base >= self.base_reserve:
            raise NoQuoteError(TOO_LARGE, f"{base}, and the pool holds {self.base_reserve}")
        cost = ceil_div(self.quote_reserve * base, self.base_reserve - base)
        parts = self.rates.of(cost)
        return self._bought(checked(cost + sum(parts)), cost, base, parts)

    def _bought(self, amount_in: int, net: int, base: int, parts: tuple[int, int, int]) -> PoolQuote:
        return PoolQuote(
            pool=self.key,
            mint_in=self.mints[1],
            mint_out=self.mints[0],
            amount_in=amount_in,
            amount_out=base,
            fees=self._fees(parts),
            impact=max(0, net * self.base_reserve // self.quote_reserve - base),
        )

    def _sale(self, base: int) -> PoolQuote:
        """Return the quote of a sale. The output rounds down."""
        gross = self.quote_reserve * base // (self.base_reserve + base)
        parts = self.rates.of(gross)
        if gross - parts[0] > self.quote_vault:
            raise NoQuoteError(TOO_LARGE, f"the pool would owe {gross - parts[0]} and holds {self.quote_vault}")
        if gross < sum(parts):
            raise NoQuoteError(TOO_SMALL, f"{base} bring {gross} before fees")
        return PoolQuote(
            pool=self.key,
            mint_in=self.mints[0],
            mint_out=self.mints[1],
            amount_in=base,
            amount_out=gross - sum(parts),
            fees=self._fees(parts),
            impact=max(0, base * self.quote_reserve // self.base_reserve - gross),
        )

    def _base_for(self, net: int) -> int:
        """Return the least amount whose sale pays at least `net`; rounds up."""
        if self.rates.total() >= BPS:
            raise NoQuoteError(TOO_SMALL, "fees take all of a sale")
        gross = self.rates.gross(net)
        if gross >= self.quote_reserve:
            raise NoQuoteError(TOO_LARGE, f"the pool would owe {gross} and holds {self.quote_vault}")
        return checked(ceil_div(self.base_reserve * gross, self.quote_reserve - gross))

    def _fees(self, parts: tuple[int, int, int]) -> tuple[Fee, ...]:
        to = ("lp", "protocol", self.creator)
        return fees(*((who, self.mints[1], part) for who, part in zip(to, parts, strict=True)))


def _read(key: str, accounts: Accounts, clock: Clock) -> Pool:
    account = find(accounts, key, "pump_amm", "Pool")
    settings = find(accounts, GLOBAL_CONFIG, "pump_amm", "GlobalConfig")
    config = find(accounts, FEE_CONFIG, "pump_fees", "FeeConfig")
    names = ("creator", "base_mint", "quote_mint", "pool_base_token_account", "pool_quote_token_account")
    creator, base_mint, quote_mint, base_key, quote_key = whole(account, *names)
    fields = account.fields
    supply = read_plain_mint(accounts, base_mint, clock).supply
    read_plain_mint(accounts, quote_mint, clock)
    base, vault = read_vault(accounts, base_key), read_vault(accounts, quote_key)
    # Fees stay in the vault until they are swept; the virtual reserves already count them, as a negative part.
    reserve = vault + (fields.get("virtual_quote_reserves") or 0)
    vault -= (fields.get("protocol_fees") or 0) + (fields.get("creator_fees") or 0)
    if base < 1 or vault < 1 or reserve < 1:
        raise NoQuoteError(EMPTY, f"pool {key} holds {base} and {vault}")
    if fields.get("is_mayhem_mode"):
        supply = SUPPLY
    if supply is None:
        raise NoQuoteError(NO_ACCOUNT, f"mint {base_mint}")
    canonical = pda(PUMP, b"pool-authority", base_mint) == creator
    rates = rates_of(config, quote_mint, reserve * supply // base, canonical=canonical)
    return Pool(
        key=key,
        mints=(base_mint, quote_mint),
        base_reserve=base,
        quote_reserve=reserve,
        quote_vault=vault,
        rates=with_creator(rates, account, settings, fields.get("coin_creator")),
        creator=creator_of(account),
        disable_flags=settings.fields.get("disable_flags") or 0,
    )


def _derive(base: str, quote: str) -> Iterator[str]:
    """Yield the pool to which pump.fun's curve of a coin migrates."""
    if base != WSOL_MINT:
        yield pda(PROGRAM, b"pool", bytes(2), pda(PUMP, b"pool-authority", base), base, quote)


CURVE: Final = Curve(
    "Pool",
    mint_fields("base_mint", "quote_mint"),
    key_fields(
        "base_mint",
        "quote_mint",
        "pool_base_token_account",
        "pool_quote_token_account",
        always=(GLOBAL_CONFIG, FEE_CONFIG),
    ),
    _read,
    _derive,
)
