"""Trades of Meteora's dynamic bonding curve."""

from typing import Final

from headrace.programs.meanings import (
    NO_EVENTS,
    EventFacts,
    ProgramFacts,
    swap_of_result,
)

_swap: Final = swap_of_result("amount_in", "base_mint", "quote_mint")

FACTS: Final = ProgramFacts(
    events={
        "EvtSwap": EventFacts(trade=_swap),
        "EvtSwap2": EventFacts(trade=_swap, repeats="EvtSwap"),
        "EvtSwap2WithTransferHook": EventFacts(trade=_swap, repeats="EvtSwap"),
    },
    log_lines_lack=NO_EVENTS,
)
