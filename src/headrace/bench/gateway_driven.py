"""Measures the gateway with many clients, compared with the fastest possible server, with load programs from a folder.

The folder contains `client.c` (a load client), `peers/raw/rawserver.c` (the fastest possible server: an epoll loop that
joins the due messages and sends them), `peers/node/fastify_srv.mjs` and `uws_srv.mjs` (uWebSockets.js) with the
packages of both, and `peers/rust/peer-fan` (tokio). A program that can't be built or run is left out.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any, Final, TypeAlias

Run: TypeAlias = dict[str, Any]

LOWEST_PORT: Final = 20_000
"""The ports of servers begin after this one.

They are below the range from which the system gives clients their ports.
"""

RATES: Final = (100, 300, 1000)
"""Messages per second in the scenario `rates`."""

WHOLE: Final = 0.999
"""Minimum share of the frames that must arrive in time for a rate to count as reached."""


class Folder:
    """The load programs of a folder, compiled into a temporary folder."""

    def __init__(self, source: Path, built: Path) -> None:
        self.client = _compiled(source / "client.c", built / "client", "-lz")
        floor, fastify = source / "peers/raw/rawserver.c", source / "peers/node/fastify_srv.mjs"
        python = [sys.executable, "-m", "headrace.bench.gateway", "--serve", "--port"]
        self.servers: dict[str, Callable[[int], list[str]]] = {"headrace": lambda port: [*python, str(port)]}
        if floor.exists():
            raw = _compiled(floor, built / "floor")
            self.servers["C, joined"] = lambda port: [raw, "-p", str(port), "-m", "gap"]
            self.servers["C, a send each"] = lambda port: [raw, "-p", str(port), "-m", "naive"]
        node, modules = shutil.which("node"), fastify.parent / "node_modules"
        if node and (modules / "fastify").is_dir():
            self.servers["Fastify"] = lambda port: [node, str(fastify), str(port)]
        uws = fastify.parent / "uws_srv.mjs"
        if node and (modules / "@btc-vision/uwebsockets.js").is_dir() and uws.exists():
            self.servers["uWebSockets.js"] = lambda port: [node, str(uws), str(port), "tick"]
        rust = source / "peers/rust/peer-fan"
        if rust.exists():
            self.servers["tokio, joined"] = lambda port: [str(rust), str(port), "feed"]


def _compiled(source: Path, target: Path, *libraries: str) -> str:
    subprocess.run(["cc", "-O2", "-o", target, source, *libraries], check=True, stderr=subprocess.DEVNULL)  # noqa: S603, S607
    return str(target)


@contextmanager
def serving(command: Callable[[int], list[str]], ports: Iterator[int]) -> Iterator[tuple[int, int]]:
    """Run a server on core 0. Yield its port and process id."""
    port = next(ports)
    with subprocess.Popen(["taskset", "-c", "0", *command(port)], stdout=subprocess.DEVNULL) as server:  # noqa: S603, S607
        try:
            _wait_for(port)
            yield port, server.pid
        finally:
            server.terminate()


def _wait_for(port: int) -> None:
    end_s = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.05)
        else:
            return


def drive(client: str, port: int, pid: int, **options: object) -> Run:
    """Run the load client once on core 1. `options` are its command-line options."""
    words = [word for letter, value in options.items() for word in (f"-{letter}", str(value))]
    command = ["taskset", "-c", "1", client, "-p", str(port), "-S", str(pid), *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120)  # noqa: S603
    return dict(json.loads(done.stdout))


def fan_out(folder: Folder, ports: Iterator[int], args: argparse.Namespace) -> dict[str, Run]:
    """Measure latency and CPU at one rate, when every client gets every message."""

    def once(command: Callable[[int], list[str]]) -> Run:
        with serving(command, ports) as (port, pid):
            run = drive(folder.client, port, pid, n=args.clients, r=int(args.rate), d=args.secs, D=5)
        return {key: run[key] for key in ("delivered", "total_frac", "gaps", "p50", "p99", "max", "srv_cpu")}

    return _in_turn(folder, args.runs, once)


def rates(folder: Folder, ports: Iterator[int], args: argparse.Namespace) -> dict[str, Run]:
    """Measure the cost of a connection, and latency and CPU per frame at each of RATES."""

    def once(command: Callable[[int], list[str]]) -> Run:
        measured: Run = {}
        for rate in RATES:
            with serving(command, ports) as (port, pid):
                run = drive(folder.client, port, pid, n=args.clients, r=rate, d=args.secs, D=2, T=0.5)
            measured["accept_us"] = round(run["conn_srv_cpu"] / args.clients * 1e6, 1)
            measured["idle_kib"] = round((run["rss1"] - run["rss0"]) / args.clients, 2)
            measured[f"p99_{rate}"] = run["p99"]
            measured[f"frac_{rate}"] = run["total_frac"]
            measured[f"frame_us_{rate}"] = round(run["srv_cpu"] / max(run["delivered"], 1) * 1e6, 3)
        return measured

    return _in_turn(folder, args.runs, once)


def most(folder: Folder, ports: Iterator[int], args: argparse.Namespace) -> dict[str, Run]:
    """Measure the maximum number of frames per second that a server delivers in time, in total and per core used."""

    def once(command: Callable[[int], list[str]]) -> Run:
        best: Run = {"rate": 0, "delivered": 0, "per_core": 0}
        rate = 25
        while rate <= args.rate:
            with serving(command, ports) as (port, pid):
                run = drive(folder.client, port, pid, n=args.clients, r=rate, d=args.secs, D=0.2)
            if run["total_frac"] < WHOLE:
                break
            per_core = run["delivered"] / max(run["srv_cpu"], 0.01)
            best = {"rate": rate, "delivered": run["delivered"], "per_core": round(per_core), "p99": run["p99"]}
            rate *= 2
        return best

    return _in_turn(folder, args.runs, once)


def idle(folder: Folder, ports: Iterator[int], args: argparse.Namespace) -> dict[str, Run]:
    """Measure many idle clients: the cost of each, the time until a message reaches all, and HTTP during that time."""

    def once(command: Callable[[int], list[str]]) -> Run:
        with serving(command, ports) as (port, pid), _asking(port) as waits_ms:
            run = drive(folder.client, port, pid, n=args.clients, r=1, d=args.secs, D=2, T=1)
        kib_each = (run["rss1"] - run["rss0"]) / args.clients
        told = {"kib_each": round(kib_each, 2), "total_frac": run["total_frac"], "p50": run["p50"], "max": run["max"]}
        return told | ({"http_p99_ms": round(_at(waits_ms, 0.99), 1)} if len(waits_ms) > 1 else {})

    return _in_turn(folder, args.runs, once)


def stuck(folder: Folder, ports: Iterator[int], args: argparse.Namespace) -> dict[str, Run]:
    """Measure the effect on the other clients if a fifth of the clients never read."""
    held_up = args.clients // 5

    def once(command: Callable[[int], list[str]]) -> Run:
        told: Run = {}
        for name, slow in (
            ("healthy", 0),
            ("stuck", held_up + 1),
        ):  # the first connection of the load client always reads
            with serving(command, ports) as (port, pid):
                run = drive(folder.client, port, pid, n=args.clients, r=int(args.rate), d=args.secs, D=2, s=slow)
            told |= {f"{name}_p99": run["p99"], f"{name}_frac": run["total_frac"], f"{name}_rss_kb": run["rss_end"]}
        return told

    return _in_turn(folder, args.runs, once)


SCENARIOS: Final = {"fan-out": fan_out, "rates": rates, "most": most, "idle": idle, "stuck": stuck}


def run(args: argparse.Namespace) -> dict[str, Run]:
    """Run one scenario: all contenders in turn, `args.runs` times. Return the median of each number."""
    with tempfile.TemporaryDirectory() as built:
        return SCENARIOS[args.scenario](Folder(args.drivers, Path(built)), _ports(), args)


def _in_turn(folder: Folder, runs: int, once: Callable[[Callable[[int], list[str]]], Run]) -> dict[str, Run]:
    kept: dict[str, list[Run]] = {name: [] for name in folder.servers}
    for _ in range(runs):
        for name, command in folder.servers.items():
            kept[name].append(once(command))
    return {
        name: {key: round(median(one[key] for one in told if key in one), 4) for key in told[0]}
        for name, told in kept.items()
    }


def _ports() -> Iterator[int]:
    port = LOWEST_PORT
    while True:
        port += 1
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                yield port


@contextmanager
def _asking(port: int) -> Iterator[list[float]]:
    """Request `/health` repeatedly in a thread. The milliseconds until each answer are added to the list."""
    waits_ms: list[float] = []
    over = Event()

    def ask() -> None:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            while not over.wait(0.005):
                began_s = time.monotonic()
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: bench\r\n\r\n")
                answer = b""
                while not answer.endswith(b"}"):  # header block and body may arrive separately
                    piece = connection.recv(4096)
                    if not piece:
                        return
                    answer += piece
                waits_ms.append((time.monotonic() - began_s) * 1000)

    asking = Thread(target=ask)
    asking.start()
    try:
        yield waits_ms
    finally:
        over.set()
        asking.join()


def _at(values: Sequence[float], quantile: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * quantile))]
