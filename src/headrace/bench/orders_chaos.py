"""Kills and freezes workers while they execute orders on a chain that drops, delays, forks, lags and fails.

Then counts the orders. `headrace bench orders_chaos` must find no lost order, no order executed twice, and no gap in
the events of an order. With `--engine naive`, the run must find orders executed twice; otherwise it proves nothing.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from headrace.chains.mock import MockChain
from headrace.config import Config, load
from headrace.model.errors import HeadraceError, TransientError
from headrace.model.orders import TERMINAL, Order, OrderRefused
from headrace.orders.intake import Intake
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store import STORES, Store
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.service.orders import open_orders
from headrace.service.settings import SECTIONS
from headrace.service.worker import lend
from headrace.testing import postgres

LEASE_MS: Final = 1500
DANGERS: Final = {
    "MOCK_DROP": "0.1",
    "MOCK_LATE": "0.05",
    "MOCK_FORK": "0.1",
    "MOCK_LAG": "0.2",
    "MOCK_LAG_BLOCKS": "10",
    "MOCK_ERROR": "0.05",
    "MOCK_QUOTE_ERROR": "0.05",
    "MOCK_BLOCK_MS": "20",
    "MOCK_VALIDITY_BLOCKS": "120",
    "MOCK_FINALITY_BLOCKS": "20",
    "MOCK_EXECUTION_MS": "50-500",
    "MOCK_QUOTE_MS": "10",
    "ORDER_LEASE_MS": str(LEASE_MS),
    "ORDER_SCAN_MS": "100",
    "ORDER_RESEND_MS": "400",
    "ORDER_LOOK_MS": "100",
    "ORDER_RETRY_MS": "50",
    "ORDER_TRIES": "10",
    "QUEUE_RATE_LIMIT_PER_MINUTE": "0",
    "LOG_LEVEL": "error",
}
BODY: Final = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": Decimal("1.5"), "slippage": Decimal("0.5")}


def parser() -> argparse.ArgumentParser:
    it = argparse.ArgumentParser(prog="headrace bench orders_chaos", description=__doc__)
    it.add_argument("--orders", type=int, default=1000)
    it.add_argument("--workers", type=int, default=3)
    it.add_argument("--kills", type=int, default=24)
    it.add_argument("--stops", type=int, default=6)
    it.add_argument("--every", type=float, default=0.004, help="seconds between two orders of a client")
    it.add_argument("--clients", type=int, default=1, help="how many place orders at the same time")
    it.add_argument("--pause", default="0.3-1.2", help="seconds between two kills, as a range")
    it.add_argument("--seed", type=int, default=1)
    it.add_argument("--engine", choices=("headrace", "naive"), default="headrace")
    it.add_argument("--store", choices=sorted(STORES), default="sqlite")
    it.add_argument("--database", default="", help="URL of an empty PostgreSQL database; default: a server of its own")
    it.add_argument("--timeout", type=float, default=600, help="seconds until an unfinished order counts as lost")
    return it


class Crew:
    """The worker processes. Each process that is killed is replaced at once."""

    def __init__(self, env: dict[str, str], engine: str, log: Path) -> None:
        self._env, self._engine, self._log = env, engine, log
        self._nursery: asyncio.subprocess.Process | None = None
        self._workers: list[int] = []

    async def hire(self) -> None:
        """Start another worker."""
        if self._nursery is None:
            pipe, command = (
                asyncio.subprocess.PIPE,
                [sys.executable, "-m", "headrace.bench.orders_worker", self._engine],
            )
            with self._log.open("ab") as log:
                self._nursery = await asyncio.create_subprocess_exec(
                    *command, env=self._env, stdin=pipe, stdout=pipe, stderr=log
                )
        asked, told = self._nursery.stdin, self._nursery.stdout
        assert asked is not None
        assert told is not None
        asked.write(b"\n")
        self._workers.append(int(await told.readline()))

    async def kill(self, luck: random.Random) -> None:
        """End a worker with SIGKILL, and start another."""
        await _end(self._workers.pop(luck.randrange(len(self._workers))))
        await self.hire()

    async def freeze(self, luck: random.Random, seconds: float) -> None:
        """Stop a worker for longer than its lease, then let it continue."""
        worker = luck.choice(self._workers)
        with contextlib.suppress(ProcessLookupError):  # the worker could not open the database
            os.kill(worker, signal.SIGSTOP)
            await asyncio.sleep(seconds)
            os.kill(worker, signal.SIGCONT)

    async def dismiss(self) -> None:
        for worker in self._workers:
            await _end(worker)
        if self._nursery is not None:
            self._nursery.kill()
            await self._nursery.wait()


async def _end(worker: int) -> None:
    """End a process with SIGKILL. Return when it no longer exists."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)
        while True:
            os.kill(worker, 0)
            await asyncio.sleep(0.005)


async def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return the counts of one run."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, ExitStack() as stack:
        url = f"sqlite:///{folder}/orders.db"
        if args.store == "postgres":
            url = args.database or await asyncio.to_thread(stack.enter_context, postgres.server(durable=True))
        return await _run(args, Path(folder), url)


