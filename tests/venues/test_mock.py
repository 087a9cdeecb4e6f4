"""The mock venues: fees, variance, latency and seeds as they are told."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from headrace.adapters import load_class
from headrace.model.amounts import BaseUnits
from headrace.model.errors import TransientError
from headrace.model.orders import OrderRequest, Token
from headrace.orders.requests import TOKENS
from headrace.runtime.clock import ManualClock
from headrace.testing.orders import new_order
from headrace.venues import VENUES, Venue
from headrace.venues.mock import MockMarketSettings

FEES = {"raydium": 25, "meteora": 30}
SELL = new_order("o", 1).request  # 1 SOL to USDC, at 150
BUY = replace(SELL, token_in=TOKENS["USDC"], token_out=TOKENS["SOL"], amount=BaseUnits(150 * 10**6))


def venue(name: str, clock: ManualClock | None = None, **settings: Any) -> Venue:
    made: Venue = load_class(VENUES[name])(MockMarketSettings(**{"quote_ms": 0, **settings}), clock or ManualClock())
    return made


@pytest.fixture(params=sorted(FEES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_without_variance_the_price_is_the_reference_less_the_fee(name: str) -> None:
    for request, gross in ((SELL, 150 * 10**6), (BUY, 10**9)):
        quote = await venue(name, variance="0").quote(request)
        assert (quote.venue, quote.fee_bps, quote.amount_in) == (name, FEES[name], request.amount)
        assert quote.amount_out == gross * (10_000 - FEES[name]) // 10_000


async def test_a_pair_that_nobody_knows_trades_one_for_one(name: str) -> None:
    unknown: OrderRequest = replace(SELL, token_out=Token("X"), amount=BaseUnits(10_000))
    assert (await venue(name, variance="0").quote(unknown)).amount_out == 10_000 - FEES[name]


async def test_quotes_stray_by_two_to_five_percent_either_way(name: str) -> None:
    market = venue(name)
    fair = (await venue(name, variance="0").quote(SELL)).amount_out
    strays = [(await market.quote(SELL)).amount_out / fair - 1 for _ in range(300)]
    assert all(0.0199 <= abs(stray) <= 0.0501 for stray in strays)
    assert min(strays) < -0.045
    assert max(strays) > 0.045


async def test_the_same_seed_gives_the_same_prices_and_each_venue_its_own(name: str) -> None:
    async def prices(seed: int, name: str = name) -> list[int]:
        market = venue(name, seed=seed)
        return [(await market.quote(SELL)).amount_out for _ in range(20)]

    assert await prices(1) == await prices(1)
    assert await prices(1) != await prices(2)
    assert await prices(1, "raydium") != await prices(1, "meteora")


async def test_a_quote_takes_its_time(name: str) -> None:
    clock = ManualClock()
    asked = asyncio.ensure_future(venue(name, clock, quote_ms=200).quote(SELL))
    await clock.advance(0.199)
    assert not asked.done()
    await clock.advance(0.001)
    assert (await asked).venue == name


async def test_a_venue_that_errs_gives_none(name: str) -> None:
    with pytest.raises(TransientError):
        await venue(name, error=1.0).quote(SELL)
