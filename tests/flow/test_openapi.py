"""The OpenAPI document is true: requests made from it, right ones and wrong ones, get the answers that it tells."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok

from headrace.gateway.routes.order_shapes import OrderPage, PortfolioView
from tests.examples import examples
from tests.flow.desk import desk

EXAMPLES = 20
EXPECTED = {
    "/api/orders/execute",
    "/api/orders/{order_id}/cancel",
    "/api/portfolio",
    "/api/quote",
    "/api/topics",
    "/health/live",
}
UNNAMED = {"positive_data_acceptance"}
"""A mint is more than a pattern, and two fields can contradict each other: the schema allows what may be wrong."""


def ask(document: dict[str, Any], port: int, order_id: str) -> set[str]:
    """Ask everything that the document offers, with and without an order that there is; the paths that were asked."""
    asked: set[str] = set()
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        asked.add(operation.path)
        for mode in GenerationMode:
            try:
                ask_one(operation, mode, f"http://127.0.0.1:{port}", order_id)
            except Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE, operation.label  # nothing about it can be wrong
    return asked


def ask_one(operation: Any, mode: GenerationMode, url: str, order_id: str) -> None:
    """Requests that the document allows, or (negative) forbids."""

    @settings(max_examples=examples(EXAMPLES), derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
    def check(case: Any, known: bool) -> None:
        if known and mode is GenerationMode.POSITIVE and "order_id" in case.path_parameters:
            case.path_parameters["order_id"] = order_id
        case.call_and_validate(base_url=url, excluded_checks=excluded())

    check()


def excluded() -> list[Any]:
    return [check for name in UNNAMED for check in CHECKS.get_by_names([name])]


async def test_nothing_is_found(tmp_path: Path) -> None:
    async with desk(tmp_path) as client:
        document = (await client.http.get("/schema")).json()
        order_id = await client.place()
        await client.follow(f"/ws/{order_id}")
        await client.place(type="limit", limitPrice="1000", slippage=None)
        assert await asyncio.to_thread(ask, document, client.port, order_id) >= EXPECTED


async def test_every_field_is_told(tmp_path: Path) -> None:
    """Which schemathesis does not look at: the document forbids what it does not name, and real answers pass."""
    async with desk(tmp_path) as client:
        await client.follow(f"/ws/{await client.place()}")
        await client.place(type="limit", limitPrice="1000", slippage=None)
        msgspec.json.decode((await client.http.get("/api/orders")).content, type=OrderPage)
        portfolio = await client.http.get("/api/portfolio", params={"user": "anonymous"})
        assert msgspec.json.decode(portfolio.content, type=PortfolioView).fills == 1


async def test_an_answer_that_is_not_as_told_is_found(tmp_path: Path) -> None:
    """Else the test above proves nothing."""
    async with desk(tmp_path) as client:
        document = (await client.http.get("/schema")).json()
        order_id = await client.place()
        document["components"]["schemas"]["OrderView"]["properties"]["seq"] = {"type": "string"}
        path = "/api/orders/{order_id}"
        document["paths"] = {path: document["paths"][path]}
        with pytest.raises(FailureGroup):
            await asyncio.to_thread(ask, document, client.port, order_id)
