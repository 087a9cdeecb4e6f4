"""Alert rules and dashboard use only metrics, labels and values that a real server exports."""

import asyncio
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import websockets
import yaml

from headrace.decoders.registry import Programs
from headrace.ingest.measures import Measures
from headrace.model.orders import OrderStatus
from headrace.protocol.codes import CloseCode
from headrace.protocol.session import MALFORMED_MAX
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from headrace.sources.metrics import SourceMetrics
from headrace.testing.node import ScriptedNode
from tests.cli.command import running
from tests.deploy.promql import DEPLOY_LABELS, Exported, read_exposition, used_by
from tests.flow.life import pump_trade_logs
from tests.mainnet import PUMP

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
RULES: Final = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD: Final = DEPLOY / "grafana" / "dashboards" / "headrace.json"

ON_FAULTS: Final = frozenset(
    {
        "headrace_drift_invalid_total",
        "headrace_drift_longer_total",
        "headrace_drift_unknown_total",
        "headrace_ingest_bad_total",
        "headrace_ingest_unread_total",
        "headrace_source_gaps_total",
        "headrace_source_transactions_lost_total",
    }
)
"""Metrics that get samples from faults alone; their labels are those that the classes declare."""

CLOSED_SETS: Final = {
    "job": {"headrace"},
    "code": {str(code.value) for code in CloseCode},
    "state": {"unrecoverable", "backfilled", "open", "ready", "resting", "begun"},
    "status": {status.value for status in OrderStatus} | {"400", "403", "429", "503", "tls"},
}
"""Values of labels that the run below does not provoke."""


def expressions_of(value: Any) -> Iterator[str]:
    """Yield every `expr`, at any depth."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if key == "expr":
            yield inner
        elif isinstance(inner, dict | list):
            yield from expressions_of(inner)


ALERTS: Final[list[dict[str, Any]]] = [
    alert for group in yaml.safe_load(RULES.read_text())["groups"] for alert in group["rules"]
]
PANELS: Final = list(expressions_of(json.loads(DASHBOARD.read_text())))


AWAITED: Final = (
    "headrace_drift_decoded_total{",
    "headrace_gateway_closed_total{",
    "headrace_gateway_refused_total{",
    "headrace_ingest_stage_seconds_bucket{",
    "headrace_order_stage_seconds_bucket{",
    "headrace_orders_ended_total{",
    "headrace_orders_waiting{",
    "headrace_source_lag_slots{",
    "headrace_source_reconnects_total{",
)
"""Samples that the run above leads to, sooner or later."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return the exports of a server that decoded, lost its node, refused and closed clients, and executed an order."""
    return read_exposition(asyncio.run(scrape(tmp_path_factory.mktemp("server"))))


async def scrape(folder: Path) -> str:
    async with asyncio.timeout(240), ScriptedNode() as node:
        given = {
            "SOLANA_RPC_WS": node.ws_url,
            "SOLANA_RPC_URL": node.http_url,
            "SUBSCRIPTIONS": "logs:pump",
            "SOLANA_CHECK_S": "0.1",
        }
        async with (
            running(folder, "serve", **given, MOCK_QUOTE_MS="0", MOCK_EXECUTION_MS="0") as command,
            httpx.AsyncClient(base_url=await command.url(), trust_env=False, timeout=60) as http,
        ):
            await node.until(lambda: node.subscribed("logs") > 0 and node.subscribed("slot") > 0)
            for lines in pump_trade_logs()[:20] * 10:
                node.advance_slot()
                node.emit_transaction([PUMP], lines)
            await provoke(http)
            node.drop_clients()
            await node.until(lambda: node.subscribed("logs") > 0)
            text = ""
            while missing := [name for name in AWAITED if name not in text]:
                print("missing", missing)
                await asyncio.sleep(0.2)  # before the next question
                text = (await http.get("/metrics")).text
            return text


async def provoke(http: httpx.AsyncClient) -> None:
    """Be refused at the door, be closed by the server, and place an order."""
    url = str(http.base_url.join("/ws")).replace("http", "ws", 1)
    with pytest.raises(websockets.InvalidStatus):
        await websockets.connect(url, origin=websockets.Origin("https://elsewhere.example"), proxy=None)
    async with websockets.connect(url, proxy=None) as client:
        for _ in range(MALFORMED_MAX):
            await client.send(b"\x00")
        await client.wait_closed()
    order = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5}
    assert (await http.post("/api/orders/execute", json=order)).status_code == 201


@cache
def declared() -> dict[str, set[str]]:
    """Return the labels of the metrics that only faults fill, as the classes that export them declare them."""
    metrics = Metrics()
    SourceMetrics(metrics).transaction_lost("node", "reason")
    measures = Measures(Programs.load(), "python", ManualClock(), metrics)
    families = {
        f"{each.name}_total": {*each._labelnames} for each in measures.collect() if hasattr(each, "_labelnames")
    }
    lost = read_exposition(metrics.render().decode()).labels
    return families | {name: set(labels) for name, labels in lost.items()}


def check(expression: str, exported: Exported) -> set[str]:
    """Fail for a name, label or value that is not exported. Return the labels that the result may have."""
    used = used_by(expression)
    assert used.matched, expression
    on_faults = declared()
    labels: set[str] = {*DEPLOY_LABELS}
    for name, matched in used.matched.items():
        assert name == "up" or name in exported.names, f"{name} is not exported"
        values = exported.labels_of(name)
        known = on_faults[name] if name in ON_FAULTS else set(values)
        assert name in ON_FAULTS or name == "up" or name in exported.labels, f"{name} has no sample"
        labels |= known
        assert matched.keys() <= known | DEPLOY_LABELS, f"{name} has no such label: {matched.keys() - known}"
        for label, wanted in matched.items():
            assert wanted <= values.get(label, set()) | CLOSED_SETS.get(label, set()), (name, label, wanted)
    assert used.grouped <= labels, f"no such label in {expression}: {used.grouped - labels}"
    return labels


@pytest.mark.parametrize("alert", ALERTS, ids=[each["alert"] for each in ALERTS])
def test_alert_uses_what_is_exported(alert: dict[str, Any], exported: Exported) -> None:
    labels = check(alert["expr"], exported)
    shown = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
    assert shown <= labels


@pytest.mark.parametrize("expression", PANELS)
def test_panel_uses_what_is_exported(expression: str, exported: Exported) -> None:
    check(expression, exported)


@pytest.mark.parametrize(
    "expression",
    [
        "headrace_nothing",
        'headrace_part_up{nolabel="x"}',
        'headrace_orders_waiting{state="redy"}',
        "sum by (nolabel) (headrace_ready)",
        'headrace_source_gaps_total{cause="x"}',
    ],
)
def test_a_name_label_or_value_that_is_not_exported_is_found(expression: str, exported: Exported) -> None:
    with pytest.raises(AssertionError):
        check(expression, exported)
