"""Measures orders per second and the time of each, compared with an engine built with Fastify, BullMQ and PostgreSQL.

All mock latencies are zero, all stores are durable, and all contenders run in turn on this machine. The peer needs `npm
install` in its folder and a `redis-server`. The load program in C needs `cc`. Missing programs are named and left out.
"""

import argparse
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import msgspec

import headrace
from headrace.bench import progress, run_and_report
from headrace.bench.cpu import spent_s, used_s
from headrace.testing import postgres

START_S: Final = 15.0
CONNECTIONS: Final = 32
IN_FLIGHT: Final = 256
CONCURRENCY: Final = 256
PEER: Final = "node"
HEADRACE: Final = {
    "ORDERS_ENABLED": "true",
    "TRANSACTION_LISTENER_ENABLED": "false",
    "MOCK_QUOTE_MS": "0",
    "MOCK_EXECUTION_MS": "0",
    "MOCK_DRIFT_BPS": "0",
    "QUEUE_RATE_LIMIT_PER_MINUTE": "0",
    "QUEUE_MAX_CONCURRENCY": str(CONCURRENCY),
    "WEBSOCKET_COMMANDS_PER_S": "1000000",
    "HTTP_REQUESTS_PER_S": "1000000",
    "LOG_LEVEL": "error",
}
NODE: Final = {
    "CONCURRENCY": str(CONCURRENCY),
    "RATE_LIMIT": "0",
    "QUOTE_MS": "0",
    "EXEC_MIN_MS": "0",
    "EXEC_MAX_MS": "0",
    "WS_MODE": "snapshot",
}


class Served(NamedTuple):
    """The processes of an engine, and its port."""

    port: int
    pids: tuple[int, ...]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure every contender in turn, `args.runs` times. Return the median of each number."""
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with tempfile.TemporaryDirectory(prefix="hr-orders-") as name, ExitStack() as stack:
        folder = Path(name)
        driver = _compiled(args.driver, folder)
        url = stack.enter_context(postgres.server(durable=True))
        redis_port = _redis(args, stack)
        contenders = ["headrace-postgres", "headrace-postgres+worker", "headrace-sqlite"]
        if redis_port and args.peer is not None and (args.peer / "node_modules").is_dir():
            contenders.insert(0, PEER)
        else:
            progress("without the Node peer: it needs --peer with its packages installed, and a redis-server")
        for number in range(args.runs):
            for contender in contenders:
                place = new_database(url, f"run{number}_{contenders.index(contender)}")
                commands, env = _server(contender, args, folder, place, redis_port)
                with serving(commands, env, folder / "server.log") as served:
                    for kind, measured in _measure(contender, driver, served, args):
                        results.setdefault(contender, {}).setdefault(kind, []).append(measured)
                        progress(
                            f"{number + 1}/{args.runs} {contender} {kind}: {msgspec.json.encode(measured).decode()}"
                        )
    return {
        "bench": "orders",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": headrace.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 1),
        "orders": args.orders,
        "rate": args.rate,
        "runs": args.runs,
        "results": {who: {kind: _medians(rows) for kind, rows in kinds.items()} for who, kinds in results.items()},
    }


def _measure(
    contender: str, driver: Path | None, served: Served, args: argparse.Namespace
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure three loads: `http` as fast as possible, `steady` at a fixed rate, and `ws` over /ws."""
    base = [driver, "-u", f"http://127.0.0.1:{served.port}", "-c", CONNECTIONS]
    if driver is not None:
        yield "http", _costed(served, args.orders, lambda: _driven([*base, "-n", args.orders, "-i", IN_FLIGHT]))
        steady = args.rate * args.secs
        yield "steady", _costed(served, steady, lambda: _driven([*base, "-n", steady, "-r", args.rate]))
    if contender != PEER:
        yield "ws", _costed(served, args.orders, lambda: _over_ws(served.port, args.orders))


def _over_ws(port: int, orders: int) -> dict[str, Any]:
    words = [sys.executable, "-m", "headrace.bench.orders_clients", str(port), str(orders), "4", str(IN_FLIGHT)]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)  # noqa: S603
    return _chosen(msgspec.json.decode(done.stdout), "missing_or_out_of_order", "never_over")


