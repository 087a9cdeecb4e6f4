"""Trades and pools of Meteora DLMM."""

from typing import Final

from headrace.programs.meanings import (
    NO_EVENTS,
    AccountFacts,
    EventFacts,
    Fields,
    ProgramFacts,
    Scene,
    Swap,
    in_and_out,
)


def _swap(fields: Fields, scene: Scene) -> Swap:
    amounts = in_and_out(fields.get("amount_in"), fields.get("amount_out"), fields.get("swap_for_y"))
    pair = scene.pair("token_x_mint", "token_y_mint")
    return Swap(*amounts, fields.get("lb_pair"), fields.get("from"), pair)


FACTS: Final = ProgramFacts(
    events={
        "Swap": EventFacts(trade=_swap),
        "Swap2Evt": EventFacts(trade=_swap, repeats="Swap"),
        "LbPairCreate": EventFacts(pool=("lb_pair", "token_x", "token_y")),
    },
    accounts={"LbPair": AccountFacts(pool=("token_x_mint", "token_y_mint"))},
    log_lines_lack=NO_EVENTS,
)
