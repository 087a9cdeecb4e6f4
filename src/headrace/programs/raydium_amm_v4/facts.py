"""Trades and pools of Raydium AMM v4."""

from typing import Final

from headrace.programs.meanings import (
    NO_POOL,
    AccountFacts,
    EventFacts,
    Fields,
    ProgramFacts,
    Scene,
    Swap,
    decimals_of,
    either,
    in_and_out,
)


def _swap(fields: Fields, scene: Scene) -> Swap | None:
    """Read a `ray_log`, which names neither pool nor mints. Direction 1 is pc → coin, 2 is coin → pc."""
    match fields.get("log_type"):
        case "swap_base_in":
            taken, given = fields.get("amount_in"), fields.get("out_amount")
        case "swap_base_out":
            taken, given = fields.get("deduct_in"), fields.get("amount_out")
        case _:
            return None
    accounts, first_in = scene.accounts, either(fields.get("direction"), 2, 1)
    users = "user_source_token_account", "user_destination_token_account"
    first, second = (0, 1) if first_in else (1, 0)
    holders = (
        (accounts.get("pool_coin_token_account"), accounts.get(users[first])),
        (accounts.get("pool_pc_token_account"), accounts.get(users[second])),
    )
    amounts = in_and_out(taken, given, first_in)
    return Swap(*amounts, accounts.get("amm"), accounts.get("user_source_owner"), None, holders)


FACTS: Final = ProgramFacts(
    events={"ray_log": EventFacts(trade=_swap)},
    accounts={
        "AmmInfo": AccountFacts(
            pool=("coin_mint", "pc_mint"),
            mints=decimals_of(("coin_mint", "coin_decimals"), ("pc_mint", "pc_decimals")),
        )
    },
    log_lines_lack=NO_POOL,
)