def _costed(served: Served, orders: int, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Add the CPU time per order: of the engine, and of all processes except the load program."""
    before = used_s(os.getpid())
    measured = measure()
    after = used_s(os.getpid())
    engine_ms, all_ms = (spent_s(before, after, pids) / orders * 1000 for pids in (served.pids, ()))
    return {**measured, "engine_cpu_ms": round(engine_ms, 3), "all_cpu_ms": round(all_ms, 3)}


def _driven(command: Sequence[object]) -> dict[str, Any]:
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=False)  # noqa: S603
    report = msgspec.json.decode(done.stdout)
    flat = {
        f"{what}_{quantile}_ms": report[f"{what}_ms"][quantile]
        for what in ("post", "confirm")
        for quantile in ("p50", "p99")
    }
    flat["answer_p50_ms"], flat["answer_p99_ms"] = flat.pop("post_p50_ms"), flat.pop("post_p99_ms")
    wrong = report["missing"]["updates"] + report["out_of_order"] + report["duplicates"]
    return _chosen(
        {**flat, "orders_per_s": report["orders_per_s"], "wrong": wrong, **report}, "wrong", "never_terminal"
    )


def _chosen(report: dict[str, Any], updates: str, unfinished: str) -> dict[str, Any]:
    names = ("orders_per_s", "answer_p50_ms", "answer_p99_ms", "confirm_p50_ms", "confirm_p99_ms")
    return {
        **{name: report[name] for name in names},
        "updates_wrong": report[updates],
        "unfinished": report[unfinished],
    }


def _medians(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {name: round(median(row[name] for row in rows), 2) for name in rows[0]}


def _compiled(source: Path | None, folder: Path) -> Path | None:
    compiler = shutil.which("cc")
    if compiler is None or source is None:
        progress("without HTTP: it needs --driver, and cc")
        return None
    subprocess.run([compiler, "-O2", "-o", folder / "driver", source], check=True)  # noqa: S603
    return folder / "driver"


def _redis(args: argparse.Namespace, stack: ExitStack) -> int | None:
    """Start a Redis server without files, with which the peer's queue is fastest. Return its port."""
    program = shutil.which(args.redis)
    if program is None:
        return None
    port = _free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
    stack.callback(_end, process)
    return port


def new_database(url: str, name: str) -> str:
    """Create a database. Return its URL."""
    import asyncio

    import asyncpg

    async def create() -> None:
        db = await asyncpg.connect(url)
        await db.execute(f"create database {name}")
        await db.close()

    asyncio.run(create())
    return url.replace("/postgres?", f"/{name}?")


def _server(
    contender: str, args: argparse.Namespace, folder: Path, database_url: str, redis_port: int | None
) -> tuple[list[list[str]], dict[str, str]]:
    """Return the commands to start, the server first, and the environment of all."""
    if contender == PEER:
        env = {**NODE, "DATABASE_URL": database_url, "REDIS_PORT": str(redis_port), "QUEUE": f"q{time.monotonic_ns()}"}
        return [["node", str(args.peer / "server.mjs")]], env
    unique = f"{time.monotonic_ns()}.db"
    place = database_url if "postgres" in contender else f"sqlite:///{folder}/orders-{unique}"
    env = {**HEADRACE, "DATABASE_URL": place, "MOCK_CHAIN_FILE": str(folder / f"chain-{unique}")}
    words = [["serve"]]
    if contender.endswith("+worker"):
        env["ORDERS_WORK_HERE"] = "false"
        words.append(["worker"])
    return [[sys.executable, "-m", "headrace", *more] for more in words], env


@contextmanager
def serving(commands: list[list[str]], env: dict[str, str], log: Path) -> Iterator[Served]:
    """Start the processes one after the other. End all of them at the end of the block."""
    port = _free_port()
    given = {**os.environ, **env, "PORT": str(port)}
    with ExitStack() as stack, log.open("wb") as output:
        pids = []
        for command in commands:
            process = subprocess.Popen(command, env=given, stdout=output, stderr=output)  # noqa: S603
            stack.callback(_end, process)
            pids.append(process.pid)
            end_s = time.monotonic() + START_S
            while not _is_taken(port):
                if process.poll() is not None or time.monotonic() > end_s:
                    raise SystemExit(f"{command} does not serve: {log.read_text()[-1000:]}")
                time.sleep(0.1)
        yield Served(port, tuple(pids))


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    """Return a free port below the range of clients' ports, so that no client uses it."""
    for port in range(20_000 + os.getpid() % 5000, 32_000):
        if not _is_taken(port):
            return port
    raise SystemExit("no free port")


def table(report: dict[str, Any]) -> str:
    """Return the report as a table."""
    lines = [
        f"{report['orders']} orders, {report['rate']} orders a second where steady, median of {report['runs']} runs"
    ]
    lines.append(
        "                                   orders/s  answer p50  p99 ms  confirm p50     p99 ms  wrong  unfinished"
        "  cpu ms of the engine   of all"
    )
    for who, kinds in report["results"].items():
        for kind, row in kinds.items():
            lines.append(
                f"{who:26}{kind:7}{row['orders_per_s']:10,.0f}{row['answer_p50_ms']:12.1f}{row['answer_p99_ms']:8.1f}"
                f"{row['confirm_p50_ms']:13.1f}{row['confirm_p99_ms']:11.1f}{row['updates_wrong']:7.0f}{row['unfinished']:12.0f}"
                f"{row['engine_cpu_ms']:22.2f}{row['all_cpu_ms']:9.2f}"
            )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    it = argparse.ArgumentParser(
        prog="headrace bench orders", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("--orders", type=int, default=4000, help="of each run (default %(default)s)")
    it.add_argument("--rate", type=int, default=300, help="orders a second where steady (default %(default)s)")
    it.add_argument("--secs", type=int, default=10, help="how long it is steady (default %(default)s)")
    it.add_argument("--runs", type=int, default=3, help="runs of each contender, in turn (default %(default)s)")
    it.add_argument("--driver", type=Path, metavar="FILE", help="C source of the load over HTTP (default: without)")
    it.add_argument("--peer", type=Path, metavar="FOLDER", help="the Node engine: server.mjs (default: without)")
    it.add_argument("--redis", default="redis-server", help="the program (default %(default)s)")
    return it


def main(argv: Sequence[str]) -> int:
    """Run `headrace bench orders`."""
    return run_and_report(_parser(), argv, run, table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
