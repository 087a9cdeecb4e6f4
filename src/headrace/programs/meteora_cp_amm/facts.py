"""Trades and pools of Meteora DAMM v2."""

from typing import Final

from headrace.programs.meanings import (
    NO_EVENTS,
    AccountFacts,
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
    """Read a swap; direction 0 is A → B. `EvtSwap` has `actual_amount_in`, `EvtSwap2` has the amount in its result."""
    result, taken = inside(fields, "swap_result"), fields.get("actual_amount_in")
    taken = result.get("included_fee_input_amount") if taken is None else taken
    amounts = in_and_out(taken, result.get("output_amount"), either(fields.get("trade_direction"), 0, 1))
    pair = scene.pair("token_a_mint", "token_b_mint")
    return Swap(*amounts, fields.get("pool"), scene.accounts.get("payer"), pair)


FACTS: Final = ProgramFacts(
    events={
        "EvtSwap": EventFacts(trade=_swap),
        "EvtSwap2": EventFacts(trade=_swap, repeats="EvtSwap"),
        "EvtInitializePool": EventFacts(pool=("pool", "token_a_mint", "token_b_mint")),
    },
    accounts={"Pool": AccountFacts(pool=("token_a_mint", "token_b_mint"))},
    log_lines_lack=NO_EVENTS,
)
