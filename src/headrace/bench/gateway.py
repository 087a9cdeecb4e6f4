"""Measures the frames that the gateway delivers, and their latency, compared with two common WebSocket servers.

Each contender is a server process. A second process has the clients, requests the load, and checks the messages: their
order, whether any is missing, and the time from when a message was due until a client had read it.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

import headrace
from headrace.bench import add_write, gateway_driven, gateway_server, print_report
from headrace.bench.gateway_clients import LoadReport
from headrace.bench.gateway_load import FILLING
from headrace.gateway.settings import GatewaySettings


def contenders(args: argparse.Namespace) -> dict[str, list[str]]:
    """Return name → command of a server that prints its port. Peers that are not installed are left out."""
    python = [sys.executable, "-m"]
    found = {"headrace": [*python, "headrace.bench.gateway", "--serve", "--tick-ms", str(args.tick_ms)]}
    if args.alone:
        return found
    found["websockets"] = [*python, "headrace.bench.gateway_peer"]
    node = shutil.which("node")
    if node and (args.peer / "node_modules").is_dir():
        found["ws (Node)"] = [node, str(args.peer / "server.mjs"), FILLING.decode()]
    return found


def measure(command: list[str], args: argparse.Namespace) -> LoadReport:
    """Run once against one server."""
    words = [*_on_core(args.server_core), *command]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603
        try:
            assert server.stdout is not None
            load = [server.stdout.readline().strip(), server.pid, args.clients, args.rate, args.secs]
            words = [*_on_core(args.client_core), sys.executable, "-m", "headrace.bench.gateway_clients"]
            done = subprocess.run([*words, *map(str, load)], stdout=subprocess.PIPE, check=True)  # noqa: S603
        finally:
            server.terminate()
    return msgspec.json.decode(done.stdout, type=LoadReport)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure all contenders in turn, `args.runs` times. Return the median of each number."""
    runs: dict[str, list[LoadReport]] = {name: [] for name in contenders(args)}
    for _ in range(args.runs):
        for name, command in contenders(args).items():
            runs[name].append(measure(command, args))
    return _conditions(args) | {
        "message_bytes": len(FILLING) + 30,
        "results": {name: _medians(reports) for name, reports in runs.items()},
    }


def _conditions(args: argparse.Namespace) -> dict[str, Any]:
    """Return the machine, the time and the load of the measurement."""
    return {
        "bench": "gateway",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": headrace.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 1),
        "clients": args.clients,
        "rate": args.rate,
        "secs": args.secs,
        "runs": args.runs,
    }


def _medians(reports: Sequence[LoadReport]) -> dict[str, float]:
    numbers = [msgspec.structs.asdict(report) for report in reports]
    fields = [field for field in LoadReport.__struct_fields__ if field not in ("clients", "rate", "secs")]
    return {field: round(median(number[field] for number in numbers), 3) for field in fields}


def table(report: dict[str, Any]) -> str:
    """Return the report as a table."""
    lines = [
        f"{report['clients']} clients x {report['rate']:g} messages a second, {report['secs']:g} s, "
        f"median of {report['runs']} runs",
        "              frames/s delivered holes  p50 ms  p99 ms  max ms  cores    MB",
    ]
    for name, row in report["results"].items():
        p50, p99, longest = (row[key] / 1000 for key in ("p50_us", "p99_us", "max_us"))
        lines.append(
            f"{name:12}{row['delivered']:10,.0f}{row['fraction']:10.1%}{row['holes']:6.0f}"
            f"{p50:8.2f}{p99:8.2f}{longest:8.1f}{row['server_cpu']:7.2f}{row['rss_kb'] / 1024:6.0f}"
        )
    return "\n".join(lines)


def _on_core(core: int | None) -> list[str]:
    return [] if core is None else ["taskset", "-c", str(core)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headrace bench gateway", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    load = parser.add_argument_group("load")
    load.add_argument("--clients", type=int, default=100, help="connections (default %(default)s)")
    load.add_argument("--rate", type=float, default=1000, help="messages a second to each (default %(default)s)")
    load.add_argument("--secs", type=float, default=3, help="seconds of a run (default %(default)s)")
    load.add_argument("--runs", type=int, default=5, help="runs of each contender, in turn (default %(default)s)")
    load.add_argument("--alone", action="store_true", help="without the peers")
    load.add_argument(
        "--peer", type=Path, default=Path("benchmarks/gateway/ws"), help="folder of the Node peer (default %(default)s)"
    )
    load.add_argument("--tick-ms", type=float, default=GatewaySettings().tick_ms, help="WEBSOCKET_TICK_MS of the run")
    load.add_argument("--server-core", type=int, metavar="N", help="pin the server to this core")
    load.add_argument("--client-core", type=int, metavar="N", help="pin the clients to this core")
    load.add_argument(
        "--drivers", type=Path, metavar="DIR", help="measure at scale, with the load programs of this folder"
    )
    load.add_argument(
        "--scenario", choices=gateway_driven.SCENARIOS, default="fan-out", help="with --drivers (default %(default)s)"
    )
    add_write(load)
    serve = parser.add_argument_group("serve only")
    serve.add_argument("--serve", action="store_true", help="run the server for another driver; prints its port")
    serve.add_argument("--port", type=int, default=0, help="port of --serve (default: a free one)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `headrace bench gateway`."""
    args = _parser().parse_args(argv)
    if args.serve:
        gateway_server.run(args.port, args.tick_ms)
        return 0
    if args.drivers is not None:
        report = _conditions(args) | {"scenario": args.scenario, "results": gateway_driven.run(args)}
        print_report(msgspec.json.format(msgspec.json.encode(report), indent=1).decode(), report, args.write)
        return 0
    report = run(args)
    print_report(f"{table(report)}\n{msgspec.json.encode(report).decode()}", report, args.write)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
