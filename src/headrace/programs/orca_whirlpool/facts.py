"""Trades and pools of Orca's Whirlpools."""

from typing import Final

from headrace.programs.meanings import (
    AccountFacts,
    EventFacts,
    Fields,
    ProgramFacts,
    Scene,
    Swap,
    in_and_out,
)


def _swap(fields: Fields, scene: Scene) -> Swap:
    """Read a swap.

    `input_amount` includes the mint's transfer fee, which the pool never gets. A swap of two hops has accounts for each
    pool.
    """
    accounts, pool, first_in = scene.accounts, fields.get("whirlpool"), fields.get("a_to_b")
    taken, fee = fields.get("input_amount"), fields.get("input_transfer_fee")
    priced = None if taken is None or fee is None else taken - fee
    amounts = in_and_out(priced, fields.get("output_amount"), first_in)
    user = accounts.get("token_authority")
    if accounts.get("whirlpool") == pool or "whirlpool_one" not in accounts:
        pair = scene.pair("token_mint_a", "token_mint_b")
        return Swap(*amounts, pool, user, pair, ((accounts.get("token_vault_a"),), (accounts.get("token_vault_b"),)))
    hop = "one" if accounts.get("whirlpool_one") == pool else "two"
    if f"token_vault_{hop}_a" in accounts:
        vaults = accounts.get(f"token_vault_{hop}_a"), accounts.get(f"token_vault_{hop}_b")
        return Swap(*amounts, pool, user, None, ((vaults[0],), (vaults[1],)))
    names = ("input", "intermediate") if hop == "one" else ("intermediate", "output")
    first, second = names if first_in else reversed(names)
    return Swap(*amounts, pool, user, scene.pair(f"token_mint_{first}", f"token_mint_{second}"))


FACTS: Final = ProgramFacts(
    events={
        "Traded": EventFacts(trade=_swap),
        "PoolInitialized": EventFacts(pool=("whirlpool", "token_mint_a", "token_mint_b")),
    },
    accounts={"Whirlpool": AccountFacts(pool=("token_mint_a", "token_mint_b"))},
)
