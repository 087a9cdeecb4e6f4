"""Trades and pools of Meteora DAMM v1."""

from typing import Final

from headrace.programs.meanings import (
    NO_DIRECTION,
    AccountFacts,
    EventFacts,
    Fields,
    Pair,
    ProgramFacts,
    Scene,
    Swap,
    either,
    in_and_out,
)


def _swap(fields: Fields, scene: Scene) -> Swap:
    """Read a swap whose event has only amounts.

    The input's mint is that of the account that paid the input, and that of the fee's account.
    """
    accounts = scene.accounts
    vaults = accounts.get("a_token_vault"), accounts.get("b_token_vault")
    mint_a, mint_b = (scene.mints.get(vault or "") for vault in vaults)
    given = ("user_source_token", "protocol_token_fee")
    taken = next((mint for name in given if (mint := scene.mints.get(accounts.get(name, ""))) is not None), None)
    if taken is None and (out := scene.mints.get(accounts.get("user_destination_token", ""))) is not None:
        taken = mint_a if out == mint_b else mint_b if out == mint_a else None
    first_in = None if taken is None or mint_a == mint_b else either(taken, mint_a, mint_b)
    amounts = in_and_out(fields.get("in_amount"), fields.get("out_amount"), first_in)
    pair = None if mint_a is None or mint_b is None else Pair(mint_a, mint_b)
    holders = (vaults[0],), (vaults[1],)
    return Swap(*amounts, accounts.get("pool"), accounts.get("user"), pair, holders)


FACTS: Final = ProgramFacts(
    events={
        "Swap": EventFacts(trade=_swap),
        "PoolCreated": EventFacts(pool=("pool", "token_a_mint", "token_b_mint")),
    },
    accounts={"Pool": AccountFacts(pool=("token_a_mint", "token_b_mint"))},
    log_lines_lack=NO_DIRECTION,
)
