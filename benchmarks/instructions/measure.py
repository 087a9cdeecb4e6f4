"""Count the instructions that each path of Headrace takes for one unit, and compare them with those recorded before.

`measure.py --python PYTHON [--write] [--guard PERCENT] [PATH ...]` needs valgrind. A path is run twice, with N and with
3 N units, and the difference divided by 2 N: what starting costs is in neither. Instructions do not depend on what else
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
    files = [out, *out.parent.glob(f"{out.name}.*")]
    counts = [re.search(r"^totals: (\d+)", file.read_text(), re.M) for file in files if file.exists()]
    return sum(int(found[1]) for found in counts if found)


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


def alone(python: str, name: str, count: int, folder: Path) -> int:
    """Return the instructions of `count` units of a path that is a process of its own."""
    out = folder / f"{name}-{count}"
    command = valgrind(python, out, str(HERE / "part.py"), name, str(count))
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return total(out)


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
    run = served if name in LOADS else alone
    size = SIZES[name]
    with tempfile.TemporaryDirectory() as folder:
        low, high = (run(python, name, count, Path(folder)) for count in (size, 3 * size))
    return (high - low) // (2 * size)


def main() -> int:
    """Measure, print, and with `--guard` return 1 if a path takes more than was recorded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", metavar="PATH", help=f"of {', '.join(SIZES)} (default: all)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter whose Headrace is measured")
    parser.add_argument("--write", metavar="WHAT", help="add the counts to results.jsonl, with this note")
    parser.add_argument("--guard", type=float, metavar="PERCENT", help="fail above the last counts by this much")
    args = parser.parse_args()
    unknown = [name for name in args.paths if name not in SIZES]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)} (expected some of {', '.join(SIZES)})")
    build = subprocess.run([args.python, "-VV"], capture_output=True, text=True, check=True).stdout.strip()
    results = HERE / "results.jsonl"
    recorded: dict[str, int] = {}
    for line in results.read_text().splitlines() if results.exists() else ():
        known: dict[str, Any] = json.loads(line)
        if known["build"] == build:
            recorded |= known["instructions"]
    counts: dict[str, int] = {}
    over = []
    for name in args.paths or SIZES:
        counts[name] = measure(args.python, name)
        before = recorded.get(name)
        change = "" if before is None else f" ({(counts[name] / before - 1) * 100:+.1f} % of {before:,})"
        print(f"{name}: {counts[name]:,} instructions{change}", flush=True)
        if before is not None and args.guard is not None and counts[name] > before * (1 + args.guard / 100):
            over.append(name)
    if args.write:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        with results.open("a") as lines:
            lines.write(json.dumps({"at": at, "build": build, "what": args.write, "instructions": counts}) + "\n")
    if over:
        print(f"more than {args.guard:g} % above what was recorded for this Python: {', '.join(over)}", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
