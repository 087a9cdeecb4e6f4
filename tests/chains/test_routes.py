"""Routes over two pools and splits, executed on the programs that mainnet runs: they bring what was quoted."""

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import pybase64
import pytest

from headrace.chains import CHAINS
from headrace.chains.local import WALLET
from headrace.model.keys import SYSTEM_PROGRAM, USDC_MINT, WSOL_MINT
from headrace.model.orders import Quote
from headrace.model.transactions import memo
from headrace.programs.pump.curve import GLOBAL
from headrace.programs.quoting import TOKEN_PROGRAM
from headrace.programs.swapping import token_account
from headrace.runtime.clock import ManualClock
from headrace.venues import VENUES
from headrace.venues.swapping import SIZE_MAX
from tests.contracts.contexts import opened
from tests.mainnet import FOLDER
from tests.programs.banks import BYTES, manifest, token_data
from tests.programs.sets import Pool, pool
from tests.venues.test_followed import request

AMM: Final = "raydium_amm_v4/sol_usdc_58oQCh_20261002"
CURVE: Final = "pump/curve_8d4zoL_20261004"
DLMM: Final = "meteora_dlmm/sol_usdc_5rCf1D_20261002"
PROGRAMS: Final = ("raydium_amm_v4", "meteora_dlmm", "pump", "pump_fees", "spl_token", "spl_token_2022")


def entry_of(key: str, owner: str, data: str, lamports: int) -> dict[str, Any]:
    return {"pubkey": key, "account": {"owner": owner, "data": [data, "base64"], "lamports": lamports}}


def write_bank(folder: Path, *sets: str) -> Path:
    """Write a bank of these sets with a wallet that has USDC; skip the test without program bytes."""
    entries = {name: manifest()[name] for name in PROGRAMS}
    programs = [
        {"pubkey": entry["program_id"], "file": str(BYTES / f"{name}.so.xz"), "size": entry["size"]}
        for name, entry in entries.items()
    ]
    accounts: dict[str, Any] = {}
    for name in sets:
        document = json.loads((FOLDER / "accounts" / f"{name}.json").read_text())
        accounts |= {entry["pubkey"]: entry for entry in document["accounts"]}
    given, curve = pool(AMM), pool(CURVE)
    coin, fields = coin_of(curve), curve.accounts[curve.key].fields
    longer = pybase64.b64decode(accounts[GLOBAL]["account"]["data"][0]) + b"\0"  # as the program has it since
    accounts[GLOBAL]["account"]["data"][0] = pybase64.b64encode(longer).decode()
    vault = token_account(curve.key, coin, curve.accounts)
    owner = curve.accounts[coin].owner
    held = token_data(curve.key, coin, fields["real_token_reserves"] + 2 * 10**14, owner)
    accounts[vault] = entry_of(vault, owner, held, 2_039_280)
    buyback = curve.accounts[GLOBAL].fields["buyback_fee_recipients"][0]
    accounts[buyback] = entry_of(buyback, SYSTEM_PROGRAM, "", 10**9)
    data = token_data(WALLET, USDC_MINT, 10**12, TOKEN_PROGRAM)
    wallet = token_account(WALLET, USDC_MINT, given.accounts)
    accounts[wallet] = entry_of(wallet, TOKEN_PROGRAM, data, 2_039_280)
    path = folder / "bank.json"
    document = {"accounts": list(accounts.values()), "programs": programs, "captured": document["captured"]}
    path.write_text(json.dumps(document))
    return path


async def traded(path: Path, mint_in: str, mint_out: str, amount: int) -> tuple[Quote, Any, int]:
    """Quote and execute on a bank; return the quote, the landing, and the size of the transaction."""
    clock = ManualClock()
    async with (
        opened(CHAINS, "local", clock, file=str(path)) as (chain, _),
        opened(VENUES, "pools", clock, bank=str(path)) as (venue, _),
    ):
        quote = await venue.quote(request(mint_in, mint_out, amount))
        swap = await venue.swap(quote, chain.owner, quote.amount_out)
        signed = chain.sign((*swap, memo("0" * 36)), await chain.blockhash())
        await chain.send(signed)
        return quote, (await chain.look(signed.signature)).landing, len(signed.raw)


def coin_of(given: Pool) -> str:
    return next(mint for mint in given.mints if mint != WSOL_MINT)


@pytest.mark.parametrize("buying", [True, False])
async def test_two_pools_over_sol_bring_what_was_quoted_in_one_transaction(tmp_path: Path, *, buying: bool) -> None:
    path = await asyncio.to_thread(write_bank, tmp_path, AMM, CURVE)
    coin = coin_of(pool(CURVE))
    quote, landing, size = await traded(path, USDC_MINT, coin, 25_000_000)
    assert [leg.mint_in for leg in quote.route] == [USDC_MINT, WSOL_MINT]
    assert size <= SIZE_MAX
    assert landing.err is None, landing
    assert landing.amount_out == quote.amount_out
    if not buying:
        back, landing, size = await traded(path, coin, USDC_MINT, quote.amount_out)
        assert [leg.mint_in for leg in back.route] == [coin, WSOL_MINT]
        assert size <= SIZE_MAX
        assert landing.err is None, landing
        assert landing.amount_out == back.amount_out < 25_000_000


async def test_a_split_over_two_programs_brings_what_was_quoted(tmp_path: Path) -> None:
    path = await asyncio.to_thread(write_bank, tmp_path, CURVE, AMM, DLMM)
    quote, landing, size = await traded(path, USDC_MINT, WSOL_MINT, 5 * 10**9)
    assert len({leg.pool for leg in quote.route}) == 2, quote
    assert {leg.mint_in for leg in quote.route} == {USDC_MINT}
    assert sum(leg.amount_in or 0 for leg in quote.route) == quote.amount_in
    assert size <= SIZE_MAX
    assert landing.err is None, landing
    assert landing.amount_out == quote.amount_out
