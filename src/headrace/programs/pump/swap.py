"""Builds swaps on pump.fun's curves by the v3 instructions of 2026, which leave fees on the curve until swept."""

from typing import Final

from headrace.model.keys import SYSTEM_PROGRAM, WSOL_MINT
from headrace.model.transactions import Instruction
from headrace.programs.pump.curve import CURVE, FEE_CONFIG, GLOBAL, PROGRAM, BondingCurve
from headrace.programs.quoting import UNSUPPORTED, Accounts, Clock, NoQuoteError, find, pda, whole
from headrace.programs.swapping import Order, Swap, amounts, read, signs, token_account, token_program, write

EVENT_AUTHORITY: Final = "Ce6TQqeHC9p8KetsN6JsjHK7UTZk7nasjjnr7XxXp9F1"
BUY: Final = "07051dc4f5176550"
BUY_EXACT_IN: Final = "e1f7501ed5b38488"
SELL: Final = "1c92de7726c469d5"


def _build(order: Order, accounts: Accounts) -> Instruction:
    quote, user = order.quote, order.user
    curve = find(accounts, quote.pool, "pump", "BondingCurve")
    settings = find(accounts, GLOBAL, "pump", "Global")
    if curve.fields.get("is_cashback_coin"):
        raise NoQuoteError(UNSUPPORTED, f"curve {quote.pool} gives cashback")
    mints = CURVE.mints(quote.pool, curve, accounts)
    selling = mints is not None and quote.mint_in == mints[0]
    base, quoted = (quote.mint_in, quote.mint_out) if selling else (quote.mint_out, quote.mint_in)
    buyback = whole(settings, "buyback_fee_recipients")[0][0]
    metas = (
        read(GLOBAL),
        read(base),
        read(quoted),
        read(token_program(base, accounts)),
        read(token_program(quoted, accounts)),
        write(quote.pool),
        write(token_account(quote.pool, base, accounts)),
        write(token_account(quote.pool, quoted, accounts)),
        signs(user),
        write(token_account(user, base, accounts)),
        write(token_account(user, quoted, accounts)),
        write(pda(PROGRAM, b"user_volume_accumulator", user)),
        read(FEE_CONFIG),
        write(buyback if quoted == WSOL_MINT else token_account(buyback, quoted, accounts)),
        read(SYSTEM_PROGRAM),
        read(EVENT_AUTHORITY),
        read(PROGRAM),
    )
    if selling:
        least = quote.amount_out if order.exact_out else order.limit
        return Instruction(PROGRAM, metas, amounts(SELL, quote.amount_in, least))
    if order.exact_out:
        return Instruction(PROGRAM, metas, amounts(BUY, quote.amount_out, order.limit))
    if _exact_tokens(order, accounts):
        return Instruction(PROGRAM, metas, amounts(BUY, quote.amount_out, quote.amount_in))
    return Instruction(PROGRAM, metas, amounts(BUY_EXACT_IN, quote.amount_in, max(1, order.limit)))


def _exact_tokens(order: Order, accounts: Accounts) -> bool:
    """Return whether to buy the quoted number of tokens, because spending the amount would buy less than the limit."""
    market = CURVE.read(order.quote.pool, accounts, Clock(None, None, 0))
    bought = market.for_exactly(order.quote.amount_in) if isinstance(market, BondingCurve) else 0
    return bought < order.limit <= order.quote.amount_out


SWAP: Final = Swap(PROGRAM, _build, frozenset((6002, 6003, 6042)), native=True)
