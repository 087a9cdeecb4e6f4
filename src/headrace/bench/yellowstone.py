"""Updates per second from a Yellowstone node's socket to parsed updates: both receivers, grpc.aio, the Node client.

A separate process sends prepared updates as fast as they are read, each in its own DATA frames. `own` and `grpcio` are
Headrace's receivers, measured up to typed updates. `grpc.aio` only reads and parses messages with protobuf. `node` is
the official client, which does the same. All run in turn.
"""

import argparse
import asyncio
import json
import multiprocessing
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import grpc
import uvloop

from headrace.bench import at_least_one, progress, run_and_report
from headrace.bench.pipeline import PUMP, demo_updates, trades_among
from headrace.bench.yellowstone_node import serve
from headrace.model.updates import AccountUpdate, AnyUpdate, TransactionUpdate
from headrace.runtime import garbage
from headrace.runtime.clock import SystemClock
from headrace.sources.subscriptions import SLOTS, ChainSubscription
from headrace.sources.yellowstone.filters import Filters
from headrace.sources.yellowstone.messages import geyser
from headrace.sources.yellowstone.requests import METHOD, Requests
from headrace.sources.yellowstone.settings import YellowstoneSettings
from headrace.sources.yellowstone.source import RECEIVERS
from headrace.sources.yellowstone.updates import Reader
from headrace.testing.yellowstone_messages import account_message, transaction_message

PEER: Final = Path(__file__).parents[3] / "benchmarks" / "yellowstone" / "peer.mjs"
WANTED: Final = (SLOTS, ChainSubscription("program", PUMP), ChainSubscription("transactions", PUMP))
NAMES: Final = {"accounts": "program.1", "transactions": "transactions.2"}
OURS: Final = ("own", "grpcio")


def prepared(updates: Sequence[AnyUpdate], kind: str) -> list[bytes]:
    """Return updates of the demo recording as a node sends them: bonding curves, or trades on pump.fun."""
    if kind == "accounts":
        messages = [
            account_message(each)
            for each in updates
            if isinstance(each, AccountUpdate) and each.owner == PUMP and len(each.data) < 400
        ]
    else:
        messages = [transaction_message(each) for each in trades_among(updates)]
    for message in messages:
        message.filters.append(NAMES[kind])
        message.created_at.GetCurrentTime()
    return [message.SerializeToString() for message in messages]


@contextmanager
def sending(messages: Sequence[bytes], count: int) -> Iterator[int]:
    """Run the node in a process of its own; yield its port."""
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    process = context.Process(target=serve, args=(messages, count, ports), daemon=True)
    process.start()
    try:
        yield ports.get(timeout=30)
    finally:
        process.terminate()
        process.join()


async def ours(receiver: str, port: int, count: int) -> dict[str, float]:
    """Read `count` updates with one of Headrace's receivers, up to typed updates."""
    settings, clock = YellowstoneSettings(), SystemClock()
    requests = Requests("processed")
    reader = Reader(requests, "bench", "processed")
    wire = await RECEIVERS[receiver](f"http://127.0.0.1:{port}", settings, clock)  # type: ignore[index]
    running = asyncio.create_task(wire.run())
    await wire.send(requests.make(WANTED, Filters({})))
    seen, began, cpu = 0, time.perf_counter(), time.process_time()
    while seen < count:
        for message in await wire.receive():
            for heard in reader.read(message, 1):
                seen += isinstance(heard, AccountUpdate | TransactionUpdate)
    found = _figures(count, began, cpu)
    running.cancel()
    await wire.close()
    return found


async def bare(port: int, count: int) -> dict[str, float]:
    """Read `count` updates with grpc.aio. They are parsed with protobuf, but not used."""
    options = [("grpc.max_receive_message_length", 64 * 1024 * 1024)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call = channel.stream_stream(METHOD, response_deserializer=geyser.SubscribeUpdate.FromString)()
        await call.write(Requests("processed").make(WANTED, Filters({})))
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            await call.read()
        found = _figures(count, began, cpu)
        call.cancel()
    return found


def node_client(port: int, count: int) -> dict[str, float]:
    """Read `count` updates with the official client for Node."""
    command = [shutil.which("node") or "node", str(PEER), str(port), str(count)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=600)  # noqa: S603 - our own script
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _figures(count: int, began: float, cpu: float) -> dict[str, float]:
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return {"per_s": count / wall_s, "cpu_us": cpu_s / count * 1e6}


def peers() -> list[str]:
    """Return the names of the receivers that this machine can run."""
    has_node = shutil.which("node") is not None and (PEER.parent / "node_modules").is_dir()
    if not has_node:
        progress("node is left out: npm ci --prefix benchmarks/yellowstone")
    return [*OURS, "grpc.aio", *(["node"] if has_node else [])]


def measure(peer: str, port: int, count: int) -> dict[str, float]:
    """Measure one pass of one contender."""
    if peer == "node":
        return node_client(port, count)
    return uvloop.run(bare(port, count) if peer == "grpc.aio" else ours(peer, port, count))


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure all contenders `args.runs` times in turn. Return the report."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    updates, chosen = asyncio.run(demo_updates()), peers()
    garbage.settle()  # the service does the same
    machine = f"Python {platform.python_version()}, {platform.machine()}"
    report: dict[str, Any] = {"bench": "yellowstone", "at": at, "machine": machine, "runs": args.runs}
    for kind, count in (("accounts", args.count), ("transactions", max(1, args.count // 10))):
        messages = prepared(updates, kind)
        runs: dict[str, list[dict[str, float]]] = {peer: [] for peer in chosen}
        with sending(messages, count) as port:
            for nth in range(args.runs):
                progress(f"{kind}: run {nth + 1} of {args.runs}")
                for peer in chosen:
                    runs[peer].append(measure(peer, port, count))
        report[kind] = {
            "count": count,
            "message_bytes": sum(map(len, messages)) // len(messages),
            **{
                peer: {
                    "per_s": round(median(each["per_s"] for each in found)),
                    "best_per_s": round(max(each["per_s"] for each in found)),
                    "cpu_us": round(min(each["cpu_us"] for each in found), 2),
                }
                for peer, found in runs.items()
            },
        }
    return report


def table(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = [
        f"Yellowstone, {report['at'][:10]}: {report['machine']}; medians of {report['runs']} runs",
        "",
        "| | | updates/s | best run | µs CPU each, least |",
        "|---|---|---:|---:|---:|",
    ]
    for kind in NAMES:
        lines += [
            f"| {kind}, {report[kind]['message_bytes']} bytes | {peer} | {row['per_s']:,} | {row['best_per_s']:,} "
            f"| {row['cpu_us']} |"
            for peer, row in report[kind].items()
            if isinstance(row, dict)
        ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="headrace bench yellowstone", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=at_least_one, default=200_000, help="accounts a run; a tenth of trades")
    parser.add_argument("--runs", type=at_least_one, default=3)
    return run_and_report(parser, argv, run, table)
