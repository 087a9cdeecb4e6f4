"""Measures the time that the engine adds to quotes and chain, with 1,000 orders in flight and default latencies.

The minimum time of an order is the time of its quotes, plus the time of its transaction according to the chain's
ledger. All other time, from placing the order over `/ws` to the message that it is confirmed, is added by the engine.
"""

import argparse
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

import headrace
from headrace.bench import progress, run_and_report
from headrace.bench.orders import HEADRACE, new_database, serving
from headrace.chains.mock import MockChainSettings
from headrace.orders.store import STORES
from headrace.testing import postgres
from headrace.venues.mock import MockMarketSettings

QUOTE_MS: Final = MockMarketSettings().quote_ms
TAKES_S: Final = QUOTE_MS / 1000 + sum(map(int, MockChainSettings().execution_ms.split("-"))) / 2000
"""Mean time of an order if the engine adds nothing."""

# Time from sending to confirmation. A transaction lands after half of this time.
_CHAIN_MS: Final = "select memo, 2 * (confirmed_at - lands_at) from transactions where confirmed_at is not null"


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure two loads: `at_once` places all orders together, `steady` at the rate of an engine without overhead."""
    results: dict[str, dict[str, Any]] = {}
    per_s = round(args.in_flight / TAKES_S)
    with tempfile.TemporaryDirectory(prefix="hr-overhead-") as name, ExitStack() as stack:
        folder = Path(name)
        url = stack.enter_context(postgres.server(durable=True))
        for store in sorted(STORES):
            for kind, orders, pace in (("at_once", args.in_flight, 0), ("steady", 3 * args.in_flight, per_s)):
                chain = folder / f"chain-{store}-{kind}.db"
                place = f"sqlite:///{folder}/{kind}.db" if store == "sqlite" else new_database(url, kind)
                env = {**HEADRACE, "DATABASE_URL": place, "MOCK_CHAIN_FILE": str(chain)}
                for latency in ("MOCK_QUOTE_MS", "MOCK_EXECUTION_MS"):
                    del env[latency]
                env["QUEUE_MAX_CONCURRENCY"] = str(2 * args.in_flight)
                with serving([[sys.executable, "-m", "headrace", "serve"]], env, folder / "server.log") as served:
                    placed = _placed(served.port, orders, args.in_flight if not pace else 2 * args.in_flight, pace)
                measured = {**_overhead(placed["took_ms"], chain), "unfinished": placed["never_over"]}
                progress(f"{store} {kind}: {measured}")
                results.setdefault(store, {})[kind] = measured
    return {
        "bench": "orders_overhead",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": headrace.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 1),
        "in_flight": args.in_flight,
        "per_s": per_s,
        "results": results,
    }


def _placed(port: int, orders: int, in_flight: int, per_s: int) -> dict[str, Any]:
    words = [str(word) for word in (port, orders, 4, in_flight, per_s)]
    command = [sys.executable, "-m", "headrace.bench.orders_clients", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603
    placed: dict[str, Any] = msgspec.json.decode(done.stdout)
    return placed


def _overhead(took_ms: dict[str, float], chain: Path) -> dict[str, float]:
    """Return quantiles of the time that the engine added to each order, in ms."""
    db = sqlite3.connect(chain)
    floor_ms = {memo: QUOTE_MS + chain_ms for memo, chain_ms in db.execute(_CHAIN_MS)}
    db.close()
    over = sorted(took - floor_ms[order_id] for order_id, took in took_ms.items() if order_id in floor_ms)
    return {f"p{part}_ms": round(over[len(over) * part // 100], 1) for part in (50, 90, 99)} | {"orders": len(over)}


def table(report: dict[str, Any]) -> str:
    """Return the report as a table."""
    lines = [f"ms beyond what quotes and chain took, {report['in_flight']} orders in flight"]
    for store, kinds in report["results"].items():
        for kind, row in kinds.items():
            lines.append(f"{store:10}{kind:9}" + "  ".join(f"{name} {value}" for name, value in row.items()))
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Run `headrace bench orders_overhead`."""
    parser = argparse.ArgumentParser(
        prog="headrace bench orders_overhead", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--in-flight", type=int, default=1000, help="orders at once (default %(default)s)")
    return run_and_report(parser, argv, run, table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
