"""kill -9 and SIGSTOP on worker processes, in small: the real engine loses and doubles nothing, the naive one does.

The long form is `make chaos`; its dated results are in benchmarks/orders.
"""

import argparse
import asyncio
from typing import Any

from headrace.bench import orders_chaos


async def both(*runs: argparse.Namespace) -> list[dict[str, Any]]:
    return await asyncio.gather(*map(orders_chaos.run, runs))


def test_killed_and_frozen_workers_lose_and_double_nothing_unlike_naive_ones() -> None:
    few = ["--orders", "150", "--kills", "6", "--stops", "2", "--workers", "2", "--timeout", "45"]
    runs = [orders_chaos.parser().parse_args([*few, "--engine", engine]) for engine in ("headrace", "naive")]
    real, naive = asyncio.run(both(*runs))
    assert [real[name] for name in ("unfinished", "lost", "twice", "wrong_fate", "gaps")] == [0] * 5, real
    assert naive["twice"] > 0, "the dangers are too small to prove anything"
