"""Builds swaps on Meteora's DAMM v2."""

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

PROGRAM: Final = "cpamdpZCGKUy5JxQXB4dcpGPiikHawvSWAd6mEn1sGG"
AUTHORITY: Final = "HLnpSz9h2S4hiLQ43rnSD9XkcUThA7B8hQMKmDaiTLcC"
EVENT_AUTHORITY: Final = "3rmHSu74h1ZcmAisVcWerTCiRDQbUrBKmcwptYGjHfet"
SWAP2: Final = "414b3f4ceb5b5b88"
EXACT_IN: Final = b"\x00"
EXACT_OUT: Final = b"\x02"

_MODE_OFFSET: Final = 8


def _build(order: Order, accounts: Accounts) -> Instruction:
    quote, user = order.quote, order.user
    pool = find(accounts, quote.pool, "meteora_cp_amm", "Pool")
    names = ("token_a_vault", "token_b_vault", "token_a_mint", "token_b_mint", "pool_fees")
    vault_a, vault_b, mint_a, mint_b, pool_fees = whole(pool, *names)
    limited = pool_fees["base_fee"]["base_fee_info"]["data"][_MODE_OFFSET] == LIMITER
    metas = (
        read(AUTHORITY),
        write(quote.pool),
        write(token_account(user, quote.mint_in, accounts)),
        write(token_account(user, quote.mint_out, accounts)),
        write(vault_a),
        write(vault_b),
        read(mint_a),
        read(mint_b),
        signs(user),
        read(token_program(mint_a, accounts)),
        read(token_program(mint_b, accounts)),
        read(PROGRAM),  # in place of the optional account of a referrer: none
        read(EVENT_AUTHORITY),
        read(PROGRAM),
        *([read(INSTRUCTIONS_SYSVAR)] if limited else []),
    )
    if order.exact_out:
        return Instruction(PROGRAM, metas, amounts(SWAP2, quote.amount_out, order.limit) + EXACT_OUT)
    return Instruction(PROGRAM, metas, amounts(SWAP2, quote.amount_in, order.limit) + EXACT_IN)


SWAP: Final = Swap(PROGRAM, _build, frozenset((6002,)))
