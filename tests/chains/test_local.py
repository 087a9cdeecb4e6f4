"""The local chain with the venue of pools: orders are quoted, built and executed on the program that mainnet runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from headrace.chains import CHAINS, Chain, Landing
from headrace.model.amounts import BaseUnits
from headrace.model.errors import BadInputError, ConfigError
from headrace.model.orders import OrderRequest
from headrace.model.transactions import memo
from headrace.orders.requests import TOKENS
from headrace.runtime.clock import ManualClock
from headrace.solana.bank import Bank
from headrace.testing.orders import new_order
from headrace.venues import VENUES, Venue
from tests.contracts.banks import bank_file
from tests.contracts.contexts import opened

SELL = new_order("o", 1).request  # 1 SOL to USDC
BUY = replace(SELL, token_in=TOKENS["USDC"], token_out=TOKENS["SOL"], amount=BaseUnits(150 * 10**6))


class Both(NamedTuple):
    chain: Chain
    venue: Venue


@asynccontextmanager
async def both(folder: Path) -> AsyncIterator[Both]:
    path, clock = str(await asyncio.to_thread(bank_file, folder)), ManualClock()
    async with (
        opened(CHAINS, "local", clock, file=path) as (chain, _),
        opened(VENUES, "pools", clock, bank=path) as (venue, _),
    ):
        yield Both(chain, venue)


async def executed(both: Both, request: OrderRequest, min_out: int | None = None) -> tuple[int, Landing]:
    """Execute as the engine does; returns what was quoted and how the transaction landed."""
    quote = await both.venue.quote(request)
    least = quote.amount_out if min_out is None else min_out
    swap = await both.venue.swap(quote, both.chain.owner, BaseUnits(least))
    signed = both.chain.sign((*swap, memo("order")), await both.chain.blockhash())
    await both.chain.send(signed)
    landing = (await both.chain.look(signed.signature)).landing
    assert landing is not None
    return quote.amount_out, landing


async def test_an_order_brings_exactly_what_was_quoted_in_both_directions(tmp_path: Path) -> None:
    async with both(tmp_path) as opened_both:
        for request in (SELL, BUY, SELL):
            quoted, landing = await executed(opened_both, request)
            assert (landing.err, landing.amount_out) == (None, quoted)


async def test_each_order_moves_the_price_for_the_next(tmp_path: Path) -> None:
    async with both(tmp_path) as opened_both:
        large = replace(SELL, amount=BaseUnits(100 * 10**9))
        first, _ = await executed(opened_both, large)
        second, _ = await executed(opened_both, large)
        assert second < first


async def test_an_order_below_its_least_amount_fails_and_costs_only_the_fee(tmp_path: Path) -> None:
    async with both(tmp_path) as opened_both:
        _, landing = await executed(opened_both, SELL, min_out=2**60)
        assert (landing.reason, landing.amount_out) == ("slippage_exceeded", None)


@pytest.mark.parametrize("register", [CHAINS, VENUES])
async def test_a_bank_that_is_not_there_is_a_wrong_setting(register: object, tmp_path: Path) -> None:
    for given in (*([None] if register is CHAINS else []), str(tmp_path / "nothing.json")):
        with pytest.raises(ConfigError, match="BANK_FILE"):
            if register is CHAINS:
                async with opened(CHAINS, "local", file=given):
                    pass
            else:
                async with opened(VENUES, "pools", bank=given):
                    pass


KEY = "11111111111111111111111111111112"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not a bank"),
        ("[]", "not a bank"),
        ('{"accounts": [{"pubkey": "x", "account": {"owner": "y", "data": ["", "base64"]}}]}', "not a bank"),
        (f'{{"accounts": [], "programs": [{{"pubkey": "{KEY}"}}]}}', "without data or file"),
        (f'{{"accounts": [], "programs": [{{"pubkey": "{KEY}", "data": ["AAAA", "base64"]}}]}}', "not a program"),
    ],
)
def test_a_file_that_is_no_bank_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "bank.json"
    file.write_text(text)
    with pytest.raises(BadInputError, match=expected):
        Bank.open(file)
