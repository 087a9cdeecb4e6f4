"""Quotes of pump.fun's bonding curves: constant product over virtual reserves, until the real tokens are sold.

A curve's account does not name its coin, but the curve's address is derived from the coin's mint. So the mint is found
among the known accounts by deriving addresses.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from headrace.model.keys import SYSTEM_PROGRAM, WSOL_MINT
from headrace.programs.pump_fees.schedule import SUPPLY, Rates, creator_of, rates_of, with_creator
from headrace.programs.quoting import (
    BPS,
    COMPLETE,
    EMPTY,
    MIGRATED,
    NO_ACCOUNT,
    TOO_LARGE,
    TOO_SMALL,
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
    pda,
    read_plain_mint,
    side,
    whole,
)

PROGRAM: Final = "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P"
GLOBAL: Final = "4wTV1YmiEkRvAtNtsSGPtUrqRYQMe5SKy2uB4Jjaxnjf"
FEE_CONFIG: Final = "8Wf5TiAheLUqBrKXeYg2JtAFFMWtKdG2BSFgqUcPVwTt"


class BondingCurve(msgspec.Struct, frozen=True, kw_only=True):
    """State of one curve. `real_tokens` can be bought; sales are paid from `real_quote`."""

    key: str
    mints: tuple[str, str]
    virtual_tokens: int
    virtual_quote: int
    real_tokens: int
    real_quote: int
    rates: Rates
    creator: str
    """Recipient of the creator's fee, as `creator_of` returns it."""

    def quote(self, mint_in: str, amount: int, *, exact_out: bool = False) -> PoolQuote:
        """Return the quote. If a purchase asks for more tokens than are left, the quote is for all that are left."""
        selling = side(self.mints, mint_in, self.key)
        checked(amount)
        if selling:
            return self._sale(self._tokens_for(amount) if exact_out else amount)
        if exact_out:
            return self._purchase(amount)
        priced = (amount - 1) * BPS // (BPS + self.rates.total())
        tokens = priced * self.virtual_tokens // (self.virtual_quote + priced)
        if tokens > self.real_tokens or tokens > self.for_exactly(amount):
            return self._purchase(tokens)
        net = self.rates.net(amount)
        return self._bought(amount, max(0, net), tokens, self.rates.of(max(0, net)))

    def for_exactly(self, amount: int) -> int:
        """Return the program's output for spending exactly `amount`.

        The program's own SDK may quote a little more. A purchase of that many tokens then takes no more than `amount`,
        because the fees, each rounded up, take one base unit less.
        """
        priced = max(0, self.rates.net(amount) - 1)
        return priced * self.virtual_tokens // (self.virtual_quote + priced)

    def _purchase(self, tokens: int) -> PoolQuote:
        """Return the quote of a purchase of `tokens`, or of the remaining tokens. The cost rounds down, plus one."""
        tokens = min(tokens, self.real_tokens)
        cost = tokens * self.virtual_quote // (self.virtual_tokens - tokens) + 1
        parts = self.rates.of(cost)
        return self._bought(checked(cost + sum(parts)), cost, tokens, parts)

    def _bought(self, amount_in: int, net: int, tokens: int, parts: tuple[int, int, int]) -> PoolQuote:
        base, quote = self.mints
        return PoolQuote(
            pool=self.key,
            mint_in=quote,
            mint_out=base,
            amount_in=amount_in,
            amount_out=tokens,
            fees=fees(("protocol", quote, parts[1]), (self.creator, quote, parts[2])),
            impact=max(0, net * self.virtual_tokens // self.virtual_quote - tokens),
        )

    def _sale(self, tokens: int) -> PoolQuote:
        """Return the quote of a sale. The output rounds down."""
        gross = tokens * self.virtual_quote // (self.virtual_tokens + tokens)
        if gross > self.real_quote:
            raise NoQuoteError(TOO_LARGE, f"the curve would owe {gross} and has {self.real_quote}")
        parts = self.rates.of(gross)
        if gross < sum(parts):
            raise NoQuoteError(TOO_SMALL, f"{tokens} bring {gross} before fees")
        base, quote = self.mints
        return PoolQuote(
            pool=self.key,
            mint_in=base,
            mint_out=quote,
            amount_in=tokens,
            amount_out=gross - sum(parts),
            fees=fees(("protocol", quote, parts[1]), (self.creator, quote, parts[2])),
            impact=max(0, tokens * self.virtual_quote // self.virtual_tokens - gross),
        )

    def _tokens_for(self, net: int) -> int:
        """Return the fewest tokens whose sale pays at least `net`; rounds up."""
        if self.rates.total() >= BPS:
            raise NoQuoteError(TOO_SMALL, "fees take all of a sale")
        gross = self.rates.gross(net)
        if gross > self.real_quote or gross >= self.virtual_quote:
            raise NoQuoteError(TOO_LARGE, f"the curve would owe {gross} and has {self.real_quote}")
        return checked(ceil_div(gross * self.virtual_tokens, self.virtual_quote - gross))


def quote_mint(account: Account) -> str:
    """Return the mint that a curve trades against; SOL if its account has none, or zero."""
    given: str | None = account.fields.get("quote_mint")
    return WSOL_MINT if given is None or given == SYSTEM_PROGRAM else given


def _mints(key: str, account: Account, accounts: Accounts) -> tuple[str, str] | None:
    coins = (each for each, known in accounts.items() if known.name == "Mint")
    base = next((each for each in coins if pda(PROGRAM, b"bonding-curve", each) == key), None)
    return None if base is None else (base, quote_mint(account))


def _needs(key: str, accounts: Accounts) -> Iterator[str]:
    yield from (key, GLOBAL, FEE_CONFIG)
    curve = accounts.get(key)
    if curve is not None and quote_mint(curve) != WSOL_MINT:
        yield quote_mint(curve)


def _read(key: str, accounts: Accounts, clock: Clock) -> BondingCurve:
    account = find(accounts, key, "pump", "BondingCurve")
    settings = find(accounts, GLOBAL, "pump", "Global")
    names = ("virtual_token_reserves", "virtual_quote_reserves", "real_token_reserves", "real_quote_reserves")
    tokens, quote, real_tokens, real_quote, complete = whole(account, *names, "complete")
    if not tokens or not quote:
        raise NoQuoteError(MIGRATED if complete else EMPTY, f"curve {key}")
    if complete or not real_tokens:
        raise NoQuoteError(COMPLETE, f"curve {key}")
    mints = _mints(key, account, accounts)
    if mints is None:
        raise NoQuoteError(NO_ACCOUNT, f"the mint of curve {key}")
    read_plain_mint(accounts, mints[1], clock)
    fields = account.fields
    supply = read_plain_mint(accounts, mints[0], clock).supply if fields.get("is_mayhem_mode") else SUPPLY
    if supply is None:
        raise NoQuoteError(NO_ACCOUNT, f"mint {mints[0]}")
    config = find(accounts, FEE_CONFIG, "pump_fees", "FeeConfig")
    rates = rates_of(config, mints[1], quote * supply // tokens)
    rates = with_creator(rates, account, settings, fields.get("creator"))
    return BondingCurve(
        key=key,
        mints=mints,
        virtual_tokens=tokens,
        virtual_quote=quote,
        real_tokens=real_tokens,
        real_quote=real_quote,
        rates=rates._replace(lp=0),
        creator=creator_of(account),
    )


def _derive(base: str, quote: str) -> Iterator[str]:
    if base != WSOL_MINT:
        yield pda(PROGRAM, b"bonding-curve", base)


CURVE: Final = Curve("BondingCurve", _mints, _needs, _read, _derive)
