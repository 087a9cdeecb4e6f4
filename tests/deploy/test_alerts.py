"""Each alert fires on the series that it is for, and none fires on a server that works; promtool judges."""

from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.deploy.test_runbook import ALERTS, ROOT
from tests.outside.tools import PROMTOOL, needs_promtool, run

RULES: Final = ROOT / "deploy" / "prometheus" / "alerts.yml"
MINUTES: Final = 480
"""Length of each test. Series are given a value for each minute."""

GROWS: Final = f"0+6x{MINUTES}"
"""A counter that grows by 0.1 a second."""


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    shown = {"job": "headrace", "instance": "a:8080", **labels}
    matchers = ",".join(f'{label}="{value}"' for label, value in shown.items())
    return {"series": f"{name}{{{matchers}}}", "values": values}


def steps(before: int | None, after: int, at: int) -> str:
    """Return values that are `before` (None: there is no series) until a minute, and `after` from then on."""
    return f"{'_' if before is None else f'{before}+0'}x{at - 1} {after}+0x{MINUTES - at}"


def histogram(name: str, le: str, **labels: str) -> list[dict[str, str]]:
    """Return a histogram of 60 observations a minute, all of them in the bucket up to `le`."""
    below = series(f"{name}_bucket", f"0+0x{MINUTES}", le="0.001", **labels)
    counts = [series(f"{name}_bucket", f"0+60x{MINUTES}", le=each, **labels) for each in (le, "+Inf")]
    return [below, *counts, series(f"{name}_count", f"0+60x{MINUTES}", **labels)]


WORKS: Final = [
    series("up", f"1+0x{MINUTES}"),
    series("headrace_ready", f"1+0x{MINUTES}"),
    series("headrace_part_up", f"1+0x{MINUTES}", part="bus", required="true"),
    series("headrace_part_up", f"1+0x{MINUTES}", part="history", required="false"),
    series("process_start_time_seconds", f"1+0x{MINUTES}"),
    series("process_open_fds", f"100+0x{MINUTES}"),
    series("process_max_fds", f"1000+0x{MINUTES}"),
    series("headrace_ingest_received_total", GROWS, kind="SlotUpdate"),
    series("headrace_source_gaps_total", steps(3, 3, 60), source="rpc-0", state="unrecoverable"),
    series("headrace_source_gaps_total", GROWS, source="rpc-0", state="backfilled"),
    series("headrace_source_lag_slots", f"3+0x{MINUTES}", source="rpc-0"),
    series("headrace_source_reconnects_total", steps(1, 4, 470), source="rpc-0", reason="closed"),
    series("headrace_drift_decoded_total", GROWS, program="pump", kind="event"),
    series("headrace_gateway_connections", f"100+0x{MINUTES}"),
    series("headrace_gateway_connections_max", f"1000+0x{MINUTES}"),
    series("headrace_gateway_closed_total", GROWS, code="1000"),
    series("headrace_gateway_refused_total", GROWS, status="403"),
    *histogram("headrace_gateway_flush_seconds", "0.01"),
    series("headrace_inbox_lost_total", f"0+0x{MINUTES}"),
    series("headrace_history_dropped_total", f"0+0x{MINUTES}"),
    series("headrace_cache_dropped_total", f"0+0x{MINUTES}"),
    series("headrace_orders_unreadable", f"0+0x{MINUTES}"),
    series("headrace_orders_waiting", f"5+0x{MINUTES}", state="ready"),
    *histogram("headrace_order_stage_seconds", "0.5", stage="queued"),
    series("headrace_orders_ended_total", GROWS, status="CONFIRMED"),
    series("headrace_orders_lease_lost_total", f"0+0x{MINUTES}"),
    series("headrace_orders_news_dropped_total", f"0+0x{MINUTES}"),
]
"""A server that works, with orders that wait and are taken."""

