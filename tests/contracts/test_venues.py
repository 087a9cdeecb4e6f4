"""What every venue in the register must do; a new venue is tested by being registered."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from msgspec.structs import replace

from headrace.model.amounts import BaseUnits
from headrace.model.orders import BPS_WHOLE, U64_MAX, OrderRequest, Quote
from headrace.model.transactions import Instruction
from headrace.orders.decisions import least_out
from headrace.orders.requests import TOKENS
from headrace.runtime.clock import ManualClock
from headrace.testing.orders import new_order
from headrace.venues import VENUES, Venue
from tests.contracts.banks import bank_file
from tests.contracts.contexts import opened

SELL: Final = new_order("o", 1).request  # 1 SOL to USDC
BUY: Final = replace(SELL, token_in=TOKENS["USDC"], token_out=TOKENS["SOL"], amount=BaseUnits(150 * 10**6))
OWNER: Final = "So11111111111111111111111111111111111111112"
SETTINGS: Final[dict[str, dict[str, Any]]] = {name: {"quote_ms": 0} for name in ("meteora", "raydium")}
"""Venue → settings under which it answers without a network, where the defaults don't."""


@pytest.fixture(params=sorted(VENUES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def bank(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bank file for venues that quote from one."""
    if name == "pools":
        monkeypatch.setitem(SETTINGS, name, {"bank": str(bank_file(tmp_path, needs_programs=False))})


@asynccontextmanager
async def open_venue(name: str, **settings: Any) -> AsyncIterator[Venue]:
    async with opened(VENUES, name, **SETTINGS.get(name, {}) | settings) as (venue, _):
        yield venue


async def test_a_quote_is_of_this_venue_and_of_the_amount_asked(name: str) -> None:
    async with open_venue(name) as venue:
        assert venue.name == name
        for request in (SELL, BUY):
            quote = await venue.quote(request)
            assert (quote.venue, quote.amount_in) == (name, request.amount)
            assert 0 < quote.amount_out <= U64_MAX
            assert 0 <= quote.fee_bps < BPS_WHOLE


async def test_a_route_leads_from_the_mint_in_to_the_mint_out_without_a_break(name: str) -> None:
    async with open_venue(name) as venue:
        for request in (SELL, BUY):
            route = (await venue.quote(request)).route
            mints = [leg.mint_in for leg in route] + [route[-1].mint_out]
            assert (mints[0], mints[-1]) == (request.token_in.mint, request.token_out.mint)
            assert mints[1:] == [leg.mint_out for leg in route]
            assert all(leg.pool for leg in route)


async def test_a_slot_is_that_of_a_state_or_none(name: str) -> None:
    async with open_venue(name) as venue:
        slot = (await venue.quote(SELL)).slot
        assert slot is None or slot >= 0


async def test_a_quote_can_be_stored_and_read(name: str) -> None:
    async with open_venue(name) as venue:
        quote = await venue.quote(SELL)
        assert msgspec.json.decode(msgspec.json.encode(quote), type=Quote) == quote


async def test_the_smallest_and_the_largest_amount_are_answered_without_overflow(name: str) -> None:
    async with open_venue(name) as venue:
        for amount in (1, U64_MAX):
            request: OrderRequest = replace(SELL, amount=BaseUnits(amount))
            quote = await venue.quote(request)
            assert quote.amount_out >= 0
            assert least_out(request, quote) >= 1


async def test_many_quotes_at_once_are_answered_each_for_its_own_request(name: str) -> None:
    async with open_venue(name) as venue:
        requests: list[OrderRequest] = [replace(SELL, amount=BaseUnits(10**9 + n)) for n in range(50)]
        quotes = await asyncio.gather(*map(venue.quote, requests))
        assert [quote.amount_in for quote in quotes] == [request.amount for request in requests]


async def test_the_swap_of_a_quote_is_signed_by_the_owner_and_the_same_each_time(name: str) -> None:
    async with open_venue(name) as venue:
        quote = await venue.quote(SELL)
        first, again = [await venue.swap(quote, OWNER, BaseUnits(1)) for _ in range(2)]
        assert first
        assert all(isinstance(each, Instruction) and each.program_id for each in first)
        signers = {account.pubkey for each in first for account in each.accounts if account.signer}
        assert signers == {OWNER}, "nobody else can be asked to sign"
        assert list(first) == list(again)


async def test_another_least_amount_makes_another_swap(name: str) -> None:
    async with open_venue(name) as venue:
        quote = await venue.quote(SELL)
        one, other = [[*await venue.swap(quote, OWNER, BaseUnits(least))] for least in (1, quote.amount_out)]
        assert one != other


async def test_a_cancelled_quote_harms_no_later_quote(name: str) -> None:
    async with open_venue(name) as venue:
        asked = asyncio.ensure_future(venue.quote(SELL))
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert (await venue.quote(SELL)).venue == name


async def test_a_venue_that_works_passes_both_checks_and_closes_twice(name: str) -> None:
    async with open_venue(name) as venue:
        await venue.check(thorough=False)
        await venue.check(thorough=True)
        await venue.close()


async def test_two_venues_of_one_name_share_nothing(name: str) -> None:
    clock = ManualClock()
    settings = SETTINGS.get(name, {})
    async with opened(VENUES, name, clock, **settings) as (one, _), opened(VENUES, name, clock, **settings) as (two, _):
        first = [(await one.quote(SELL)).amount_in for _ in range(3)]
        assert first == [(await two.quote(SELL)).amount_in for _ in range(3)]
