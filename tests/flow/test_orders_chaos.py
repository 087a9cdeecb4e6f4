"""kill -9 and SIGSTOP on worker processes, in small: the real engine loses and doubles nothing, the naive one does.

The long form is `make chaos`; its dated results are in benchmarks/orders.
"""

import asyncio
from typing import Any

from headrace.bench import orders_chaos
from tests.orders.store.servers import empty_database

FEW = ["--orders", "150", "--kills", "6", "--stops", "2", "--workers", "2", "--timeout", "45"]


async def run(*more: str) -> dict[str, Any]:
    return await orders_chaos.run(orders_chaos.parser().parse_args([*FEW, *more]))


async def on_both_stores_and_naive(server_url: str) -> list[dict[str, Any]]:
    async with empty_database(server_url) as url:
        runs = (run(), run("--store", "postgres", "--database", url), run("--engine", "naive"))
        return list(await asyncio.gather(*runs))


def test_killed_and_frozen_workers_lose_and_double_nothing_unlike_naive_ones(postgres_url: str) -> None:
    *real, naive = asyncio.run(on_both_stores_and_naive(postgres_url))
    for counts in real:
        assert [counts[name] for name in ("unfinished", "lost", "twice", "wrong_fate", "gaps")] == [0] * 5, counts
    assert naive["twice"] > 0, "the dangers are too small to prove anything"
