"""Measure one order in a process at ease: commits, processor time and latency, without gateway and mock chain.

    .venv/bin/python benchmarks/orders/at_ease.py [sqlite|postgres] [orders]

Orders are placed one after another, on a venue and a chain that answer at once. Commits are counted by what the store
delivers, so the figure holds on a busy machine too; times do not.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack

import uvloop

from headrace.adapters import load_class
from headrace.bench.orders import new_database
from headrace.model.orders import TERMINAL, OrderEvent
from headrace.orders.engine import Engine
from headrace.orders.intake import Intake
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store import STORES
from headrace.orders.worker import Worker
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.testing import postgres
from headrace.testing.orders import FixedVenue, ScriptedChain

BODY = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": "1500000000", "type": "market"}
WARM = 20


async def measure(kind: str, place: str, orders: int) -> str:
    """Place the orders; return one line of figures."""
    clock, settings, chain = SystemClock(), ExecutionSettings(), ScriptedChain()
    chain.on_send = chain.land
    store = await load_class(STORES[kind]).at(place, clock)
    engine = Engine(store, chain, [FixedVenue()], settings, clock)
    worker = Worker(store, engine, settings, clock, Metrics(), concurrency=10, per_minute=0)
    intake = Intake(store, settings, clock, worker)
    over, commits, took_s = asyncio.Event(), 0, []

    def hear(events: Sequence[OrderEvent]) -> None:
        nonlocal commits
        commits += 1
        if any(event.status in TERMINAL for event in events):
            over.set()

    store.attach(hear)
    async with Supervisor(clock) as tasks:
        tasks.start("bench", "worker", worker.run)
        await asyncio.sleep(0.2)
        for number in range(WARM + orders):
            if number == WARM:
                commits, cpu_s = 0, time.process_time()
            over.clear()
            began_s = time.perf_counter()
            await intake.execute(BODY)
            await over.wait()
            took_s.append(time.perf_counter() - began_s)
        cpu_s = time.process_time() - cpu_s
        tasks.cancel()
    await store.close()
    half = sorted(took_s[WARM:])[orders // 2]
    return f"{kind}: {commits / orders:.2f} commits, {cpu_s / orders * 1000:.2f} ms of CPU, p50 {half * 1000:.2f} ms"


def main() -> None:
    """Measure one store."""
    kind, orders = (sys.argv[1:] + ["sqlite", "300"][len(sys.argv) - 1 :])[:2]
    with ExitStack() as stack:
        if kind == "postgres":
            place = new_database(stack.enter_context(postgres.server(durable=True)), "at_ease")
        else:
            place = stack.enter_context(tempfile.TemporaryDirectory()) + "/orders.db"
        print(uvloop.run(measure(kind, place, int(orders))))


if __name__ == "__main__":
    main()
