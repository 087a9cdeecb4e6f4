"""Builds swaps on Raydium's CPMM."""

from typing import Final

from headrace.model.transactions import Instruction
from headrace.programs.quoting import Accounts, find, whole
from headrace.programs.swapping import Order, Swap, amounts, read, signs, token_account, token_program, write

PROGRAM: Final = "CPMMoo8L3F4NbTegBCKVNunggL7H1ZpdTHKxQB5qKP1C"
AUTHORITY: Final = "GpMZbSM2GgvTKHJirzeGfMFoaZ8UR2X7F4v8vHTvxFbL"
SWAP_BASE_INPUT: Final = "8fbe5adac41e33de"
SWAP_BASE_OUTPUT: Final = "37d96256a34ab4ad"


def _build(order: Order, accounts: Accounts) -> Instruction:
    quote, user = order.quote, order.user
    pool = find(accounts, quote.pool, "raydium_cpmm", "PoolState")
    config, first, vault_0, vault_1, observation = whole(
        pool, "amm_config", "token_0_mint", "token_0_vault", "token_1_vault", "observation_key"
    )
    vaults = (vault_0, vault_1) if quote.mint_in == first else (vault_1, vault_0)
    metas = (
        signs(user),
        read(AUTHORITY),
        read(config),
        write(quote.pool),
        write(token_account(user, quote.mint_in, accounts)),
        write(token_account(user, quote.mint_out, accounts)),
        *map(write, vaults),
        read(token_program(quote.mint_in, accounts)),
        read(token_program(quote.mint_out, accounts)),
        read(quote.mint_in),
        read(quote.mint_out),
        write(observation),
    )
    if order.exact_out:
        return Instruction(PROGRAM, metas, amounts(SWAP_BASE_OUTPUT, order.limit, quote.amount_out))
    return Instruction(PROGRAM, metas, amounts(SWAP_BASE_INPUT, quote.amount_in, order.limit))


SWAP: Final = Swap(PROGRAM, _build, frozenset((6005,)))
