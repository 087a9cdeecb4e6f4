"""Measures updates per second on one core, from the bytes of a node's frame to the JSON text of Headrace's frame.

Included: parsing the frame, removing duplicates, decoding, the body, market statistics, the append to the memory bus,
the cache that supplies snapshots, and the event frame. Not included: sockets. The frames are from the included demo
recording, in the form of RPC PubSub. Each has its own signature or key, as on the chain, so that none is a duplicate.
KEYS accounts and KEYS mints of pump.fun's trades take turns, each account with its own content, so that no cache of
keys holds all. The rows `whole` are trades as transactions with their instructions, already parsed, of the recorded
mints.
"""

import argparse
import asyncio
import platform
import random
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final, cast

import msgspec
import pybase64

import headrace
from headrace.bench import at_least_one, progress, run_and_report
from headrace.bench.pipeline_peers import Peer, PeerRun, write_inputs
from headrace.bus import BusSettings
from headrace.bus.memory import MemoryBus
from headrace.cache import CacheSettings
from headrace.cache.feed import CacheFeed
from headrace.cache.memory import MemoryCache
from headrace.cores import AUTO, CORES, installed, open_core
from headrace.decoders.events import events_of
from headrace.decoders.registry import Programs
from headrace.ingest.pipeline import BATCH_MAX, Pipeline
from headrace.market import MarketSettings
from headrace.market.stats import Stats
from headrace.model.events import Message
from headrace.model.keys import b58encode
from headrace.model.updates import AccountUpdate, AnyUpdate, TransactionUpdate, weight_of
from headrace.protocol.frames import event_frame
from headrace.runtime import garbage
from headrace.runtime.channel import Channel
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.sources.recording import Recording
from headrace.sources.rpc_pubsub.frames import Stamp, read
from headrace.sources.subscriptions import ChainSubscription

DEMO: Final = Path(headrace.__file__).parent / "data" / "demo.hrec"
PUMP: Final = "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P"
SUBSCRIPTIONS: Final = {1: ChainSubscription("logs", PUMP), 2: ChainSubscription("program", PUMP)}
STAMP: Final = Stamp("rpc-0", "processed")
KEYS: Final = 12_000
"""Accounts that change in turn, and mints that are traded in turn; a slot has 500 updates of accounts."""
HOT: Final = 100
"""Mints with half of the trades, because a few coins have most trades at any time."""
_MINT: Final = slice(8, 40)
"""Bytes of a TradeEvent, with its discriminator, that are the mint."""
_RESERVES: Final = slice(8, 13)
"""The lower bytes of a curve's first reserve."""
_DATA: Final = "Program data: "

READ: Final = ("accounts", "trades")
"""Kinds that are frames of a node, which peers read too."""

GOALS: Final = {"accounts": 100_000, "trades": 40_000, "whole": 28_000}


async def demo_updates() -> list[AnyUpdate]:
    outlet: Channel[AnyUpdate] = Channel(100_000)
    await Recording(DEMO, SystemClock(), speed=None).run(outlet)
    return await outlet.get_batch(100_000)