FAILS: Final[dict[str, list[dict[str, str]]]] = {
    "HeadraceDown": [series("up", steps(1, 0, 470))],
    "HeadraceNotReady": [series("headrace_ready", steps(1, 0, 470))],
    "HeadracePartDown": [series("headrace_part_up", steps(1, 0, 460), part="venue:raydium", required="false")],
    "HeadraceRestarts": [series("process_start_time_seconds", f"1+0x{MINUTES - 10} 2+1x10")],
    "HeadraceFilesRunOut": [
        series("process_open_fds", f"900+0x{MINUTES}"),
        series("process_max_fds", f"1000+0x{MINUTES}"),
    ],
    "HeadraceUpdatesStopped": [series("headrace_ingest_received_total", f"5+0x{MINUTES}", kind="SlotUpdate")],
    "HeadraceGapUnrecoverable": [
        series("headrace_source_gaps_total", steps(None, 1, 475), source="rpc-0", state="unrecoverable")
    ],
    "HeadraceSourceLags": [series("headrace_source_lag_slots", steps(3, 400, 470), source="rpc-0")],
    "HeadraceSourceReconnects": [
        series("headrace_source_reconnects_total", f"0+1x{MINUTES}", source="rpc-0", reason="x")
    ],
    "HeadraceTransactionsLost": [
        series("headrace_source_transactions_lost_total", steps(None, 1, 475), source="rpc-0", reason="rate")
    ],
    "HeadraceUpdateUnusable": [series("headrace_ingest_bad_total", steps(7, 8, 475), reason="x")],
    "HeadraceEventUnread": [
        series("headrace_ingest_unread_total", steps(None, 1, 475), program="pump", event="TradeEvent", reason="x")
    ],
    "HeadraceDecodingStopped": [
        series("headrace_drift_decoded_total", f"0+60x420 25200+0x{MINUTES - 421}", program="pump", kind="event")
    ],
    "HeadraceLayoutMisfit": [series("headrace_drift_invalid_total", steps(None, 1, 475), program="pump", kind="event")],
    "HeadraceConnectionsNearLimit": [
        series("headrace_gateway_connections", f"900+0x{MINUTES}"),
        series("headrace_gateway_connections_max", f"1000+0x{MINUTES}"),
    ],
    "HeadraceClientsSlow": [series("headrace_gateway_closed_total", f"0+2x{MINUTES}", code="4008")],
    "HeadraceClientsRefused": [series("headrace_gateway_refused_total", f"0+9x{MINUTES}", status="429")],
    "HeadraceDeliverySlow": histogram("headrace_gateway_flush_seconds", "0.5"),
    "HeadraceInboxMessagesLost": [series("headrace_inbox_lost_total", steps(0, 4, 470))],
    "HeadraceHistoryDropped": [series("headrace_history_dropped_total", steps(0, 4, 475))],
    "HeadraceSnapshotsDropped": [series("headrace_cache_dropped_total", steps(0, 4, 475))],
    "HeadraceOrderUnreadable": [series("headrace_orders_unreadable", steps(0, 1, 475))],
    "HeadraceOrdersStuck": [
        series("headrace_orders_waiting", f"5+0x{MINUTES}", state="ready"),
        series("headrace_order_stage_seconds_count", f"7+0x{MINUTES}", stage="queued"),
    ],
    "HeadraceOrdersWait": histogram("headrace_order_stage_seconds", "30", stage="queued"),
    "HeadraceOrdersFail": [
        series("headrace_orders_ended_total", f"0+1x{MINUTES}", status="CONFIRMED"),
        series("headrace_orders_ended_total", f"0+1x{MINUTES}", status="FAILED"),
    ],
    "HeadraceOrderLeasesLost": [series("headrace_orders_lease_lost_total", steps(0, 5, 475))],
    "HeadraceOrderEventsDropped": [series("headrace_orders_news_dropped_total", steps(0, 1, 475))],
}
"""Alert → series of a fault."""


def test_each_alert_has_its_fault() -> None:
    assert list(FAILS) == [alert["alert"] for alert in ALERTS]


@needs_promtool
def test_rules_pass_promtool() -> None:
    run(PROMTOOL, "check", "rules", RULES)
    run(PROMTOOL, "check", "config", RULES.with_name("prometheus.yml"))


@pytest.mark.long  # promtool evaluates eight hours for each fault
@needs_promtool
def test_each_fault_fires_its_alert_alone_and_a_server_that_works_none(tmp_path: Path) -> None:
    tests = [case(WORKS, [])] + [case(fault, [alert]) for alert, fault in FAILS.items()]
    file = tmp_path / "alerts.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    run(PROMTOOL, "test", "rules", file)


def case(given: list[dict[str, str]], alerts: list[str]) -> dict[str, Any]:
    """Return a test of promtool: with these series just these alerts fire in the last minute."""
    samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in alerts]
    firing = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{MINUTES}m",
        "exp_samples": samples,
    }
    return {"interval": "1m", "input_series": given, "promql_expr_test": [firing]}
