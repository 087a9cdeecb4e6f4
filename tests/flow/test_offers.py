"""`GET /api/quote`: what an order would get, with nothing ordered."""

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.gateway.order_commands import QUOTES_AT_ONCE_MAX
from headrace.gateway.routes.order_shapes import OfferView
from headrace.model.keys import USDC_MINT, WSOL_MINT
from tests.contracts.banks import bank_file
from tests.flow.desk import BODY, ask, desk

ASKED = {"inputMint": "SOL", "outputMint": USDC_MINT, "amount": "1500000000"}


async def test_the_best_offer_is_told_and_nothing_is_ordered(tmp_path: Path) -> None:
    async with desk(tmp_path) as client:
        answer = await client.http.get("/api/quote", params={**ASKED, "slippageBps": 50})
        assert answer.status_code == 200, answer.text
        offer = answer.json()
        msgspec.json.decode(answer.content, type=OfferView)
        given = {quote["dex"]: int(quote["amountOut"]) for quote in offer["quotes"]}
        assert set(given) == {"meteora", "raydium"}
        assert int(offer["amountOut"]) == max(given.values()) == given[offer["venue"]]
        assert int(offer["minOut"]) == -(-int(offer["amountOut"]) * 9_950 // 10_000)
        assert offer["route"] == [
            {
                "pool": offer["venue"],
                "inputMint": WSOL_MINT,
                "outputMint": USDC_MINT,
                "amountIn": None,
                "amountOut": None,
            }
        ]
        assert (await client.http.get("/api/orders")).json()["orders"] == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"inputMint": "no mint"}, "inputMint"),
        ({"outputMint": "SOL"}, "outputMint"),
        ({"amount": "1.5"}, "amount"),
        ({"amount": "0"}, "amount"),
        ({"amount": str(2**64)}, "amount"),
        ({"swapMode": "exact"}, "swapMode"),
        ({"slippageBps": 10_001}, "slippage"),
        ({"amount": None}, "amount"),
    ],
)
async def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    async with desk(tmp_path) as client:
        params = {name: value for name, value in {**ASKED, **changes}.items() if value is not None}
        answer = await client.http.get("/api/quote", params=params)
        assert answer.status_code == 400, answer.text
        assert field in answer.text


async def test_no_quote_is_no_offer(tmp_path: Path) -> None:
    async with desk(tmp_path, MOCK_QUOTE_ERROR="1") as client:
        answer = await client.http.get("/api/quote", params=ASKED)
        assert answer.status_code == 404
        problem = answer.json()
        assert (problem["code"], problem["retryable"], problem["fate"]) == ("no_quote", True, "not_executed")


async def test_pools_tell_fees_impact_and_slot(tmp_path: Path) -> None:
    path = await asyncio.to_thread(partial(bank_file, tmp_path, needs_programs=False))
    async with desk(tmp_path, BANK_FILE=str(path), ORDER_CHAIN="local", ORDER_VENUES="pools") as client:
        offer = (await client.http.get("/api/quote", params=ASKED)).json()
        assert (offer["venue"], offer["amountOut"], offer["slot"]) == ("pools", "182600000", 452593963)
        assert [(fee["to"], fee["mint"]) for fee in offer["fees"]] == [("lp", WSOL_MINT)]
        assert sum(int(fee["amount"]) for fee in offer["fees"]) == 1_500_000_000 * 25 // 10_000
        assert int(offer["impact"]) > 0
        assert offer["route"][0]["pool"] == "58oQChx4yWmvKdwLLZzBi4ChoCc2fqCUWBkwMihLYQo2"
        wanted: dict[str, str | int] = {**ASKED, "amount": "182600000", "swapMode": "ExactOut", "slippageBps": 50}
        exact = (await client.http.get("/api/quote", params=wanted)).json()
        assert (exact["swapMode"], exact["minOut"]) == ("ExactOut", "182600000")
        assert int(exact["amountOut"]) >= 182_600_000
        assert 1_499_000_000 < int(exact["amountIn"]) <= 1_500_000_000
        assert int(exact["maxIn"]) == int(exact["amountIn"]) * 10_050 // 10_000
        none = await client.http.get("/api/quote", params={**ASKED, "outputMint": "USDT"})
        assert none.status_code == 404


