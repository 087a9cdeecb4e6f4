"""What is known of mints, their decimals and supplies, learned from what passes. Pure and bounded."""

from collections.abc import Iterable
from typing import Final

from headrace.model.events import DecodedAccount, DecodedEvent
from headrace.model.keys import USDC_MINT, USDT_MINT, WSOL_MINT
from headrace.model.updates import TokenBalance
from headrace.programs.meanings import AboutMint, MintFacts
from headrace.programs.register import ACCOUNTS, EVENTS

MINTS_MAX: Final = 100_000

UNKNOWN: Final = MintFacts()
_WELL_KNOWN: Final = {WSOL_MINT: MintFacts(9), USDC_MINT: MintFacts(6), USDT_MINT: MintFacts(6)}


class Mints:
    """MintFacts by mint, of at most `mints_max`; when full, the mint learned first is forgotten.

    The latest word counts, except that a supply which a program merely goes by (pump.fun) gives way to one that was
    read from the mint.
    """

    def __init__(self, mints_max: int = MINTS_MAX) -> None:
        self._mints_max = mints_max
        self._facts: dict[str, MintFacts] = {}

    def of(self, mint: str) -> MintFacts:
        return _WELL_KNOWN.get(mint) or self._facts.get(mint, UNKNOWN)

    def learn(self, mint: str, told: MintFacts, *, nominal: bool = False) -> None:
        """Add what was told. `nominal`: the supply counts only where none is known."""
        known = self._facts.get(mint)
        if known is None:
            if len(self._facts) >= self._mints_max:
                del self._facts[next(iter(self._facts))]
            self._facts[mint] = told
            return
        decimals, supply = told
        if decimals is None:
            decimals = known.decimals
        if supply is None or (nominal and known.supply is not None):
            supply = known.supply
        if known != (decimals, supply):
            self._facts[mint] = MintFacts(decimals, supply)

    def learn_event(self, event: DecodedEvent, base: str | None = None) -> None:
        """Learn what the event says of mints; `base` is the mint that the event trades or creates, if there is one."""
        facts = EVENTS.get((event.program, event.name))
        if facts is not None and facts.mints is not None:
            self._learn_all(facts.mints(event.data, base))

    def learn_account(self, pubkey: str, account: DecodedAccount) -> None:
        """Learn what the account says, if it is a mint or a pool that knows its mints."""
        facts = ACCOUNTS.get((account.program, account.name))
        if facts is not None and facts.mints is not None:
            self._learn_all(facts.mints(pubkey, account.data))

    def _learn_all(self, about: Iterable[AboutMint]) -> None:
        for mint, facts, nominal in about:
            if mint is not None:
                self.learn(mint, facts, nominal=nominal)

    def learn_balances(self, balances: Iterable[TokenBalance]) -> None:
        """Decimals, which a whole transaction tells of every mint that it touched."""
        for held in balances:
            self.learn(held.mint, MintFacts(held.decimals))
