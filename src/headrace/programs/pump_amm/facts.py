"""Trades and pools of PumpSwap."""

from collections.abc import Iterable
from typing import Final

from headrace.model.facts import MintFacts
from headrace.programs.meanings import (
    AboutMint,
    AccountFacts,
    Amounts,
    EventFacts,
    Fields,
    Pair,
    ProgramFacts,
    Scene,
    Swap,
)


def _buy(fields: Fields, scene: Scene) -> Swap:
    """Read a purchase.

    Two fields have the amount in: `quote_amount_in` and `user_quote_amount_in`. Instructions that spend an exact amount
    write the gross amount into the former, others into the latter. The smaller of both is what the pool priced.
    """
    amounts = fields.get("quote_amount_in"), fields.get("user_quote_amount_in")
    quote = None if amounts[0] is None or amounts[1] is None else min(amounts[0], amounts[1])
    return _swap((fields.get("base_amount_out"), quote, False), fields, scene)


def _sell(fields: Fields, scene: Scene) -> Swap:
    """Read a sale. The larger of the two amounts is what the pool priced: fees are taken from it."""
    amounts = fields.get("quote_amount_out"), fields.get("user_quote_amount_out")
    quote = amounts[0] if amounts[0] is None or amounts[1] is None else max(amounts[0], amounts[1])
    return _swap((fields.get("base_amount_in"), quote, True), fields, scene)


def _swap(amounts: Amounts, fields: Fields, scene: Scene) -> Swap:
    pool, accounts = fields.get("pool"), scene.accounts
    pair = scene.pair("base_mint", "quote_mint") or _hop_pair(pool, scene)
    holders = (
        (accounts.get("pool_base_token_account"), fields.get("user_base_token_account")),
        (accounts.get("pool_quote_token_account"), fields.get("user_quote_token_account")),
    )
    return Swap(*amounts, pool, fields.get("user"), pair, holders)


def _hop_pair(pool: str | None, scene: Scene) -> Pair | None:
    """Return the mints of a hop of `multi_hop_swap`.

    After its named accounts it has, for each hop: base mint, quote mint, pool, vaults.
    """
    keys = scene.remaining()
    at = keys.index(pool) if pool in keys else 0
    return Pair(keys[at - 2], keys[at - 1]) if at >= 2 else None


def _supply(fields: Fields, mint: str | None) -> Iterable[AboutMint]:
    return (AboutMint(mint, MintFacts(supply=fields.get("base_supply"))),)


def _decimals(fields: Fields, _: str | None) -> Iterable[AboutMint]:
    return [
        AboutMint(fields.get(f"{side}_mint") or None, MintFacts(fields.get(f"{side}_mint_decimals")))
        for side in ("base", "quote")
    ]


_OF_A_SWAP: Final = ("pool", "user", "user_base_token_account", "user_quote_token_account", "base_supply")

FACTS: Final = ProgramFacts(
    events={
        "BuyEvent": EventFacts(
            trade=_buy,
            mints=_supply,
            reads=("quote_amount_in", "user_quote_amount_in", "base_amount_out", *_OF_A_SWAP),
        ),
        "SellEvent": EventFacts(
            trade=_sell,
            mints=_supply,
            reads=("quote_amount_out", "user_quote_amount_out", "base_amount_in", *_OF_A_SWAP),
        ),
        "CreatePoolEvent": EventFacts(pool=("pool", "base_mint", "quote_mint"), mints=_decimals),
    },
    accounts={"Pool": AccountFacts(pool=("base_mint", "quote_mint"))},
)
