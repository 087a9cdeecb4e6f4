"""The audit of fills: its sums are exact, in the order's view, in its log, and as a metric."""

import asyncio
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from headrace.model.amounts import BaseUnits, Bps
from headrace.model.fills import Audit, audit
from headrace.model.keys import WSOL_MINT
from headrace.model.orders import Outcome, Quote
from headrace.programs.raydium_amm_v4.curve import Pool
from tests.contracts.banks import bank_file
from tests.flow.desk import Desk, desk
from tests.programs.sets import pool
from tests.venues.test_followed import SOL_TO_USDC, setup


async def executed(client: Desk, **more: Any) -> dict[str, Any]:
    order_id = await client.place(**more)
    frames = await client.follow(f"/ws/{order_id}")
    assert frames[-1]["status"] == "CONFIRMED", frames
    answer = await client.http.get(f"/api/orders/{order_id}")
    order: dict[str, Any] = answer.json()
    return order


def sums_are_exact(order: dict[str, Any]) -> None:
    fill = order["fill"]
    quoted, slippage, received = (int(fill[name]) for name in ("quoted", "slippage", "received"))
    assert quoted - slippage == received == int(order["amountOut"])
    if fill["spot"] is not None:
        assert int(fill["spot"]) - int(fill["fees"]) - int(fill["impact"]) == quoted


async def test_a_fill_of_a_mock_has_slippage_alone_and_is_measured(tmp_path: Path) -> None:
    async with desk(tmp_path) as client:
        order = await executed(client)
        sums_are_exact(order)
        assert order["fill"]["spot"] is None
        events = (await client.http.get(f"/api/orders/{order['orderId']}/events")).json()["events"]
        assert order["fill"] in [event.get("fill") for event in events]
        metrics = (await client.http.get("/metrics")).text
        assert 'headrace_order_fill_bps_count{part="slippage"} 1.0' in metrics
        assert 'headrace_order_fill_bps_count{part="fees"}' not in metrics


async def test_a_fill_on_a_real_program_received_what_was_quoted(tmp_path: Path) -> None:
    path = await asyncio.to_thread(bank_file, tmp_path)
    async with desk(tmp_path, BANK_FILE=str(path), ORDER_CHAIN="local", ORDER_VENUES="pools") as client:
        for more in ({}, {"tokenIn": "USDC", "tokenOut": "SOL", "amount": 150}):
            order = await executed(client, **more)
            sums_are_exact(order)
            assert order["fill"]["slippage"] == "0"
            assert int(order["fill"]["fees"]) > 0
            assert int(order["fill"]["impact"]) >= 0


async def test_the_spot_is_the_amount_at_the_price_of_the_reserves() -> None:
    given = pool("raydium_amm_v4/sol_usdc_58oQCh_20261002")
    market = given.market()
    assert isinstance(market, Pool)
    sol, usdc = market.reserves if market.mints[0] == WSOL_MINT else market.reserves[::-1]
    async with setup(given) as at:
        quote = await at.venue.quote(SOL_TO_USDC)
    exact = SOL_TO_USDC.amount * usdc // sol
    assert quote.spot is not None
    assert abs(quote.spot - exact) <= 1, "the impact rounds down"


def test_an_order_without_a_fill_has_no_audit() -> None:
    assert audit(Outcome()) is None


def test_a_lost_landing_has_no_audit() -> None:
    quote = Quote(venue="pools", amount_in=BaseUnits(10), amount_out=BaseUnits(9), fee_bps=Bps(0))
    outcome = Outcome(venue="pools", quotes=(quote,), amount_out=BaseUnits(8), finality="confirmed")
    assert audit(outcome) == Audit(None, None, None, 9, 1, 8)
    assert audit(replace(outcome, finality="lost")) is None
