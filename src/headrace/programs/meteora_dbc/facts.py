"""Trades of Meteora's dynamic bonding curve."""

from typing import Final

from headrace.programs.meanings import (
    NO_EVENTS,
    EventFacts,
    Fields,
    ProgramFacts,
    Scene,
    Swap,
    either,
    in_and_out,
    inside,
)


def _swap(fields: Fields, scene: Scene) -> Swap:
    """Read a swap; direction 0 is base → quote. `EvtSwap` has `amount_in`, `EvtSwap2` has the amount in its result."""
    result, taken = inside(fields, "swap_result"), fields.get("amount_in")
    taken = result.get("included_fee_input_amount") if taken is None else taken
    amounts = in_and_out(taken, result.get("output_amount"), either(fields.get("trade_direction"), 0, 1))
    pair = scene.pair("base_mint", "quote_mint")
    return Swap(*amounts, fields.get("pool"), scene.accounts.get("payer"), pair)


FACTS: Final = ProgramFacts(
    events={
        "EvtSwap": EventFacts(trade=_swap),
        "EvtSwap2": EventFacts(trade=_swap, repeats="EvtSwap"),
        "EvtSwap2WithTransferHook": EventFacts(trade=_swap, repeats="EvtSwap"),
    },
    log_lines_lack=NO_EVENTS,
)
