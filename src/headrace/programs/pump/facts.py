"""Trades and new coins of pump.fun's curves. Curves are not pools: their events name the mint."""

from collections.abc import Iterable
from typing import Final

from headrace.model.facts import MintFacts
from headrace.model.keys import SYSTEM_PROGRAM, WSOL_MINT
from headrace.programs.meanings import (
    AboutMint,
    EventFacts,
    Fields,
    NewToken,
    Pair,
    ProgramFacts,
    Scene,
    Swap,
    change,
    either,
)

DECIMALS: Final = 6
SUPPLY: Final = 10**15
"""Base units of a pump.fun coin: 10^9 whole coins.

The program itself computes market caps with this supply, except for coins in mayhem mode, whose supply grows.
"""


def _pair(fields: Fields) -> Pair | None:
    mint = fields.get("mint")
    return None if mint is None else Pair(mint, _quote_mint(fields))


def _quote_mint(fields: Fields) -> str:
    """Return the mint that the curve trades against: `quote_mint`, with zero for SOL; before 2026 always SOL."""
    quote_mint: str | None = fields.get("quote_mint")
    return WSOL_MINT if quote_mint is None or quote_mint == SYSTEM_PROGRAM else quote_mint


def _trade(fields: Fields, _: Scene) -> Swap:
    quote = fields.get("quote_amount")
    if quote is None and _quote_mint(fields) == WSOL_MINT:
        quote = fields.get("sol_amount")
    first_in = either(fields.get("is_buy"), False, True)
    return Swap(fields.get("token_amount"), quote, first_in, None, fields.get("user"), _pair(fields))


def _post_complete_buy(fields: Fields, _: Scene) -> Swap:
    """Read the part of a buy beyond the end of its curve, priced by the reserves with which its pool will begin."""
    first = change(fields.get("pool_base_reserves_before"), fields.get("pool_base_reserves_after"))
    second = change(fields.get("pool_quote_reserves_before"), fields.get("pool_quote_reserves_after"))
    first = fields.get("base_out") if first is None else first
    second = fields.get("quote_in") if second is None else second
    return Swap(first, second, False, None, fields.get("user"), _pair(fields))


def _new_coin(fields: Fields, _: Scene) -> NewToken:
    creator = fields.get("creator") or fields.get("user")
    return NewToken(fields.get("mint"), fields.get("name"), fields.get("symbol"), creator)


_COIN: Final = MintFacts(DECIMALS, SUPPLY)
_MAYHEM_COIN: Final = MintFacts(DECIMALS)


def _coin(fields: Fields, mint: str | None) -> Iterable[AboutMint]:
    mayhem = fields.get("mayhem_mode") or fields.get("is_mayhem_mode")
    return (AboutMint(mint, _MAYHEM_COIN if mayhem else _COIN, nominal=True),)


FACTS: Final = ProgramFacts(
    events={
        "TradeEvent": EventFacts(
            trade=_trade,
            mints=_coin,
            reads=(
                "mint",
                "quote_mint",
                "quote_amount",
                "sol_amount",
                "is_buy",
                "token_amount",
                "user",
                "mayhem_mode",
                "is_mayhem_mode",
            ),
        ),
        "PostCompleteBuyEvent": EventFacts(trade=_post_complete_buy),
        "CreateEvent": EventFacts(token=_new_coin, mints=_coin),
    }
)
