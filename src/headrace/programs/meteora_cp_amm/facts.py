"""Trades and pools of Meteora DAMM v2."""

from typing import Final

from headrace.programs.meanings import (
    NO_EVENTS,
    AccountFacts,
    EventFacts,
    ProgramFacts,
    swap_of_result,
)

_swap: Final = swap_of_result("actual_amount_in", "token_a_mint", "token_b_mint")

FACTS: Final = ProgramFacts(
    events={
        "EvtSwap": EventFacts(trade=_swap),
        "EvtSwap2": EventFacts(trade=_swap, repeats="EvtSwap"),
        "EvtInitializePool": EventFacts(pool=("pool", "token_a_mint", "token_b_mint")),
    },
    accounts={"Pool": AccountFacts(pool=("token_a_mint", "token_b_mint"))},
    log_lines_lack=NO_EVENTS,
)
