"""The documents and metrics of a running server pass the checks of those who read them."""

import json
from pathlib import Path

import httpx
import pytest

from headrace.testing.node import ScriptedNode
from tests.cli.command import running
from tests.outside.tools import HERE, MODULES, NODE, PROMTOOL, needs_node_tools, needs_promtool, run


@needs_node_tools
def test_asyncapi_document_passes_its_official_parser(asyncapi: Path) -> None:
    assert "3 channels" in run(NODE, HERE / "asyncapi.mjs", asyncapi)


@needs_node_tools
def test_wrong_asyncapi_document_fails_its_official_parser(asyncapi: Path, tmp_path: Path) -> None:
    document = json.loads(asyncapi.read_text())
    document["components"]["schemas"]["Welcome"]["discriminator"] = {"propertyName": "type"}
    wrong = tmp_path / "asyncapi.json"
    wrong.write_text(json.dumps(document))
    with pytest.raises(AssertionError, match=r"type must be string"):
        run(NODE, HERE / "asyncapi.mjs", wrong)


@needs_node_tools
def test_openapi_document_passes_redocly_without_a_warning(openapi: Path) -> None:
    found = run(MODULES / ".bin" / "redocly", "lint", "--format=json", openapi, folder=openapi.parent)
    assert json.loads(found)["totals"] == {"errors": 0, "warnings": 0, "ignored": 0}


@needs_promtool
def test_metrics_of_the_demo_pass_promtool(demo: str) -> None:
    order = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5}
    with httpx.Client(base_url=demo, trust_env=False, timeout=60) as http:
        assert http.post("/api/orders/execute", json=order).status_code == 201
        metrics = http.get("/metrics").text
    assert "headrace_market_trades_total{" in metrics
    assert run(PROMTOOL, "check", "metrics", stdin=metrics) == ""


@needs_promtool
async def test_metrics_of_a_server_on_a_node_pass_promtool(tmp_path: Path) -> None:
    async with (
        ScriptedNode() as node,
        running(tmp_path, "serve", SOLANA_RPC_WS=node.ws_url) as command,
        httpx.AsyncClient(base_url=await command.url(), trust_env=False, timeout=60) as http,
    ):
        metrics = (await http.get("/metrics")).text
    assert "headrace_source_" in metrics
    assert run(PROMTOOL, "check", "metrics", stdin=metrics) == ""
