"""Trades and pools of Raydium CPMM."""

from typing import Final

from headrace.model.keys import b58decode
from headrace.programs.meanings import (
    AccountFacts,
    EventFacts,
    Fields,
    Pair,
    ProgramFacts,
    Scene,
    Swap,
    decimals_of,
    in_and_out,
)


def _swap(fields: Fields, scene: Scene) -> Swap:
    """Read a swap that is logged as input and output. The pool's token 0 is the one with the lower key."""
    taken = fields.get("input_mint") or scene.accounts.get("input_token_mint")
    given = fields.get("output_mint") or scene.accounts.get("output_token_mint")
    first_in = None if taken is None or given is None else b58decode(taken) < b58decode(given)
    amounts = in_and_out(fields.get("input_amount"), fields.get("output_amount"), first_in)
    pair = None if taken is None or given is None else Pair(taken, given) if first_in else Pair(given, taken)
    return Swap(*amounts, fields.get("pool_id"), scene.accounts.get("payer"), pair)


FACTS: Final = ProgramFacts(
    events={"SwapEvent": EventFacts(trade=_swap)},
    accounts={
        "PoolState": AccountFacts(
            pool=("token_0_mint", "token_1_mint"),
            mints=decimals_of(("token_0_mint", "mint_0_decimals"), ("token_1_mint", "mint_1_decimals")),
        )
    },
)
