"""Builds swaps on Raydium's CLMM, with the tick arrays that the price may cross."""

from collections.abc import Iterator
from typing import Final

from headrace.model.transactions import Instruction
from headrace.programs.quoting import TOKEN_2022_PROGRAM, TOKEN_PROGRAM, Accounts, find, whole
from headrace.programs.raydium_clmm.curve import PROGRAM, array_key, array_start, extension_key, starts_of
from headrace.programs.swapping import MEMO_PROGRAM, Order, Swap, amounts, read, signs, token_account, write

SWAP_V2: Final = "2b04ed0b1ac91e62"
ARRAYS_MAX: Final = 8
"""Maximum number of arrays in one instruction."""


def _build(order: Order, accounts: Accounts) -> Instruction:
    quote, user = order.quote, order.user
    pool = find(accounts, quote.pool, "raydium_clmm", "PoolState")
    names = ("amm_config", "token_mint_0", "token_vault_0", "token_vault_1", "observation_key")
    config, first, vault_0, vault_1, observation = whole(pool, *names)
    vaults = (vault_0, vault_1) if quote.mint_in == first else (vault_1, vault_0)
    extension = extension_key(quote.pool)
    metas = (
        signs(user),
        read(config),
        write(quote.pool),
        write(token_account(user, quote.mint_in, accounts)),
        write(token_account(user, quote.mint_out, accounts)),
        *map(write, vaults),
        write(observation),
        read(TOKEN_PROGRAM),
        read(TOKEN_2022_PROGRAM),
        read(MEMO_PROGRAM),
        read(quote.mint_in),
        read(quote.mint_out),
        *([write(extension)] if extension in accounts else []),
        *(write(key) for key in _arrays(order, accounts)),
    )
    amount, limit = (quote.amount_out if order.exact_out else quote.amount_in), order.limit
    no_price_limit, base_input = bytes(16), bytes([not order.exact_out])
    return Instruction(PROGRAM, metas, amounts(SWAP_V2, amount, limit) + no_price_limit + base_input)


def _arrays(order: Order, accounts: Accounts) -> Iterator[str]:
    """Yield the tick arrays from the price on, in the direction of the swap."""
    key = order.quote.pool
    pool = accounts[key]
    tick, spacing, first = whole(pool, "tick_current", "tick_spacing", "token_mint_0")
    starts, here = starts_of(pool, accounts.get(extension_key(key)), spacing), array_start(tick, spacing)
    onward = [start for start in reversed(starts) if start <= here]
    if order.quote.mint_in != first:
        onward = [start for start in starts if start >= here]
    yield from (array_key(key, start) for start in onward[:ARRAYS_MAX])


SWAP: Final = Swap(PROGRAM, _build, frozenset((6022, 6023)))
