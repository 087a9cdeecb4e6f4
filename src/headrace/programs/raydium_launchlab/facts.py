"""Trades, pools and new tokens of Raydium LaunchLab."""

from collections.abc import Iterable
from typing import Any, Final

from headrace.model.facts import MintFacts
from headrace.programs.meanings import (
    AboutMint,
    AccountFacts,
    EventFacts,
    Fields,
    NewToken,
    ProgramFacts,
    Scene,
    Swap,
    change,
    either,
)


def _trade(fields: Fields, scene: Scene) -> Swap:
    """Read a trade from the change of the curve's reserves, which also shows the direction.

    `amount_in` of a purchase and `amount_out` of a sale include the fees of protocol, platform and creator, which do
    not go through the curve.
    """
    before, after = fields.get("real_base_before"), fields.get("real_base_after")
    base, quote = change(before, after), change(fields.get("real_quote_before"), fields.get("real_quote_after"))
    first_in = either(fields.get("trade_direction"), "Sell", "Buy")
    if before is not None and after is not None and before != after:
        first_in = after < before  # `real_base` counts what was sold
    pair = scene.pair("base_token_mint", "quote_token_mint")
    return Swap(base, quote, first_in, fields.get("pool_state"), scene.accounts.get("payer"), pair)


def _new_token(fields: Fields, scene: Scene) -> NewToken:
    """Read a new token. The event does not name its mint, but the instruction does."""
    token = fields.get("base_mint_param") or {}
    return NewToken(scene.accounts.get("base_mint"), token.get("name"), token.get("symbol"), fields.get("creator"))


def _mint(fields: Fields, mint: str | None) -> Iterable[AboutMint]:
    token = fields.get("base_mint_param") or {}
    return (AboutMint(mint, MintFacts(token.get("decimals"), _curve_supply(fields.get("curve_param")))),)


def _curve_supply(curve: Any) -> int | None:
    """Return the supply of `{"Constant": {"data": {"supply": …}}}`; None for a kind of curve that the IDL lacks."""
    for kind in curve.values() if isinstance(curve, dict) else ():
        if isinstance(kind, dict) and isinstance(inner := kind.get("data"), dict):
            return inner.get("supply")
    return None


def _pool_mints(_: str, fields: Fields) -> Iterable[AboutMint]:
    base = MintFacts(fields.get("base_decimals"), fields.get("supply"))
    quote = MintFacts(fields.get("quote_decimals"))
    return AboutMint(fields.get("base_mint"), base), AboutMint(fields.get("quote_mint"), quote)


FACTS: Final = ProgramFacts(
    events={
        "TradeEvent": EventFacts(trade=_trade),
        "PoolCreateEvent": EventFacts(token=_new_token, mints=_mint),
    },
    accounts={"PoolState": AccountFacts(pool=("base_mint", "quote_mint"), mints=_pool_mints)},
)
