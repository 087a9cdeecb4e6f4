"""`headrace bank clone`: a bank made from a node quotes as the node's pools do, and executes with their programs."""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from headrace.cli import banking
from headrace.model.errors import BadInputError, TransientError
from headrace.model.keys import USDC_MINT, WSOL_MINT, b58decode
from headrace.testing.ledger import Account, Ledger
from headrace.testing.node_http import HttpRpc
from headrace.venues import VENUES
from headrace.venues.cloning import HEADER_BYTES, UPGRADEABLE_LOADER
from tests.chains.test_routes import traded
from tests.contracts.contexts import opened
from tests.programs.banks import elf, manifest
from tests.programs.sets import Pool, pool
from tests.venues.test_followed import put, request

SET: Final = pool("raydium_amm_v4/sol_usdc_58oQCh_20261002")
CURVE: Final = pool("pump/curve_8d4zoL_20261004")
AMOUNT: Final = 10**9


@asynccontextmanager
async def node(*given: Pool) -> AsyncIterator[HttpRpc]:
    made = HttpRpc(Ledger(head=1000, confirm_lag=2, root_lag=32))
    for each in given:
        put(made, each)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def clone(at: HttpRpc, out: Path, *pools: str, mints: tuple[str, ...] = ()) -> Path:
    given = argparse.Namespace(url=at.url, out=out, pool=list(pools), mint=list(mints))
    assert await asyncio.to_thread(banking.clone, given) == 0
    return out


@pytest.mark.parametrize("given", [SET, CURVE])
async def test_a_cloned_bank_quotes_as_the_pool_does(tmp_path: Path, given: Pool) -> None:
    coin = next(mint for mint in given.mints if mint != WSOL_MINT)
    async with node(given) as at:
        path = await clone(at, tmp_path / "bank.json", given.key, mints=(coin,))
    document = json.loads(path.read_text())
    assert document["captured"]["unix_timestamp"] == given.clock.unix_timestamp
    async with opened(VENUES, "pools", bank=str(path)) as (venue, _):
        quote = await venue.quote(request(WSOL_MINT, coin, AMOUNT))
        assert quote.amount_out == given.quote(WSOL_MINT, AMOUNT).amount_out


async def test_a_cloned_bank_executes_with_the_program_of_the_node(tmp_path: Path) -> None:
    for name in ("raydium_amm_v4", "spl_token"):
        manifest()
        elf(name)
    async with node(SET) as at:
        for number, name in enumerate(("raydium_amm_v4", "spl_token")):
            key, held = str(manifest()[name]["program_id"]), f"1111111111111111111111111111111{number + 2}"
            link = (2).to_bytes(4, "little") + b58decode(held)
            at.ledger.accounts[key] = Account(UPGRADEABLE_LOADER, link, 1, executable=True)
            at.ledger.accounts[held] = Account(UPGRADEABLE_LOADER, bytes(HEADER_BYTES) + elf(name), 1)
        path = await clone(at, tmp_path / "bank.json", SET.key)
    quote, landing, _ = await traded(path, WSOL_MINT, USDC_MINT, AMOUNT)
    assert landing.err is None, landing
    assert landing.amount_out == quote.amount_out == SET.quote(WSOL_MINT, AMOUNT).amount_out


async def test_what_is_no_pool_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    out = tmp_path / "bank.json"
    async with node(SET, CURVE) as at:
        for key, expected in (("x", "not a public key"), (USDC_MINT, "not a pool"), (CURVE.key, "mint not known")):
            with pytest.raises(BadInputError, match=expected):
                await clone(at, out, key)
        at.faults.status = 500
        with pytest.raises(TransientError):
            await clone(at, out, SET.key)
    assert not out.exists()


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "bank.json"
    out.write_text("mine")
    with pytest.raises(BadInputError, match="file exists"):
        banking.clone(argparse.Namespace(url="", out=out, pool=[], mint=[]))
    assert out.read_text() == "mine"
