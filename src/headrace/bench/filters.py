"""Measures the cost of filters: CPU per message published to one topic, and per message that a client gets.

Includes the append to the memory bus, filters, framing, and one write per client and tick, but no sockets. Unless
stated otherwise, each client has a different filter. The messages are trades of a thousand mints, in batches as from a
stream.
"""

import argparse
import asyncio
import gc
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any, Final, TypeAlias

import msgspec

import headrace
from headrace.bench import at_least_one, progress, run_and_report
from headrace.bus import BusSettings
from headrace.bus.lanes import lane_of
from headrace.bus.memory import MemoryBus
from headrace.fanout.client import Client
from headrace.fanout.hub import Hub
from headrace.gateway.settings import GatewaySettings
from headrace.model.events import Publication
from headrace.protocol.codes import CloseCode
from headrace.protocol.filters import Filter, parse_filter
from headrace.protocol.predicates import View, compiled
from headrace.protocol.session import Subscribe
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor

TOPIC: Final = "trades:pump"
MINTS: Final = 1000
BATCH: Final = 10

Tree: TypeAlias = dict[str, Any]


def mint_is(n: int) -> Tree:
    return {"key": "mint", "cmp": "eq", "val": f"mint{n % MINTS}"}


def sol_from(n: int) -> Tree:
    return {"key": "sol", "cmp": "gte", "val": f"{n / 100:.2f}"}


def both(n: int) -> Tree:
    return {"op": "and", "nodes": [mint_is(n), sol_from(n % 10)]}


CASES: Final[dict[str, Callable[[int], Tree | None]]] = {
    "no filter": lambda n: None,
    "all the same: mint is A": lambda n: mint_is(0),
    "mint is X": mint_is,
    "mint is X and sol from Y": both,
    "sol from Y": sol_from,
}
"""Filter of the n-th client.

The last case passes about half of the messages. The other filters pass one message in a thousand.
"""


class _Sink:
    """A socket that accepts everything and counts the bytes."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: bytes) -> None:
        self.bytes += len(data)

    def get_write_buffer_size(self) -> int:
        return 0


class _Reader(Client):
    def cut_off(self, code: CloseCode) -> None:
        raise AssertionError(code)

    def not_subscribed(self, topic: str) -> None:
        raise AssertionError(topic)


def trades(count: int) -> list[Publication]:
    """Return trades as the pipeline publishes them. The amounts do not depend on the mints."""
    filling = b",".join(b'"field_%d":"%d"' % (n, 10**15 + n) for n in range(25))
    body = (
        b'"event_id":"447200011:5sig:%d.1:0","data":{"type":"Trade","program":"pump","event":"TradeEvent",'
        b'"mint":"mint%d","side":"buy","base_amount":"70135987937292","quote_amount":"%d","sol":"%d.%02d",'
        b'"fields":{%b}},"chain":{"slot":"447200011","signature":"5sig","commitment":"processed"}'
    )
    sols = [n * 7919 % 1000 for n in range(count)]
    return [
        Publication.on(TOPIC, "event", body % (n, n * 31 % MINTS, sol * 10**7, sol // 100, sol % 100, filling))
        for n, sol in enumerate(sols)
    ]


def _filter(tree: Tree | None) -> Filter | None:
    return None if tree is None else parse_filter(msgspec.json.encode(tree))


async def measure(
    case: Callable[[int], Tree | None], clients: int, messages: Sequence[Publication]
) -> dict[str, float]:
    """Return µs of CPU per message, and the number of clients that got each message."""
    clock, metrics = SystemClock(), Metrics()
    async with Supervisor(clock) as supervisor:
        bus = MemoryBus(BusSettings(), clock, "bench")
        hub = Hub(bus, clock, GatewaySettings, metrics, supervisor)
        writer = await bus.claim(lane_of(TOPIC))
        await writer.publish(writer.batch(messages[:1]))
        for n in range(clients):
            reader = _Reader(_Sink(), batch=False)
            hub.add(reader)
            hub.subscribe(reader, Subscribe(TOPIC, None, None, _filter(case(n))))
            await clock.sleep(0.01 if n == 0 else 0)
        told = metrics.counter("gateway_frames", "Event frames sent to clients")
        told_before, cpu_s = told._value.get(), time.process_time()
        for start in range(0, len(messages), BATCH):
            await writer.publish(writer.batch(messages[start : start + BATCH]))
            await hub.flush()
        cpu_s, frames = time.process_time() - cpu_s, told._value.get() - told_before
        supervisor.cancel()
    each_us = cpu_s / len(messages) * 1e6
    return {"us": each_us, "told": frames / len(messages), "us_told": cpu_s / frames * 1e6 if frames else 0.0}


def in_turn(clients: int, messages: Sequence[Publication]) -> dict[str, float]:
    """Measure the filters of `mint is X` evaluated one after the other, without framing and sending, for comparison."""
    asked = [compiled(parsed.node) for n in range(clients) if (parsed := _filter(mint_is(n))) is not None]
    cpu_s, told = time.process_time(), 0
    for message in messages:
        view = View(message.body)
        told += sum([passes(view) for passes in asked])
    cpu_s = time.process_time() - cpu_s
    return {"us": cpu_s / len(messages) * 1e6, "told": told / len(messages), "us_told": cpu_s / max(told, 1) * 1e6}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure all cases in turn, `args.runs` times. Return the median of each number."""
    messages = trades(args.count)
    runs: dict[str, list[dict[str, float]]] = {}
    for nth in range(args.runs):
        progress(f"run {nth + 1} of {args.runs}")
        for name, case in CASES.items():
            gc.collect()
            runs.setdefault(name, []).append(asyncio.run(measure(case, args.filters, messages)))
        runs.setdefault("mint is X, each asked", []).append(in_turn(args.filters, messages))
    return {
        "bench": "filters",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": headrace.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 1),
        "filters": args.filters,
        "count": args.count,
        "runs": args.runs,
        "message_bytes": len(messages[0].body),
        "results": {
            name: {key: round(median(one[key] for one in results), 3) for key in ("us", "told", "us_told")}
            for name, results in runs.items()
        },
    }


def table(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = [
        f"{report['filters']} clients on one topic; CPU, median of {report['runs']} runs of {report['count']} messages",
        "",
        "| filters | µs a message | clients told | µs a message told |",
        "|---|---:|---:|---:|",
    ]
    for name, row in report["results"].items():
        lines.append(f"| {name} | {row['us']:.1f} | {row['told']:.2f} | {row['us_told']:.2f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `headrace bench filters`."""
    parser = argparse.ArgumentParser(prog="headrace bench filters", description=__doc__)
    parser.add_argument("--filters", type=at_least_one, default=1000, help="clients (default %(default)s)")
    parser.add_argument("--count", type=at_least_one, default=1000, help="messages of a run (default %(default)s)")
    parser.add_argument("--runs", type=at_least_one, default=5, help="runs of each case (default %(default)s)")
    return run_and_report(parser, argv, run, table)


if __name__ == "__main__":
    sys.exit(main())