def account_frames(
    updates: Sequence[AnyUpdate], count: int, chance: random.Random, keys_max: int = KEYS
) -> list[bytes]:
    """Return programNotification frames of pump.fun bonding curves, each with another content."""
    curves = [u for u in updates if isinstance(u, AccountUpdate) and u.owner == PUMP and len(u.data) < 400]
    keys = [b58encode(chance.randbytes(32)) for _ in range(min(count, keys_max))]
    frames = []
    for n in range(count):
        curve = curves[n % len(curves)]
        data = [pybase64.b64encode_as_string(_with(curve.data, _RESERVES, chance.randbytes(5))), "base64"]
        account = {"lamports": curve.lamports, "data": data, "owner": curve.owner, "executable": False, "space": 151}
        frames.append(_frame("programNotification", 2, n // 500, {"pubkey": keys[n % len(keys)], "account": account}))
    return frames


def trades_among(updates: Sequence[AnyUpdate]) -> list[TransactionUpdate]:
    """Return the transactions with complete logs of pump.fun trades, without new coins, which are rare."""
    programs = Programs.load()
    trades = []
    for update in updates:
        if isinstance(update, TransactionUpdate) and update.logs:
            events = events_of(update, programs)
            names = {event.name for event in events if event.program_id == PUMP and not event.truncated}
            if "TradeEvent" in names and "CreateEvent" not in names:
                trades.append(update)
    return trades


def trade_frames(updates: Sequence[AnyUpdate], count: int, chance: random.Random, mints_max: int = KEYS) -> list[bytes]:
    """Return logsNotification frames of trades; those of pump.fun's curves are of `mints_max` mints.

    Every second trade is of one of the HOT mints.
    """
    trades, frames = trades_among(updates), []
    mints = [chance.randbytes(32) for _ in range(min(count, mints_max))]
    table = Programs.load().by_id[PUMP].event_table
    mark = next(mark for mark, (layout, _, _) in table.by_mark.items() if layout.name == "TradeEvent")
    for n in range(count):
        mint = mints[n // 2 % (min(HOT, len(mints)) if n % 2 else len(mints))]
        lines = [_of_mint(line, mark, mint) for line in trades[n % len(trades)].logs or ()]
        value = {"signature": b58encode(chance.randbytes(64)), "err": None, "logs": lines}
        frames.append(_frame("logsNotification", 1, n // 200, value))
    return frames


def _of_mint(line: str, mark: bytes, mint: bytes) -> str:
    """Return a line of a log, with the mint in place of its own if it is a TradeEvent."""
    if not line.startswith(_DATA):
        return line
    data = pybase64.b64decode(line.removeprefix(_DATA))
    return _DATA + pybase64.b64encode_as_string(_with(data, _MINT, mint)) if data.startswith(mark) else line


def _with(data: bytes, place: slice, part: bytes) -> bytes:
    return data[: place.start] + part + data[place.stop :]


def whole_updates(updates: Sequence[AnyUpdate], count: int, chance: random.Random) -> list[AnyUpdate]:
    """Return the trades as complete transactions with their instructions, as a source delivers them."""
    trades = trades_among(updates)
    return [
        msgspec.structs.replace(
            trades[n % len(trades)], signature=b58encode(chance.randbytes(64)), slot=450_000_000 + n // 200
        )
        for n in range(count)
    ]


def _frame(method: str, subscription: int, slot: int, value: dict[str, Any]) -> bytes:
    result = {"context": {"slot": 450_000_000 + slot}, "value": value}
    return msgspec.json.encode(
        {"jsonrpc": "2.0", "method": method, "params": {"result": result, "subscription": subscription}}
    )


async def measure(frames: Sequence[bytes | AnyUpdate], core: str = AUTO) -> dict[str, Any]:
    """Measure one pass over the frames, or over updates already parsed, in batches as large as the pipeline's."""
    clock, programs = SystemClock(), Programs.load()
    reader = open_core(core, programs)
    flow = Pipeline(programs, clock, Metrics(), market=Stats(MarketSettings()), core=reader)
    bus = MemoryBus(BusSettings(), clock, "bench")
    cache = MemoryCache(CacheSettings(), Metrics())
    feed = CacheFeed(bus, cache, await cache.claim(), clock, Metrics())
    feeding = asyncio.create_task(feed.run())
    writer = await bus.claim("ingest")
    sent = [0, 0]

    def frame_all(messages: Sequence[Message]) -> None:
        sent[0] += len(messages)
        sent[1] += sum([len(event_frame(message)) for message in messages])

    bus.subscribe(frame_all, kinds=None)
    wall, cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(frames), BATCH_MAX):
        publications = []
        for frame in frames[start : start + BATCH_MAX]:
            heard = read(frame, SUBSCRIPTIONS, STAMP, 0) if isinstance(frame, bytes) else frame
            publications += flow.apply(heard)  # type: ignore[arg-type]
        await writer.publish(writer.batch(publications))
        await clock.sleep(0)  # lets the cache run, as in a service
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    feeding.cancel()
    assert not flow.measures.bad and not flow.measures.skipped
    return {"per_s": len(frames) / wall, "cpu_us": cpu / len(frames) * 1e6, "messages": sent[0], "bytes": sent[1]}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure all kinds `args.runs` times in turn. Return the report."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    updates, chance = asyncio.run(demo_updates()), random.Random(1)  # noqa: S311 - not a secret
    frames: dict[str, Sequence[bytes | AnyUpdate]] = {
        "accounts": account_frames(updates, args.count, chance),
        "trades": trade_frames(updates, args.count, chance),
        "whole": whole_updates(updates, args.count, chance),
    }
    garbage.settle()  # the service does the same
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in frames}
    beside: dict[str, dict[str, list[PeerRun]]] = {kind: {peer.name: [] for peer in args.peer} for kind in READ}
    with TemporaryDirectory() as folder:
        if args.peer:
            write_inputs(Path(folder), {kind: cast(Sequence[bytes], frames[kind]) for kind in READ})
        for nth in range(args.runs):
            progress(f"run {nth + 1} of {args.runs}")
            for kind, batch in frames.items():
                runs[kind].append(asyncio.run(measure(batch, args.core)))
                for peer in args.peer if kind in READ else ():
                    beside[kind][peer.name].append(peer.measure(Path(folder), kind))
    core = installed()[-1] if args.core == AUTO else args.core
    machine = f"Python {platform.python_version()}, {platform.machine()}, core {core}"
    report: dict[str, Any] = {"bench": "pipeline", "at": at, "machine": machine, "count": args.count, "runs": args.runs}
    for kind, results in runs.items():
        report[kind] = {
            "per_s": round(median(result["per_s"] for result in results)),
            "best_per_s": round(max(result["per_s"] for result in results)),
            "goal_per_s": GOALS[kind],
            "cpu_us": round(median(result["cpu_us"] for result in results), 1),
            "frame_bytes": sum(_size(frame) for frame in frames[kind]) // args.count,
            "messages_per_update": round(results[0]["messages"] / args.count, 2),
            "json_bytes_per_update": results[0]["bytes"] // args.count,
        }
        if args.peer and kind in READ:
            report[kind]["peers"] = {
                name: {
                    "per_s": round(median(each.per_s for each in measured)),
                    "cpu_us": round(median(each.cpu_us for each in measured), 1),
                }
                for name, measured in beside[kind].items()
            }
    return report


def _size(frame: bytes | AnyUpdate) -> int:
    return len(frame) if isinstance(frame, bytes) else weight_of(frame)


def table(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = [
        f"Pipeline, {report['at'][:10]}: {report['machine']}; medians of {report['runs']} runs of {report['count']}",
        "",
        "| | updates/s | best run | aim | µs CPU each | bytes in | messages out | bytes out |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind in GOALS:
        row = report[kind]
        lines.append(
            f"| {kind} | {row['per_s']:,} | {row['best_per_s']:,} | {row['goal_per_s']:,} | {row['cpu_us']} "
            f"| {row['frame_bytes']:,} | {row['messages_per_update']} | {row['json_bytes_per_update']:,} |"
        )
        lines += [
            f"| {kind}, {name} | {peer['per_s']:,} | | | {peer['cpu_us']} | | | |"
            for name, peer in row.get("peers", {}).items()
        ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `headrace bench pipeline`: print a table. With --write, append the report to the folder's results.jsonl."""
    parser = argparse.ArgumentParser(prog="headrace bench pipeline", description=__doc__)
    parser.add_argument("--count", type=at_least_one, default=30_000, help="updates in a run (default %(default)s)")
    parser.add_argument("--runs", type=at_least_one, default=7, help="runs of each kind (default %(default)s)")
    parser.add_argument(
        "--core", choices=(AUTO, *CORES), default=AUTO, help="the core that decodes (default %(default)s)"
    )
    parser.add_argument(
        "--peer",
        type=Peer.parse,
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="measure this command in turn: {frames} and {idl} become files, and it prints JSON with per_s and cpu_us",
    )
    return run_and_report(parser, argv, run, table)


if __name__ == "__main__":
    sys.exit(main())
