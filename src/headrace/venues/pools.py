"""A venue of real pools: quotes by the programs' own rules from the accounts of a bank, and swaps for its chain."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Final, Self

import msgspec

from headrace.adapters import Context
from headrace.config import SameAs
from headrace.decoders.registry import Programs
from headrace.model.amounts import BaseUnits, Bps
from headrace.model.errors import BadInputError, ConfigError, TransientError
from headrace.model.orders import BPS_WHOLE, Charge, Leg, OrderRequest, Quote
from headrace.model.transactions import Instruction
from headrace.programs.curves import CURVES
from headrace.programs.quoting import Account, Clock, NoQuoteError, PoolQuote
from headrace.programs.swapping import Order
from headrace.programs.swaps import instructions
from headrace.solana.bank import Bank, Held, shared_bank

POOLS_MAX: Final = 64
"""Maximum number of pools per pair that are asked for a quote."""


class PoolVenueSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[venues.pools]`."""

    bank: Annotated[str | None, SameAs("bank.file")] = None


class PoolVenue:
    """All pools in a bank, of all programs with a curve. A quote is the best quote of a single pool.

    The bank is also the local chain's, so a quote is computed from the state after the last transaction.
    """

    Settings: ClassVar = PoolVenueSettings
    name: ClassVar[str] = "pools"

    @classmethod
    async def open(cls, settings: PoolVenueSettings, context: Context) -> Self:
        """Return the venue. Raises ConfigError without a bank file."""
        if settings.bank is None:
            raise ConfigError("BANK_FILE", "nothing", "a bank file, as the venue of pools is chosen")
        bank = await asyncio.to_thread(shared_bank, Path(settings.bank))
        return cls(bank, await asyncio.to_thread(context.programs))

    def __init__(self, bank: Bank, programs: Programs) -> None:
        self._bank, self._programs = bank, programs
        self._known: dict[str, tuple[Held, Account]] = {}

    async def quote(self, request: OrderRequest) -> Quote:
        """Return the best offer. Raises TransientError if no pool of these mints gives a quote for the whole amount."""
        accounts, clock = self._accounts(), self._clock()
        mints = {request.token_in.mint, request.token_out.mint}
        best: PoolQuote | None = None
        for key, venue in self._pools(accounts, mints):
            try:
                found = CURVES[venue].read(key, accounts, clock).quote(request.token_in.mint, request.amount)
            except (NoQuoteError, BadInputError):
                continue
            if found.amount_in == request.amount and (best is None or found.amount_out > best.amount_out):
                best = found
        if best is None:
            raise TransientError("no pool gives a quote")
        return Quote(
            venue=self.name,
            amount_in=request.amount,
            amount_out=BaseUnits(best.amount_out),
            fee_bps=_fee_bps(best),
            route=(Leg(best.pool, best.mint_in, best.mint_out),),
            slot=clock.slot,
            fees=tuple(Charge(fee.to, fee.mint, BaseUnits(fee.amount)) for fee in best.fees),
            impact=BaseUnits(best.impact),
        )

    async def swap(self, quote: Quote, owner: str, min_out: BaseUnits) -> Sequence[Instruction]:
        """Return the instructions for the quote's pool in its current state. The swap itself enforces `min_out`."""
        accounts, leg = self._accounts(), quote.route[0]
        account = accounts.get(leg.pool)
        if account is None or account.program not in CURVES:
            raise TransientError("the pool is not known any more")
        try:
            market = CURVES[account.program].read(leg.pool, accounts, self._clock())
            now = market.quote(leg.mint_in, quote.amount_in)
            order = Order(quote=now, user=owner, limit=min_out)
            return instructions(account.program, order, accounts)
        except (NoQuoteError, BadInputError) as error:
            raise TransientError("the pool gives no swap") from error

    async def check(self, *, thorough: bool) -> None:
        """Do nothing: the bank is in this process."""

    async def close(self) -> None:
        """Do nothing: other parts of this process may use the bank."""

    def _clock(self) -> Clock:
        return Clock(*self._bank.clock)

    def _accounts(self) -> dict[str, Account]:
        """Return all accounts of the bank; accounts that have changed are decoded again."""
        accounts = {}
        for key, held in self._bank.accounts().items():
            known = self._known.get(key)
            if known is None or known[0].data != held.data or known[0].owner != held.owner:
                decoded = self._programs.account(held.owner, held.data)
                known = self._known[key] = held, Account.of(held.owner, held.data, decoded)
            accounts[key] = known[1]
        return accounts

    def _pools(self, accounts: dict[str, Account], mints: set[str]) -> list[tuple[str, str]]:
        """Return (key, program) of the pools of two mints."""
        found = []
        for key, account in accounts.items():
            curve = CURVES.get(account.program)
            if curve is None or account.name != curve.account:
                continue
            try:
                pair = curve.mints(key, account, accounts)
            except BadInputError:
                continue
            if pair is not None and set(pair) == mints:
                found.append((key, account.program))
        return found[:POOLS_MAX]


def _fee_bps(quote: PoolQuote) -> Bps:
    """Return the sum of all fees, each in basis points of the amount from which it is taken; rounded up."""
    of_input = sum(fee.amount for fee in quote.fees if fee.mint == quote.mint_in)
    of_output = sum(fee.amount for fee in quote.fees if fee.mint == quote.mint_out)
    bps = -(-of_input * BPS_WHOLE // quote.amount_in)
    gross = quote.amount_out + of_output
    bps += -(-of_output * BPS_WHOLE // gross) if gross else 0
    return Bps(min(bps, BPS_WHOLE - 1))
