"""Facts of pools and mints, learned from the stream. Pure and bounded."""

from collections.abc import Iterable
from typing import Final

from headrace.model.events import DecodedEvent
from headrace.model.facts import MintFacts
from headrace.model.keys import USDC_MINT, USDT_MINT, WSOL_MINT
from headrace.model.updates import TokenBalance
from headrace.programs.meanings import AboutMint, EventFacts, Fields, Pair
from headrace.programs.register import ACCOUNTS

POOLS_MAX: Final = 100_000
MINTS_MAX: Final = 100_000

UNKNOWN: Final = MintFacts()
_WELL_KNOWN: Final = {WSOL_MINT: MintFacts(9), USDC_MINT: MintFacts(6), USDT_MINT: MintFacts(6)}


class Pools:
    """The mints of at most `pools_max` pools; when full, the pool learned first is forgotten."""

    def __init__(self, pools_max: int = POOLS_MAX) -> None:
        self._pools_max = pools_max
        self._pairs: dict[str, Pair] = {}

    def pair(self, pool: str) -> Pair | None:
        """Return the pool's mints; None for a pool that was not seen."""
        return self._pairs.get(pool)

    def learn(self, pool: str | None, pair: Pair) -> None:
        """Remember a pool's mints. They never change, so the first that are learned stay."""
        if pool is not None and pool not in self._pairs:
            if len(self._pairs) >= self._pools_max:
                del self._pairs[next(iter(self._pairs))]
            self._pairs[pool] = pair

    def learn_event(self, event: DecodedEvent, meaning: EventFacts) -> None:
        """Learn the pool that the event creates, if it creates one."""
        if meaning.pool is not None:
            pool, first, second = (event.data.get(name) for name in meaning.pool)
            if first and second:
                self.learn(pool, Pair(first, second))

    def learn_account(self, pubkey: str, program: str, name: str, values: Fields) -> None:
        """Learn the pool's mints, if the account is a pool."""
        if pair := pair_of_pool(program, name, values):
            self.learn(pubkey, Pair(*pair))


def pair_of_pool(program: str, name: str, values: Fields) -> tuple[str, str] | None:
    """Return the first and the second mint of a pool account; None if the account is not a pool."""
    meaning = ACCOUNTS.get((program, name))
    if meaning is None or meaning.pool is None:
        return None
    first, second = (values.get(name) if name else WSOL_MINT for name in meaning.pool)
    return (first, second) if isinstance(first, str) and isinstance(second, str) else None


class Mints:
    """Facts of at most `mints_max` mints; when full, the mint learned first is forgotten.

    The latest fact counts, with one exception: a supply that a program only assumes (pump.fun) never replaces a supply
    read from the mint.
    """

    def __init__(self, mints_max: int = MINTS_MAX) -> None:
        self._mints_max = mints_max
        self._facts: dict[str, MintFacts] = {}

    def of(self, mint: str) -> MintFacts:
        """Return what is known of the mint."""
        return _WELL_KNOWN.get(mint) or self._facts.get(mint, UNKNOWN)

    def learn(self, mint: str, learned: MintFacts, *, nominal: bool = False) -> None:
        """Add what was learned. `nominal`: the supply counts only if none is known."""
        known = self._facts.get(mint)
        if known is None:
            if len(self._facts) >= self._mints_max:
                del self._facts[next(iter(self._facts))]
            self._facts[mint] = learned
            return
        if learned == known:
            return
        decimals, supply = learned.decimals, learned.supply
        if decimals is None:
            decimals = known.decimals
        if supply is None or (nominal and known.supply is not None):
            supply = known.supply
        self._facts[mint] = MintFacts(decimals, supply)

    def learn_event(self, event: DecodedEvent, meaning: EventFacts, base: str | None = None) -> None:
        """Learn the event's facts about mints; `base` is the mint that the event trades or creates, if there is one."""
        if meaning.mints is not None:
            self._learn_all(meaning.mints(event.data, base))

    def learn_account(self, pubkey: str, program: str, name: str, values: Fields) -> None:
        """Learn the account's facts about mints, if it is a mint, or a pool that has its mints' facts."""
        meaning = ACCOUNTS.get((program, name))
        if meaning is not None and meaning.mints is not None:
            self._learn_all(meaning.mints(pubkey, values))

    def learn_balances(self, balances: Iterable[TokenBalance]) -> None:
        """Learn decimals, which a whole transaction has for every mint that it touched."""
        for held in balances:
            self.learn(held.mint, MintFacts(held.decimals))

    def _learn_all(self, about: Iterable[AboutMint]) -> None:
        for each in about:
            if each.mint is not None:
                self.learn(each.mint, each.facts, nominal=each.nominal)
