"""Builds swaps on Raydium's AMM v4 by the short instruction, which names no order book."""

import struct
from typing import Final

from headrace.model.transactions import Instruction
from headrace.programs.quoting import TOKEN_PROGRAM, Accounts, find, whole
from headrace.programs.swapping import Order, Swap, read, signs, token_account, write

PROGRAM: Final = "675kPX9MHTjS2zt1qfr1NYHuzeLXfQM9H24wFSUt1Mp8"
AUTHORITY: Final = "5Q544fKrFoe6tsEbD7S8EmxGTJYAKtTVhAW5Q5pge4j1"
SWAP_BASE_IN: Final = 16
SWAP_BASE_OUT: Final = 17


def _build(order: Order, accounts: Accounts) -> Instruction:
    quote = order.quote
    pool = find(accounts, quote.pool, "raydium_amm_v4", "AmmInfo")
    coin, pc = whole(pool, "token_coin", "token_pc")
    metas = (
        read(TOKEN_PROGRAM),
        write(quote.pool),
        read(AUTHORITY),
        write(coin),
        write(pc),
        write(token_account(order.user, quote.mint_in, accounts)),
        write(token_account(order.user, quote.mint_out, accounts)),
        signs(order.user),
    )
    if order.exact_out:
        return Instruction(PROGRAM, metas, struct.pack("<BQQ", SWAP_BASE_OUT, order.limit, quote.amount_out))
    return Instruction(PROGRAM, metas, struct.pack("<BQQ", SWAP_BASE_IN, quote.amount_in, order.limit))


SWAP: Final = Swap(PROGRAM, _build, frozenset((30,)))
