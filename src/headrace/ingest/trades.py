"""Reads a swap as a trade: base and quote, side, and for which user. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from headrace.ingest.known import Pools
from headrace.model.events import DecodedEvent
from headrace.model.keys import USDC_MINT, USDT_MINT, WSOL_MINT
from headrace.model.trades import Side, Trade
from headrace.model.updates import Instruction, TransactionUpdate
from headrace.programs.meanings import Holders, Pair, Scene, Swap

_QUOTE_RANKS: Final = {WSOL_MINT: 1, USDC_MINT: 2, USDT_MINT: 2}
"""Rank of a mint as quote: dollars, then SOL, then others. Of equal ranks, the pool's second mint is the quote."""


def trade_of(swap: Swap, scene: Scene, pools: Pools, user: str | None, authority: str | None = None) -> Trade | None:
    """Return the swap as a trade; None if its amounts or direction are not known.

    Learns the pool's mints if the transaction shows them. Raises TypeError for amounts that are not integers, which an
    IDL from outside may produce.
    """
    first, second, first_in = swap.first, swap.second, swap.first_in
    if first is None or second is None or first_in is None:
        return None
    if type(first) is not int or type(second) is not int:
        raise TypeError(f"amounts are {type(first).__name__} and {type(second).__name__}, expected integers")
    pair = _pair_of(swap, scene, pools)
    base, quote = (None, None) if pair is None else (pair.first, pair.second)
    if pair is None or _QUOTE_RANKS.get(pair.first, 0) <= _QUOTE_RANKS.get(pair.second, 0):
        side: Side = "sell" if first_in else "buy"
        return Trade(base, quote, side, user, first, second, swap.pool, authority)
    side = "buy" if first_in else "sell"
    return Trade(quote, base, side, user, second, first, swap.pool, authority)


def _pair_of(swap: Swap, scene: Scene, pools: Pools) -> Pair | None:
    if swap.pool is None and swap.pair is not None:
        return swap.pair
    if swap.pool is not None and (known := pools.pair(swap.pool)) is not None:
        return known
    pair = swap.pair
    if pair is None and scene.mints:
        first, second = (_mint_of(holders, scene) for holders in swap.holders)
        pair = Pair(first, second) if first and second else None
    if pair is not None:
        pools.learn(swap.pool, pair)
    return pair


def _mint_of(holders: Holders, scene: Scene) -> str | None:
    """Return the mint of the first of these token accounts whose mint is known."""
    return next((mint for each in holders if each is not None and (mint := scene.mints.get(each))), None)


def is_repeated(event: DecodedEvent, older: str | None, events: Iterable[DecodedEvent]) -> bool:
    """Return whether the same instruction also records the swap as the event `older`, which then counts instead."""
    return older is not None and any(
        other.name == older and other.path == event.path and other.program == event.program for other in events
    )


def on_behalf(named: str | None, path: tuple[int, ...], update: TransactionUpdate) -> tuple[str | None, str | None]:
    """Return (user, authority) of the swap at `path`, whose program names `named` as its trader.

    If a router called the program, `named` is the router's authority. If `named` signed the transaction, it is the
    user, and there is no authority. Otherwise `named` is the authority (of a router or a vault). The user is then the
    signer among the accounts of the nearest caller that has a signer; of several, the first that owns a token account.
    If the transaction's signers are unknown (`update.signers` is 0), the user is `named`.
    """
    signers = update.account_keys[: update.signers]
    if not signers or named in signers:
        return named, None
    if len(signers) == 1:
        return signers[0], named
    for accounts in _accounts_of_callers(path, update.instructions):
        found = [key for key in accounts if key in signers]
        if found:
            owners = {held.owner for held in (*update.pre_token_balances, *update.post_token_balances)}
            return next((key for key in found if key in owners), found[0]), named
    return signers[0], named


def _accounts_of_callers(path: tuple[int, ...], instructions: Sequence[Instruction]) -> Iterator[tuple[str, ...]]:
    """Yield the accounts of the instruction at `path`, then of its caller, up to the top-level instruction.

    If a node left out stack heights, only the top-level instruction is a certain caller.
    """
    height: int | None = None
    reached = False
    for instruction in reversed(instructions):
        if instruction.path == path:
            reached, height = True, instruction.stack_height
            yield instruction.accounts
        elif reached and instruction.path[0] == path[0]:
            is_top = len(instruction.path) == 1
            above = height is not None and instruction.stack_height is not None and instruction.stack_height < height
            if is_top or above:
                height = instruction.stack_height
                yield instruction.accounts
