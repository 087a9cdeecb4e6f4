"""Log lines of a program that names no mint, a node that knows its pools, and a client of one mint."""

import json
from pathlib import Path
from typing import Any

import pybase64

from headrace.model.keys import b58decode
from headrace.testing.ledger import Account
from tests.flow.life import life
from tests.ingest.mainnet import transaction

PUMP_AMM = "pAMMBay6oceH9fJKBRHGP5D4bD4sWpmSwMn52FMfXEA"
POOL = "CzJfDdeiF5cB1igJuNLW4PBEAnn1vocUjddPWNKwbNw6"
SELL = transaction("27HoMFgk")
ACCOUNTS = Path(__file__).parents[1] / "data" / "mainnet" / "accounts" / "pumpswap" / "sol_ExeEkq_20261004.json"


def mint_of_sell() -> str:
    sol = "So11111111111111111111111111111111111111112"
    return next(held.mint for held in SELL.post_token_balances if held.mint != sol)


def pool_account() -> bytes:
    """A real pool account, with the base mint of the sell in its place: discriminator, bump, index, creator, mints."""
    accounts: list[dict[str, Any]] = accounts_of(json.loads(ACCOUNTS.read_text()))
    data = next(
        raw
        for account in accounts
        if account["owner"] == PUMP_AMM and (raw := pybase64.b64decode(account["data"][0]))[:8] == POOL_TAG
    )
    return data[:43] + b58decode(mint_of_sell()) + data[75:]


POOL_TAG = bytes([241, 154, 109, 4, 17, 177, 109, 188])
"""`account:Pool` of the PumpSwap IDL."""


def accounts_of(found: Any) -> list[dict[str, Any]]:
    if isinstance(found, dict) and isinstance(found.get("data"), list) and "owner" in found:
        return [found]
    inside = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return [account for each in inside for account in accounts_of(each)]


async def test_a_client_of_a_mint_gets_the_trade_that_a_log_line_does_not_name() -> None:
    topic = f"trades:{mint_of_sell()}"
    async with life(topic, SUBSCRIPTIONS="logs:pump_amm") as alive:
        alive.node.ledger.accounts[POOL] = Account(PUMP_AMM, pool_account(), 1)
        await alive.covered()
        landed = alive.node.emit_transaction([PUMP_AMM], SELL.logs or ())
        await alive.until(lambda: bool(alive.of_type("event")))
        (frame,) = alive.of_type("event")
        assert frame["chain"]["signature"] == landed.signature
        assert (frame["data"]["mint"], frame["data"]["pool"], frame["data"]["side"]) == (mint_of_sell(), POOL, "sell")


async def test_switched_off_nobody_is_asked_and_the_trade_has_no_mint() -> None:
    async with life("trades:pump_amm", SUBSCRIPTIONS="logs:pump_amm", POOL_LOOKUP="false") as alive:
        await alive.covered()
        alive.node.emit_transaction([PUMP_AMM], SELL.logs or ())
        await alive.until(lambda: bool(alive.of_type("event")))
        assert alive.of_type("event")[0]["data"]["mint"] is None
        assert "getMultipleAccounts" not in alive.node.http.calls
