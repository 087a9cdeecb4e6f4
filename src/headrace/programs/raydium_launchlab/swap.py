"""Builds swaps on Raydium's LaunchLab."""

from typing import Final

from headrace.model.keys import SYSTEM_PROGRAM
from headrace.model.transactions import Instruction
from headrace.programs.quoting import Accounts, find, pda, whole
from headrace.programs.swapping import Order, Swap, amounts, read, signs, token_account, token_program, write

PROGRAM: Final = "LanMV9sAd7wArD4vJFi2qDdfnVhFxYSUg6eADduJ3uj"
AUTHORITY: Final = "WLHv2UAZm6z4KyaaELi5pjdbJh6RESMva1Rnn8pJVVh"
EVENT_AUTHORITY: Final = "2DPAtwB8L12vrMRExbLuyGnC7n2J5LNoZQSejeQGpwkr"
BUY_EXACT_IN: Final = "faea0d7bd59c13ec"
BUY_EXACT_OUT: Final = "18d3742869039938"
SELL_EXACT_IN: Final = "9527de9bd37c981a"
SELL_EXACT_OUT: Final = "5fc8472208090ba6"


def _build(order: Order, accounts: Accounts) -> Instruction:
    quote, user = order.quote, order.user
    pool = find(accounts, quote.pool, "raydium_launchlab", "PoolState")
    names = ("global_config", "platform_config", "base_mint", "quote_mint", "base_vault", "quote_vault", "creator")
    config, platform, base, quoted, base_vault, quote_vault, creator = whole(pool, *names)
    metas = (
        signs(user),
        read(AUTHORITY),
        read(config),
        read(platform),
        write(quote.pool),
        write(token_account(user, base, accounts)),
        write(token_account(user, quoted, accounts)),
        write(base_vault),
        write(quote_vault),
        read(base),
        read(quoted),
        read(token_program(base, accounts)),
        read(token_program(quoted, accounts)),
        read(EVENT_AUTHORITY),
        read(PROGRAM),
        read(SYSTEM_PROGRAM),
        write(pda(PROGRAM, platform, quoted)),  # recipients of the platform's and the creator's fees
        write(pda(PROGRAM, creator, quoted)),
    )
    selling = quote.mint_in == base
    no_share_fee = 0
    if order.exact_out:
        kind, values = SELL_EXACT_OUT if selling else BUY_EXACT_OUT, (quote.amount_out, order.limit, no_share_fee)
    else:
        kind, values = SELL_EXACT_IN if selling else BUY_EXACT_IN, (quote.amount_in, order.limit, no_share_fee)
    return Instruction(PROGRAM, metas, amounts(kind, *values))


SWAP: Final = Swap(PROGRAM, _build, frozenset((6004,)))
