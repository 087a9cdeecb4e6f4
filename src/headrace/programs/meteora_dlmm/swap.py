"""Builds swaps on Meteora's DLMM, with the bin arrays that the price may cross."""

import struct
from collections.abc import Iterator
from typing import Final

from headrace.model.transactions import Instruction
from headrace.programs.meteora_dlmm.curve import BINS, PROGRAM, array_key, extension_key, indexes_of
from headrace.programs.quoting import Accounts, find, whole
from headrace.programs.swapping import (
    MEMO_PROGRAM,
    Order,
    Swap,
    amounts,
    read,
    signs,
    token_account,
    token_program,
    write,
)

EVENT_AUTHORITY: Final = "D1ZN9Wj1fRSUQfCjhvnu1hqDMT7hzjzBBpi12nVniYD6"
SWAP_IN: Final = "414b3f4ceb5b5b88"
SWAP_OUT: Final = "2bd7f784893cf351"
ARRAYS_MAX: Final = 8
"""Maximum number of arrays in one instruction."""


def _build(order: Order, accounts: Accounts) -> Instruction:
    quote, user = order.quote, order.user
    pair = find(accounts, quote.pool, "meteora_dlmm", "LbPair")
    names = ("token_x_mint", "token_y_mint", "reserve_x", "reserve_y", "oracle")
    x, y, reserve_x, reserve_y, oracle = whole(pair, *names)
    extension = extension_key(quote.pool)
    metas = (
        write(quote.pool),
        write(extension) if extension in accounts else read(PROGRAM),
        write(reserve_x),
        write(reserve_y),
        write(token_account(user, quote.mint_in, accounts)),
        write(token_account(user, quote.mint_out, accounts)),
        read(x),
        read(y),
        write(oracle),
        read(PROGRAM),
        signs(user),
        read(token_program(x, accounts)),
        read(token_program(y, accounts)),
        read(MEMO_PROGRAM),
        read(EVENT_AUTHORITY),
        read(PROGRAM),
        *(write(key) for key in _arrays(order, accounts)),
    )
    no_extra_accounts = struct.pack("<I", 0)
    if order.exact_out:
        return Instruction(PROGRAM, metas, amounts(SWAP_OUT, order.limit, quote.amount_out) + no_extra_accounts)
    return Instruction(PROGRAM, metas, amounts(SWAP_IN, quote.amount_in, order.limit) + no_extra_accounts)


def _arrays(order: Order, accounts: Accounts) -> Iterator[str]:
    """Yield the bin arrays from the active one on, in the direction of the swap."""
    pool = order.quote.pool
    pair = accounts[pool]
    active, x = whole(pair, "active_id", "token_x_mint")
    extension = accounts.get(extension_key(pool))
    indexes, here = indexes_of(pair, extension), active // BINS
    onward = [index for index in reversed(indexes) if index <= here]
    if order.quote.mint_in != x:
        onward = [index for index in indexes if index >= here]
    yield from (array_key(pool, index) for index in onward[:ARRAYS_MAX])


SWAP: Final = Swap(PROGRAM, _build, frozenset((6003,)))