async def test_a_quote_over_ws_is_the_answer_of_http(tmp_path: Path) -> None:
    path = await asyncio.to_thread(partial(bank_file, tmp_path, needs_programs=False))
    settings = {"BANK_FILE": str(path), "ORDER_CHAIN": "local", "ORDER_VENUES": "pools"}
    async with desk(tmp_path, **settings) as client, client.connect() as socket:
        for changes in ({}, {"slippageBps": 50}, {"amount": "182600000", "swapMode": "ExactOut"}):
            asked: dict[str, Any] = {**ASKED, **changes}
            answer = await ask(socket, "quote", asked)
            assert answer["type"] == "quote", answer
            assert answer["data"] == (await client.http.get("/api/quote", params=asked)).json()
        refused = await ask(socket, "quote", {**ASKED, "outputMint": "USDT"}, 2)
        assert {name: refused["data"][name] for name in ("status", "reason", "fate", "retryable")} == {
            "status": 404,
            "reason": "no_quote",
            "fate": "not_executed",
            "retryable": True,
        }
        assert refused["data"]["errors"] == [{"name": "pools", "message": "no answer"}]


@pytest.mark.parametrize(
    ("data", "reason", "field"),
    [
        ({**ASKED, "inputMint": ["SOL"]}, "invalid_query", "inputMint"),
        ({**ASKED, "swapMode": {}}, "invalid_query", "swapMode"),
        ({**ASKED, "amount": "0"}, "invalid_query", "amount"),
        ({**ASKED, "amount": {"a": 1}}, "invalid_query", "amount"),
        ({"outputMint": "SOL"}, "invalid_query", "inputMint"),
        ([], "invalid_body", None),
    ],
)
async def test_wrong_parameters_of_a_quote_over_ws_are_named(
    tmp_path: Path, data: Any, reason: str, field: str | None
) -> None:
    async with desk(tmp_path) as client, client.connect() as socket:
        refused = await ask(socket, "quote", data)
        assert (refused["type"], refused["data"]["reason"]) == ("error", reason), refused
        assert field is None or field in [error["name"] for error in refused["data"]["errors"]]


async def test_a_quote_beyond_the_most_at_once_is_refused_and_an_order_is_not(tmp_path: Path) -> None:
    slow = {"MOCK_QUOTE_MS": "60000", "QUOTE_TIMEOUT_MS": "60000", "WEBSOCKET_COMMANDS_PER_S": "1000"}
    async with desk(tmp_path, **slow) as client, client.connect() as socket, asyncio.timeout(30):
        for number in range(QUOTES_AT_ONCE_MAX):
            await socket.send(json.dumps({"type": "quote", "id": number, "data": ASKED}))
        refused = await ask(socket, "quote", ASKED, QUOTES_AT_ONCE_MAX)
        assert (refused["data"]["code"], refused["data"]["temporary"]) == (111, True)
        assert (await ask(socket, "order.execute", BODY, 1000))["type"] == "order"


async def test_venues_that_quote_only_inputs_are_left_out_of_an_exact_output(tmp_path: Path) -> None:
    async with desk(tmp_path) as client:
        answer = await client.http.get("/api/quote", params={**ASKED, "swapMode": "ExactOut"})
        assert answer.status_code == 404
        assert "only ExactIn" in answer.text


async def test_without_orders_there_are_no_quotes(tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_ENABLED="false") as client:
        assert (await client.http.get("/api/quote", params=ASKED)).status_code == 501
        async with client.connect() as socket:
            refused = await ask(socket, "quote", ASKED)
            assert (refused["type"], refused["data"]["message"]) == ("error", "this server takes no orders")
