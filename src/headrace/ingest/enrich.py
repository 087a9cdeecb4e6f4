"""What a decoded event means: a trade of a mint, or a new token. Pure."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from headrace.ingest.swaps import POOL_ACCOUNTS, POOL_EVENTS, READERS, TOLD_AS, Pair, Swap
from headrace.model.events import DecodedAccount, DecodedEvent
from headrace.model.keys import WSOL_MINT

POOLS_MAX: Final = 100_000
TOKEN_ID_NAMESPACE: Final = uuid.NAMESPACE_URL

USDC_MINT: Final = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
USDT_MINT: Final = "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB"

_QUOTE_RANKS: Final = {WSOL_MINT: 1, USDC_MINT: 2, USDT_MINT: 2}
"""Of two mints, the higher one is the quote: dollars before SOL before all others; of equals the pool's second."""

Side: TypeAlias = Literal["buy", "sell"]


class Context(NamedTuple):
    """What a whole transaction adds to an event: the named accounts of the instruction that emitted it, and which mint
    each token account holds. Both are empty where only log lines came."""

    accounts: Mapping[str, str] = {}
    mints: Mapping[str, str] = {}


LOGS_ONLY: Final = Context()


class Trade(NamedTuple):
    """One swap. The base is what is bought or sold, the quote what it is paid in; amounts in base units of their mints.

    `mint` (of the base) and `quote_mint` are None where neither the event nor its transaction names them and the pool
    is not known; base and quote then follow the pool's own order.
    """

    mint: str | None
    quote_mint: str | None
    side: Side
    user: str | None
    base_amount: int
    quote_amount: int
    pool: str | None


class TokenCreated(NamedTuple):
    """A token came to be."""

    mint: str
    name: str
    symbol: str
    creator: str

    @property
    def token_id(self) -> str:
        """`uuid5(NAMESPACE_URL, mint)`: the same everywhere, in any language."""
        return str(uuid.uuid5(TOKEN_ID_NAMESPACE, self.mint))


class Pools:
    """The mints of the pools seen so far, at most `pools_max`; when full, the one learned first is forgotten."""

    def __init__(self, pools_max: int = POOLS_MAX) -> None:
        self._pools_max = pools_max
        self._pairs: dict[str, Pair] = {}

    def pair(self, pool: str) -> Pair | None:
        return self._pairs.get(pool)

    def learn(self, pool: str | None, first: str | None, second: str | None) -> None:
        """Remember a pool's mints, if nothing is missing. They never change, so the first word stays."""
        if pool and first and second and pool not in self._pairs:
            if len(self._pairs) >= self._pools_max:
                del self._pairs[next(iter(self._pairs))]
            self._pairs[pool] = Pair(first, second)

    def learn_event(self, event: DecodedEvent) -> None:
        """The pool that the event creates, if it does."""
        if names := POOL_EVENTS.get((event.program, event.name)):
            self.learn(*(event.data.get(name) for name in names))

    def learn_account(self, pubkey: str, account: DecodedAccount) -> None:
        """The pool that the account is, if it is one."""
        if names := POOL_ACCOUNTS.get((account.program, account.name)):
            self.learn(pubkey, *(account.data.get(name) for name in names))


def trade_of(event: DecodedEvent, context: Context, pools: Pools) -> Trade | None:
    """The trade that the event tells of, if it does. Learns the pool's mints where the transaction shows them."""
    reader = READERS.get((event.program, event.name))
    swap = reader(event.data, context.accounts) if reader is not None else None
    if swap is None or None in swap[:3]:
        return None
    pair = _pair_of(swap, context, pools)
    if pair is None:
        first_is_base, mint, quote_mint = True, None, None
    else:
        first, second = pair
        first_is_base = _QUOTE_RANKS.get(first, 0) <= _QUOTE_RANKS.get(second, 0)
        mint, quote_mint = (first, second) if first_is_base else (second, first)
    side: Side = "sell" if swap.first_in == first_is_base else "buy"
    amounts = (swap.first, swap.second) if first_is_base else (swap.second, swap.first)
    return Trade(mint, quote_mint, side, swap.user, *amounts, swap.pool)


def _pair_of(swap: Swap, context: Context, pools: Pools) -> Pair | None:
    if swap.pool is None and swap.pair is not None:
        return swap.pair
    if swap.pool is not None and (known := pools.pair(swap.pool)) is not None:
        return known
    first, second = swap.pair or (context.mints.get(holder or "") for holder in swap.holders)
    pools.learn(swap.pool, first, second)
    return Pair(first, second) if first and second else None


def is_told_again(event: DecodedEvent, events: Sequence[DecodedEvent]) -> bool:
    """Whether the same instruction tells the event's swap by an older event too, which then is the one that counts."""
    older = TOLD_AS.get((event.program, event.name))
    return older is not None and any(
        other.name == older and other.path == event.path and other.program == event.program for other in events
    )


def created_of(event: DecodedEvent, context: Context) -> TokenCreated | None:
    """The token that the event creates. LaunchLab's event does not name its mint: it takes the instruction."""
    data = event.data
    match event.program, event.name:
        case "pump", "CreateEvent":
            created = data["mint"], data["name"], data["symbol"], data["creator"] or data["user"]
        case "raydium_launchlab", "PoolCreateEvent":
            token = data["base_mint_param"] or {}
            created = context.accounts.get("base_mint"), token.get("name"), token.get("symbol"), data["creator"]
        case _:
            return None
    return None if None in created else TokenCreated(*created)
