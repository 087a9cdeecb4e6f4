"""A worker process for the chaos run: the real engine, or the naive control that begins at the top after a crash."""

import asyncio
import os
import sys

from msgspec.structs import replace

from headrace import assembly
from headrace.config import CORE_SECTIONS, load
from headrace.execution.engine import Engine, Held
from headrace.execution.machine import Step
from headrace.model.orders import OrderStatus
from headrace.runtime import log
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics


class NaiveEngine(Engine):
    """What a job queue with retries does: the job failed, so do it again. It asks nobody what the first one did."""

    async def execute(self, held: Held) -> None:
        if held.order.status is OrderStatus.SUBMITTED:
            outcome = replace(held.order.outcome, failed_tries=held.order.outcome.failed_tries + 1)
            held.order = await self._steps.take(held.order, Step.RETRIED, outcome)
        await super().execute(held)


def main() -> None:
    """Work until killed; `naive` as the only argument chooses the control."""
    log.configure("warning", "console")
    config = load({**CORE_SECTIONS, **assembly.SECTIONS}, env=dict(os.environ), dotenv=None, toml=None)
    engine = NaiveEngine if sys.argv[1:] == ["naive"] else Engine
    asyncio.run(assembly.run_worker(config, SystemClock(), Metrics(), asyncio.Event(), engine=engine))


if __name__ == "__main__":
    main()
