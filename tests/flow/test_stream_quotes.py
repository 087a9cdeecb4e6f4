"""`GET /api/quote` of real pools on a stream: from a node, kept current by account changes, taken back with a fork."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from headrace.config import load
from headrace.model.errors import ConfigError
from headrace.model.keys import USDC_MINT, WSOL_MINT
from headrace.service.settings import REGISTERS, SECTIONS
from headrace.testing.ledger import Account
from tests.flow.life import Life, life
from tests.programs.sets import pool

SET: Final = pool("raydium_amm_v4/sol_usdc_58oQCh_20261002")
AMOUNT: Final = 1_500_000_000
EXPECTED: Final = SET.quote(WSOL_MINT, AMOUNT).amount_out


async def quoted(service: Life, **more: str) -> dict[str, Any]:
    gateway = service.service.gateway
    assert gateway is not None
    async with httpx.AsyncClient() as client:
        params = {"inputMint": WSOL_MINT, "outputMint": USDC_MINT, "amount": str(AMOUNT), **more}
        answer = await client.get(f"http://127.0.0.1:{gateway.port}/api/quote", params=params)
    offer: dict[str, Any] = answer.json()
    return offer


@asynccontextmanager
async def running(folder: Path, topic_ms: int = 200) -> AsyncIterator[Life]:
    """A service that quotes the pool, on a node that has its accounts."""
    async with life(
        ORDERS_ENABLED="true",
        ORDERS_FILE=str(folder / "orders.db"),
        MOCK_CHAIN_FILE=str(folder / "chain.db"),
        QUOTE_VENUES="pools",
        QUOTE_POOLS=SET.key,
        QUOTE_TIMEOUT_MS="20000",
        QUOTE_TOPIC_MS=str(topic_ms),
    ) as service:
        for key, account in SET.accounts.items():
            service.node.ledger.accounts[key] = Account(account.owner, account.data, 1)
        await service.covered()
        yield service


def vault_with(factor: int) -> tuple[str, Account]:
    """The pool's vault of USDC, holding `factor` times as much."""
    key = SET.accounts[SET.key].fields["token_pc"]
    account = SET.accounts[key]
    amount = int.from_bytes(account.data[64:72], "little") * factor
    return key, Account(account.owner, account.data[:64] + amount.to_bytes(8, "little") + account.data[72:], 1)


async def test_a_changed_account_changes_the_quote_and_a_fork_takes_the_change_back(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        ledger = service.node.ledger
        first = await quoted(service)
        assert (first["venue"], first["amountOut"]) == ("pools", str(EXPECTED)), first
        assert 0 <= ledger.head - first["slot"] <= 8

        vault, changed = vault_with(2)
        await service.until(lambda: service.node.subscribed("account", vault) > 0)
        feed, pipeline = service.service.stream, service.service.pipeline
        await service.until(lambda: bool(feed.covers(vault)))
        followed = await quoted(service)
        assert followed["amountOut"] == str(EXPECTED)
        calls = service.node.http.calls.count("getMultipleAccounts")

        before = service.node.advance_slot()
        dead = service.node.advance_slot()
        original = ledger.accounts[vault]
        service.node.emit_account(vault, changed.owner, changed.data)
        service.node.advance_slot()
        await service.until(lambda: (pipeline.head["processed"] or 0) > dead, flowing=False)
        after = await quoted(service)
        assert int(after["amountOut"]) > EXPECTED
        assert after["slot"] >= dead
        assert service.node.http.calls.count("getMultipleAccounts") == calls, "the stream brought the change"

        ledger.accounts[vault] = original
        service.node.advance_slot(parent=before)
        await service.until(lambda: (pipeline.head["confirmed"] or 0) > dead)
        assert (await quoted(service))["amountOut"] == str(EXPECTED)
        assert service.node.http.calls.count("getMultipleAccounts") == calls, "nothing was fetched again"


def test_orders_on_pools_need_a_chain_that_executes_them() -> None:
    config = load(SECTIONS, env={"ORDER_VENUES": "pools"}, dotenv=None, toml=None)
    with pytest.raises(ConfigError, match="ORDER_CHAIN"):
        REGISTERS.check(config)
    for chosen in ({"ORDERS_ENABLED": "false"}, {"ORDER_CHAIN": "local"}):
        REGISTERS.check(load(SECTIONS, env={"ORDER_VENUES": "pools", **chosen}, dotenv=None, toml=None))
    REGISTERS.check(load(SECTIONS, env={"QUOTE_VENUES": "pools"}, dotenv=None, toml=None))
