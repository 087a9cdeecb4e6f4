"""Trades and curves of Moonshot."""

from typing import Final

from headrace.model.keys import SYSTEM_PROGRAM, WSOL_MINT
from headrace.programs.meanings import (
    AccountFacts,
    EventFacts,
    Fields,
    Pair,
    ProgramFacts,
    Scene,
    Swap,
    either,
)


def _trade(fields: Fields, scene: Scene) -> Swap:
    """Read a trade.

    The fees `dex_fee` and `helio_fee` are not part of `collateral_amount`, which the curve took or paid. The event
    names the mint that pays (the zero key stands for SOL); the instruction names the traded mint.
    """
    mint, cost = scene.accounts.get("mint"), fields.get("cost_token")
    amounts = fields.get("amount"), fields.get("collateral_amount"), either(fields.get("type"), "Sell", "Buy")
    pair = None if mint is None or cost is None else Pair(mint, WSOL_MINT if cost == SYSTEM_PROGRAM else cost)
    return Swap(*amounts, fields.get("curve"), fields.get("sender"), pair)


FACTS: Final = ProgramFacts(
    events={"TradeEvent": EventFacts(trade=_trade)},
    accounts={"CurveAccount": AccountFacts(pool=("mint", None))},
)
