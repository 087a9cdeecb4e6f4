"""Builds swaps on PumpSwap by the compact instructions of 2026, which leave fees in the pool until swept."""

from typing import Final

from headrace.model.keys import SYSTEM_PROGRAM
from headrace.model.transactions import Instruction
from headrace.programs.pump_amm.curve import FEE_CONFIG, GLOBAL_CONFIG, PROGRAM
from headrace.programs.quoting import UNSUPPORTED, Accounts, NoQuoteError, find, pda, whole
from headrace.programs.swapping import Order, Swap, amounts, read, signs, token_account, token_program, write

EVENT_AUTHORITY: Final = "GS4CU59F31iL7aR2Q8zVS8DRrcRnXX1yjQ66TqNVQnaR"
BUY: Final = "b817ee6167c5d33d"
BUY_EXACT_IN: Final = "c2ab1c46684d5b2f"
SELL: Final = "5df6823ce7e940b2"


def _build(order: Order, accounts: Accounts) -> Instruction:
    quote, user = order.quote, order.user
    pool = find(accounts, quote.pool, "pump_amm", "Pool")
    settings = find(accounts, GLOBAL_CONFIG, "pump_amm", "GlobalConfig")
    if pool.fields.get("is_cashback_coin"):
        raise NoQuoteError(UNSUPPORTED, f"pool {quote.pool} gives cashback")
    names = ("base_mint", "quote_mint", "pool_base_token_account", "pool_quote_token_account")
    base, quoted, base_vault, quote_vault = whole(pool, *names)
    buyback = whole(settings, "buyback_fee_recipients")[0][0]
    metas = (
        write(quote.pool),
        signs(user),
        read(GLOBAL_CONFIG),
        read(base),
        read(quoted),
        write(token_account(user, base, accounts)),
        write(token_account(user, quoted, accounts)),
        write(base_vault),
        write(quote_vault),
        read(token_program(base, accounts)),
        read(token_program(quoted, accounts)),
        read(SYSTEM_PROGRAM),
        write(pda(PROGRAM, b"user_volume_accumulator", user)),
        read(FEE_CONFIG),
        write(token_account(buyback, quoted, accounts)),
        read(EVENT_AUTHORITY),
        read(PROGRAM),
    )
    if quote.mint_in == base:
        return Instruction(PROGRAM, metas, amounts(SELL, quote.amount_in, _least(order)))
    if order.exact_out:
        return Instruction(PROGRAM, metas, amounts(BUY, quote.amount_out, order.limit))
    return Instruction(PROGRAM, metas, amounts(BUY_EXACT_IN, quote.amount_in, order.limit))


def _least(order: Order) -> int:
    """Return the least output of a sale. The input of a sale is fixed even if the order wants an exact output."""
    return order.quote.amount_out if order.exact_out else order.limit


SWAP: Final = Swap(PROGRAM, _build, frozenset((6004, 6040)))
