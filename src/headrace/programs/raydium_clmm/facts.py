"""Trades and pools of Raydium CLMM."""

from typing import Final

from headrace.programs.meanings import (
    AccountFacts,
    EventFacts,
    Fields,
    ProgramFacts,
    Scene,
    Swap,
    decimals_of,
)


def _swap(fields: Fields, scene: Scene) -> Swap:
    """Read a swap.

    The older instructions name no mint, and the user's accounts may be closed by then; the vaults never are.
    """
    pool, first_in = fields.get("pool_state"), fields.get("zero_for_one")
    amounts, user = (fields.get("amount_0"), fields.get("amount_1"), first_in), fields.get("sender")
    if first_in is None:
        return Swap(*amounts, pool, user)
    vaults = _vaults(pool, scene)
    mints = "input_vault_mint", "output_vault_mint"
    first, second = (0, 1) if first_in else (1, 0)
    holders = (vaults[first], fields.get("token_account_0")), (vaults[second], fields.get("token_account_1"))
    return Swap(*amounts, pool, user, scene.pair(mints[first], mints[second]), holders)


def _vaults(pool: str | None, scene: Scene) -> tuple[str | None, str | None]:
    """Return the vaults of the input and the output.

    After its named accounts `swap_router_base_in` has, for each hop: config, pool, the user's account, input vault,
    output vault, and more.
    """
    accounts = scene.accounts
    if "input_vault" in accounts:
        return accounts["input_vault"], accounts.get("output_vault")
    keys = scene.remaining()
    at = keys.index(pool) if pool in keys else len(keys)
    return (keys[at + 2], keys[at + 3]) if at + 3 < len(keys) else (None, None)


FACTS: Final = ProgramFacts(
    events={
        "SwapEvent": EventFacts(
            trade=_swap,
            reads=(
                "pool_state",
                "zero_for_one",
                "amount_0",
                "amount_1",
                "sender",
                "token_account_0",
                "token_account_1",
            ),
        ),
        "PoolCreatedEvent": EventFacts(pool=("pool_state", "token_mint_0", "token_mint_1")),
    },
    accounts={
        "PoolState": AccountFacts(
            pool=("token_mint_0", "token_mint_1"),
            mints=decimals_of(("token_mint_0", "mint_decimals_0"), ("token_mint_1", "mint_decimals_1")),
        )
    },
)
