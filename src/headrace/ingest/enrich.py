"""What a decoded event means: a trade of a mint, or a new token. Pure."""

from collections.abc import Iterable
from typing import Final

import msgspec

from headrace.model.events import DecodedAccount, DecodedEvent
from headrace.model.keys import USDC_MINT, USDT_MINT, WSOL_MINT
from headrace.model.trades import Side, Trade, token_id_of
from headrace.programs.meanings import Holders, Pair, Scene, Swap
from headrace.programs.register import ACCOUNTS, EVENTS

POOLS_MAX: Final = 100_000


_QUOTE_RANKS: Final = {WSOL_MINT: 1, USDC_MINT: 2, USDT_MINT: 2}
"""Of two mints, the higher one is the quote: dollars before SOL before all others; of equals the pool's second."""


LOGS_ONLY: Final = Scene()


class TokenCreated(msgspec.Struct, frozen=True):
    """A token came to be."""

    mint: str
    name: str
    symbol: str
    creator: str

    @property
    def token_id(self) -> str:
        return token_id_of(self.mint)


class Pools:
    """The mints of the pools seen so far, at most `pools_max`; when full, the one learned first is forgotten."""

    def __init__(self, pools_max: int = POOLS_MAX) -> None:
        self._pools_max = pools_max
        self._pairs: dict[str, Pair] = {}

    def pair(self, pool: str) -> Pair | None:
        return self._pairs.get(pool)

    def learn(self, pool: str | None, pair: Pair) -> None:
        """Remember a pool's mints. They never change, so the first word stays."""
        if pool is not None and pool not in self._pairs:
            if len(self._pairs) >= self._pools_max:
                del self._pairs[next(iter(self._pairs))]
            self._pairs[pool] = pair

    def learn_event(self, event: DecodedEvent) -> None:
        """Learn the pool that the event creates, if it creates one."""
        facts = EVENTS.get((event.program, event.name))
        if facts is not None and facts.pool is not None:
            pool, first, second = (event.data.get(name) for name in facts.pool)
            if first and second:
                self.learn(pool, Pair(first, second))

    def learn_account(self, pubkey: str, account: DecodedAccount) -> None:
        """Learn the pool that the account is, if it is one."""
        if pair := pair_of_pool(account):
            self.learn(pubkey, Pair(*pair))


def pair_of_pool(account: DecodedAccount) -> tuple[str, str] | None:
    """Return the first and the second mint of a pool account; None for an account that is no pool."""
    facts = ACCOUNTS.get((account.program, account.name))
    names = None if facts is None else facts.pool
    first, second = (account.data.get(name) if name else WSOL_MINT for name in names) if names else (None, None)
    return (first, second) if isinstance(first, str) and isinstance(second, str) else None


def swap_of(event: DecodedEvent, scene: Scene) -> Swap | None:
    """Return the swap that the event records; None for an event that records none."""
    facts = EVENTS.get((event.program, event.name))
    return None if facts is None or facts.trade is None else facts.trade(event.data, scene)


def trade_of(swap: Swap, scene: Scene, pools: Pools, user: str | None, authority: str | None = None) -> Trade | None:
    """The trade that the swap is; None if its amounts or direction are not known.

    Learns the pool's mints where the transaction shows them.
    """
    if swap.first is None or swap.second is None or swap.first_in is None:
        return None
    pair = _pair_of(swap, scene, pools)
    base, quote = (None, None) if pair is None else (pair.first, pair.second)
    if pair is None or _QUOTE_RANKS.get(pair.first, 0) <= _QUOTE_RANKS.get(pair.second, 0):
        side: Side = "sell" if swap.first_in else "buy"
        return Trade(base, quote, side, user, swap.first, swap.second, swap.pool, authority)
    side = "buy" if swap.first_in else "sell"
    return Trade(quote, base, side, user, swap.second, swap.first, swap.pool, authority)


def _pair_of(swap: Swap, scene: Scene, pools: Pools) -> Pair | None:
    if swap.pool is None and swap.pair is not None:
        return swap.pair
    if swap.pool is not None and (known := pools.pair(swap.pool)) is not None:
        return known
    pair = swap.pair
    if pair is None:
        first, second = (_mint_of(holders, scene) for holders in swap.holders)
        pair = Pair(first, second) if first and second else None
    if pair is not None:
        pools.learn(swap.pool, pair)
    return pair


def _mint_of(holders: Holders, scene: Scene) -> str | None:
    """The mint of the first of these token accounts of which it is known."""
    return next((mint for each in holders if each is not None and (mint := scene.mints.get(each))), None)


def is_repeated(event: DecodedEvent, events: Iterable[DecodedEvent]) -> bool:
    """Return whether the same instruction records the swap by an older event too, which then is the one that counts."""
    facts = EVENTS.get((event.program, event.name))
    older = None if facts is None else facts.repeats
    return older is not None and any(
        other.name == older and other.path == event.path and other.program == event.program for other in events
    )


def is_creation(event: DecodedEvent) -> bool:
    """Return whether the event creates a token."""
    facts = EVENTS.get((event.program, event.name))
    return facts is not None and facts.token is not None


def created_of(event: DecodedEvent, scene: Scene) -> TokenCreated | None:
    """Return the token that the event creates; None if it creates none, or if something of the token is not known."""
    facts = EVENTS.get((event.program, event.name))
    if facts is None or facts.token is None:
        return None
    mint, name, symbol, creator = facts.token(event.data, scene)
    if mint is None or name is None or symbol is None or creator is None:
        return None
    return TokenCreated(mint, name, symbol, creator)
