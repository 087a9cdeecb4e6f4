"""Builds swaps on Meteora's dynamic bonding curves."""

from typing import Final

from headrace.model.transactions import Instruction
from headrace.programs.meteora_fees import LIMITER
from headrace.programs.quoting import Accounts, find, whole
from headrace.programs.swapping import (
    INSTRUCTIONS_SYSVAR,
    Order,
    Swap,
    amounts,
    read,
    signs,
    token_account,
    token_program,
    write,
)

PROGRAM: Final = "dbcij3LWUppWqq96dh6gJWwBifmcGfLSB5D4DuSMaqN"
AUTHORITY: Final = "FhVo3mqL8PW5pH5U2CN4XE33DokiyZnUwuGpH2hmHLuM"
EVENT_AUTHORITY: Final = "8Ks12pbrD6PXxfty1hVQiE9sc289zgU1zHkvXhrSdriF"
SWAP2: Final = "414b3f4ceb5b5b88"
EXACT_IN: Final = b"\x00"
EXACT_OUT: Final = b"\x02"


def _build(order: Order, accounts: Accounts) -> Instruction:
    quote, user = order.quote, order.user
    pool = find(accounts, quote.pool, "meteora_dbc", "VirtualPool")
    state = whole(pool, "pool_state")[0]
    config = find(accounts, state["config"], "meteora_dbc", "PoolConfig")
    quoted, pool_fees = whole(config, "quote_mint", "pool_fees")
    base = state["base_mint"]
    metas = (
        read(AUTHORITY),
        read(state["config"]),
        write(quote.pool),
        write(token_account(user, quote.mint_in, accounts)),
        write(token_account(user, quote.mint_out, accounts)),
        write(state["base_vault"]),
        write(state["quote_vault"]),
        read(base),
        read(quoted),
        signs(user),
        read(token_program(base, accounts)),
        read(token_program(quoted, accounts)),
        read(PROGRAM),  # in place of the optional account of a referrer: none
        read(EVENT_AUTHORITY),
        read(PROGRAM),
        *([read(INSTRUCTIONS_SYSVAR)] if pool_fees["base_fee"]["base_fee_mode"] == LIMITER else []),
    )
    if order.exact_out:
        return Instruction(PROGRAM, metas, amounts(SWAP2, quote.amount_out, order.limit) + EXACT_OUT)
    return Instruction(PROGRAM, metas, amounts(SWAP2, quote.amount_in, order.limit) + EXACT_IN)


SWAP: Final = Swap(PROGRAM, _build, frozenset((6002,)))
