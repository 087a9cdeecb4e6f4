"""Count the instructions that each path of Headrace takes for one unit, and compare them with those recorded before.

`measure.py --python PYTHON [--write WHAT] [--guard PERCENT] [PATH ...]` needs valgrind. A path is run with N and 3 N
units, and the difference divided by 2 N: what starting costs is in neither. Instructions do not depend on what else
the machine does, so that a change of 5 % is a change of the code.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import websockets
from part import switch

HERE = Path(__file__).parent
SIZES = {
    "accounts": 150,
    "accounts_rust": 150,
    "trades": 50,
    "trades_rust": 50,
    "whole": 30,
    "fan_out": 40,
    "http": 60,
    "connections": 30,
    "orders": 30,
}
"""Units of the smaller run."""
START_S = 300.0


def total(out: Path) -> int:
    """Return the instructions of all dumps that callgrind wrote under this name."""
    return sum(map(dumped, [out, *out.parent.glob(f"{out.name}.*")]))


def dumped(file: Path) -> int:
    """Return the instructions of one dump; 0 without one."""
    found = re.search(r"^totals: (\d+)", file.read_text(), re.M) if file.exists() else None
    return int(found[1]) if found else 0


def valgrind(python: str, out: Path, *arguments: str) -> list[str]:
    """Return the command that runs Python under callgrind, with counting off at first."""
    return [
        "valgrind",
        "--tool=callgrind",
        "--instr-atstart=no",
        f"--callgrind-out-file={out}",
        python,
        *arguments,
    ]


def environment() -> dict[str, str]:
    """Return variables that make runs alike."""
    return {**os.environ, "PYTHONHASHSEED": "0", "LOG_LEVEL": "WARNING"}


def alone(python: str, name: str, counts: Sequence[int], folder: Path) -> list[int]:
    """Return the instructions of each count of units of a path that is a process of its own."""
    out = folder / name
    command = valgrind(python, out, str(HERE / "part.py"), name, *map(str, counts))
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return [dumped(Path(f"{out}.{nth + 1}")) for nth in range(len(counts))]


def served(python: str, name: str, count: int, folder: Path) -> int:
    """Return the instructions that a whole server takes for `count` units of load from outside."""
    out = folder / f"{name}-{count}"
    port = 20_000 + os.getpid() % 20_000
    settings = {
        "SERVER_PORT": str(port),
        "SERVER_HOST": "127.0.0.1",
        "HTTP_MAX_PER_ADDRESS": "50000",
        "WEBSOCKET_CONNECTS_PER_S": "50000",
        "SOLANA_RPC_WS": "ws://127.0.0.1:9/",
        "SOLANA_RPC_HTTP": "http://127.0.0.1:9/",
        "STREAM_ENABLED": "false",
        "ORDER_EXECUTION_MODE": "mock",
    }
    # A folder of its own: the databases of a server lie where it was started.
    place = Path(tempfile.mkdtemp(dir=folder))
    with (place / "log").open("wb") as log:
        command = valgrind(python, out, "-m", "headrace", "serve")
        server = subprocess.Popen(command, env={**environment(), **settings}, cwd=place, stdout=log, stderr=log)
        try:
            _await_ready(port, server, place)
            load = LOADS[name]
            asyncio.run(load(port, 5))
            switch(server.pid, "on")
            asyncio.run(load(port, count))
            switch(server.pid, "off")
        finally:
            server.terminate()
            server.wait(60)
    return total(out)


def _await_ready(port: int, server: subprocess.Popen[bytes], place: Path) -> None:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        if server.poll() is not None:
            break
        try:
            httpx.get(f"http://127.0.0.1:{port}/health/live", timeout=20)
        except httpx.HTTPError:
            time.sleep(0.5)
        else:
            return
    raise SystemExit(f"the server did not start: {(place / 'log').read_text()[-2000:]}")


async def requests(port: int, count: int) -> None:
    """Ask `count` times for the version, on one connection."""
    # A request whose connection was closed meanwhile is made again: under callgrind a server's seconds pass quickly.
    done = 0
    async with httpx.AsyncClient(timeout=60) as client:
        while done < count:
            try:
                (await client.get(f"http://127.0.0.1:{port}/health/live")).raise_for_status()
            except httpx.RemoteProtocolError:
                continue
            done += 1


async def connections(port: int, count: int) -> None:
    """Connect, subscribe to one topic, and leave, `count` times."""
    for _ in range(count):
        async with websockets.connect(f"ws://127.0.0.1:{port}/ws", open_timeout=60, compression=None) as client:
            await client.send('{"type":"subscribe","id":1,"data":{"topic":"slots"}}')
            while '"subscribed"' not in str(await client.recv()):
                pass


async def orders(port: int, count: int) -> None:
    """Place `count` market orders over HTTP, one after another, and follow each until its end."""
    body = {"tokenIn": "SOL", "tokenOut": "USDC", "uiAmount": "0.001", "slippageBps": 1000}
    ends = {"CONFIRMED", "FAILED", "EXPIRED", "CANCELLED"}
    # No connection is kept between two orders, for the same reason.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=120, base_url=f"http://127.0.0.1:{port}", limits=limits) as client:
        for nth in range(count):
            answer = await client.post(
                "/api/orders/execute", json=body, headers={"idempotency-key": f"count-{time.time_ns()}-{nth}"}
            )
            answer.raise_for_status()
            order_id = answer.json()["orderId"]
            stream = f"ws://127.0.0.1:{port}/api/orders/{order_id}/stream"
            async with websockets.connect(stream, open_timeout=60, compression=None) as client_stream:
                while True:
                    if any(f'"{end}"' in str(text) for text in [await client_stream.recv()] for end in ends):
                        break


LOADS = {"http": requests, "connections": connections, "orders": orders}


def measure(python: str, name: str) -> int:
    """Return the instructions of one unit of a path."""
    size = SIZES[name]
    counts = (size, 3 * size)
    with tempfile.TemporaryDirectory() as folder:
        if name in LOADS:
            low, high = (served(python, name, count, Path(folder)) for count in counts)
        else:
            low, high = alone(python, name, counts, Path(folder))
    return (high - low) // (2 * size)


def recorded(results: Path, build: str) -> dict[str, int]:
    """Return the newest counts of each path that were recorded for a build of Python."""
    counts: dict[str, int] = {}
    for line in results.read_text().splitlines() if results.exists() else ():
        report: dict[str, Any] = json.loads(line)
        if report["build"] == build:
            counts |= report["instructions"]
    return counts


def complaints(counts: dict[str, int], before: dict[str, int], percent: float) -> tuple[list[str], list[str]]:
    """Return what is wrong with the counts, and what should be recorded anew although nothing is wrong."""
    over = [name for name, count in counts.items() if name in before and count > before[name] * (1 + percent / 100)]
    under = [name for name, count in counts.items() if name in before and count < before[name] * (1 - percent / 100)]
    unknown = [name for name in counts if name not in before]
    wrong = [f"more than {percent:g} % above what was recorded for this Python: {', '.join(over)}"] if over else []
    stale = [f"more than {percent:g} % below, so that the guard is loose: {', '.join(under)}"] if under else []
    return wrong, stale + ([f"not recorded for this Python: {', '.join(unknown)}"] if unknown else [])


def main() -> int:
    """Measure, print, and with `--guard` return 1 if a path takes more than was recorded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", metavar="PATH", help=f"of {', '.join(SIZES)} (default: all)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter whose Headrace is measured")
    parser.add_argument("--write", metavar="WHAT", help="add the counts to results.jsonl, with this note")
    parser.add_argument("--results", type=Path, default=HERE / "results.jsonl", help="the counts recorded before")
    parser.add_argument("--guard", type=float, metavar="PERCENT", help="fail above the last counts by this much")
    args = parser.parse_args()
    unknown = [name for name in args.paths if name not in SIZES]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)} (expected some of {', '.join(SIZES)})")
    build = subprocess.run([args.python, "-VV"], capture_output=True, text=True, check=True).stdout.strip()
    before = recorded(args.results, build)
    counts: dict[str, int] = {}
    for name in args.paths or SIZES:
        counts[name] = measure(args.python, name)
        change = f" ({(counts[name] / before[name] - 1) * 100:+.1f} % of {before[name]:,})" if name in before else ""
        print(f"{name}: {counts[name]:,} instructions{change}", flush=True)
    if args.write:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        with args.results.open("a") as lines:
            lines.write(json.dumps({"at": at, "build": build, "what": args.write, "instructions": counts}) + "\n")
    if args.guard is None:
        return 0
    wrong, stale = complaints(counts, before, args.guard)
    for line in wrong + stale:
        print(f"{line}. If it is meant to be so: make instructions RECORD='what was changed'", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