async def _run(args: argparse.Namespace, folder: Path, database_url: str) -> dict[str, Any]:
    settings = {
        **DANGERS,
        "MOCK_CHAIN_FILE": str(folder / "chain.db"),
        "DATABASE_URL": database_url,
        "MOCK_CHAIN_SEED": str(args.seed),
    }
    config = load(SECTIONS, env=settings, dotenv=None, toml=None)
    luck = random.Random(args.seed)  # noqa: S311
    started_s = time.monotonic()
    async with _open(config) as (store, chain):
        crew = Crew({**os.environ, **settings}, args.engine, folder / "workers.log")
        try:
            for _ in range(args.workers):
                await crew.hire()
            placing = asyncio.create_task(_place(Intake(store, ExecutionSettings(), SystemClock()), args))
            await _torment(crew, luck, args)
            ids = await placing
            unfinished = await _until_over(store, ids, args.timeout)
        finally:
            await crew.dismiss()
        errors = len((folder / "workers.log").read_text().splitlines())
        await asyncio.sleep(2 * (120 + 20) * 0.02)  # until transactions that were sent have landed or expired
        counts = await _count(store, chain, ids)
    return {
        "bench": "orders_chaos",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "engine": args.engine,
        "store": args.store,
        "orders": args.orders,
        "workers": args.workers,
        "kills": args.kills,
        "stops": args.stops,
        "seconds": round(time.monotonic() - started_s, 1),
        "unfinished": unfinished,
        **counts,
        "worker_log_lines": errors,
    }


@asynccontextmanager
async def _open(config: Config) -> AsyncIterator[tuple[Store, MockChain]]:
    async with (
        lend(config, SystemClock(), Metrics()) as context,
        open_orders(config, context, work=False) as orders,
    ):
        assert isinstance(orders.chain, MockChain)
        yield orders.store, orders.chain


async def _place(intake: Intake, args: argparse.Namespace) -> list[str]:
    """Place orders as clients do: each with its own key, and again if the answer is unclear."""
    turns = [range(first, args.orders, args.clients) for first in range(args.clients)]
    placed = await asyncio.gather(*[_place_some(intake, numbers, args.every) for numbers in turns])
    return [order_id for ids in placed for order_id in ids]


async def _place_some(intake: Intake, numbers: range, every_s: float) -> list[str]:
    ids = []
    for number in numbers:
        while True:
            try:
                accepted = await intake.execute(BODY, f"chaos-{number}")
            except OrderRefused as refused:
                if not refused.temporary:
                    raise
                await asyncio.sleep(0.1)
            else:
                break
        ids.append(accepted.order.id)
        await asyncio.sleep(every_s)
    return ids


async def _torment(crew: Crew, luck: random.Random, args: argparse.Namespace) -> None:
    deeds = ["kill"] * args.kills + ["stop"] * args.stops
    luck.shuffle(deeds)
    low, _, high = args.pause.partition("-")
    for deed in deeds:
        await asyncio.sleep(luck.uniform(float(low), float(high)))
        if deed == "kill":
            await crew.kill(luck)
        else:
            await crew.freeze(luck, LEASE_MS / 1000 + 0.7)


async def _until_over(store: Store, ids: Sequence[str], timeout_s: float) -> int:
    """Wait until all orders have ended. Return the number of orders that did not end in time."""
    left = set(ids)
    end_s = time.monotonic() + timeout_s
    while left and time.monotonic() < end_s:
        for order_id in sorted(left):
            try:
                order = await store.get(order_id)
            except TransientError:
                break
            if order is not None and order.status in TERMINAL:
                left.discard(order_id)
        await asyncio.sleep(0.2)
    return len(left)


async def _count(store: Store, chain: MockChain, ids: Sequence[str]) -> dict[str, Any]:
    """Compare the store with the chain's own ledger. Return the counts."""
    executions = await chain.executions()
    statuses: Counter[str] = Counter()
    lost = twice = wrong = gaps = 0
    for order_id in ids:
        order: Order | None = await store.get(order_id)
        if order is None:
            lost += 1
            continue
        statuses[order.status.value] += 1
        executed = executions.get(order_id, 0)
        lost += order.status not in TERMINAL
        twice += executed > 1
        wrong += (order.status == "CONFIRMED") != (executed > 0)
        seqs = [event.seq for event in await store.events(order_id, 0, 10_000)]
        gaps += seqs != list(range(1, order.seq + 1))
    return {"lost": lost, "twice": twice, "wrong_fate": wrong, "gaps": gaps, "statuses": dict(statuses)}


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line of JSON. Return 0 if no order was lost or executed twice, and every status and event is right."""
    args = parser().parse_args(argv)
    try:
        result = asyncio.run(run(args))
    except HeadraceError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(result) + "\n")
    clean = not any(result[name] for name in ("lost", "twice", "wrong_fate", "gaps"))
    return 0 if clean else 1
