"""One path of Headrace, run alone so that its instructions can be counted: `part.py NAME COUNT` under callgrind.

Counting is switched on when everything is imported and warm, and off again when COUNT units are done.
"""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any


def switch(pid: int, state: str) -> None:
    """Switch counting `on` or `off` for a process under callgrind."""
    subprocess.run(["vgdb", f"--pid={pid}", "instrumentation", state], check=True, capture_output=True)


def pipeline(kind: str, count: int, core: str) -> None:
    """Run `count` node frames of one kind (accounts, trades) through parse, pipeline, bus, cache and framing."""
    from headrace.bench import pipeline as bench

    updates, chance = asyncio.run(bench.demo_updates()), random.Random(1)
    make: Callable[..., list[bytes]] = {
        "accounts": bench.account_frames,
        "trades": bench.trade_frames,
        "whole": bench.whole_updates,
    }[kind]
    frames = make(updates, count, chance)
    asyncio.run(bench.measure(frames[:64], core))

    async def counted() -> None:
        switch(os.getpid(), "on")
        await bench.measure(frames, core)
        switch(os.getpid(), "off")

    asyncio.run(counted())


def fan_out(count: int) -> None:
    """Publish `count` trades to 100 clients with filters of their own."""
    from headrace.bench import filters as bench

    messages = bench.trades(count)

    async def counted() -> None:
        await bench.measure(bench.both, 100, messages[:20])
        switch(os.getpid(), "on")
        await bench.measure(bench.both, 100, messages)
        switch(os.getpid(), "off")

    asyncio.run(counted())


PARTS: dict[str, Callable[[int], Any]] = {
    "accounts": lambda count: pipeline("accounts", count, "python"),
    "accounts_rust": lambda count: pipeline("accounts", count, "rust"),
    "trades": lambda count: pipeline("trades", count, "python"),
    "trades_rust": lambda count: pipeline("trades", count, "rust"),
    "whole": lambda count: pipeline("whole", count, "python"),
    "fan_out": fan_out,
}

if __name__ == "__main__":
    PARTS[sys.argv[1]](int(sys.argv[2]))
