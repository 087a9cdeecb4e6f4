"""One path of Headrace, run alone so that its instructions can be counted: `part.py NAME COUNT …` under callgrind.

Counting is switched on when everything is imported and warm. Each COUNT is a run of its own, with a dump of its own.
"""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any


def switch(pid: int, state: str) -> None:
    """Switch counting `on` or `off` for a process under callgrind."""
    _command(pid, "instrumentation", state)


def _command(pid: int, *words: str) -> None:
    subprocess.run(["vgdb", f"--pid={pid}", *words], check=True, capture_output=True)


def counted(run: Callable[[int], Awaitable[object]], counts: Sequence[int]) -> None:
    """Count each run, with the collector of cycles tuned as in a server, and dump what was counted."""
    from headrace.runtime import garbage

    async def one(count: int) -> None:
        switch(os.getpid(), "on")
        await run(count)
        switch(os.getpid(), "off")

    garbage.settle()
    for count in counts:
        asyncio.run(one(count))
        _command(os.getpid(), "dump")


def pipeline(kind: str, core: str, counts: Sequence[int]) -> None:
    """Run node frames of one kind (accounts, trades) through parse, pipeline, bus, cache and framing."""
    from headrace.bench import pipeline as bench

    updates, chance = asyncio.run(bench.demo_updates()), random.Random(1)
    make: Callable[..., list[bytes]] = {
        "accounts": bench.account_frames,
        "trades": partial(bench.trade_frames, mints_max=40),  # a mint is traded several times, as on the chain
        "whole": bench.whole_updates,
    }[kind]
    frames = make(updates, max(counts), chance)
    asyncio.run(bench.measure(frames[:64], core))
    counted(lambda count: bench.measure(frames[:count], core), counts)


def fan_out(counts: Sequence[int]) -> None:
    """Publish trades to 100 clients with filters of their own."""
    from headrace.bench import filters as bench

    messages = bench.trades(max(counts))
    asyncio.run(bench.measure(bench.both, 100, messages[:20]))
    counted(lambda count: bench.measure(bench.both, 100, messages[:count]), counts)


PARTS: dict[str, Callable[[Sequence[int]], Any]] = {
    "accounts": lambda counts: pipeline("accounts", "python", counts),
    "accounts_rust": lambda counts: pipeline("accounts", "rust", counts),
    "trades": lambda counts: pipeline("trades", "python", counts),
    "trades_rust": lambda counts: pipeline("trades", "rust", counts),
    "whole": lambda counts: pipeline("whole", "python", counts),
    "fan_out": fan_out,
}

if __name__ == "__main__":
    PARTS[sys.argv[1]]([int(count) for count in sys.argv[2:]])
