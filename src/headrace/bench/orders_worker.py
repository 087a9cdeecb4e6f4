"""A worker process for the chaos run: the real engine, or a naive one, which starts orders again after a crash."""

import asyncio
import os
import signal
import sys
from typing import NoReturn

from msgspec.structs import replace

from headrace.adapters import load_class
from headrace.chains import CHAINS
from headrace.config import Config, load
from headrace.model.orders import Change, EventKind, OrderStatus
from headrace.orders.engine import Engine, Held
from headrace.orders.store import STORES
from headrace.runtime import log
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.service.settings import SECTIONS
from headrace.service.worker import run_worker
from headrace.venues import VENUES


class NaiveEngine(Engine):
    """An engine like a job queue with retries: it repeats a failed order without checking what the first try did."""

    async def execute(self, held: Held) -> None:
        if held.order.status is OrderStatus.SUBMITTED:
            outcome = replace(held.order.outcome, failed_tries=held.order.outcome.failed_tries + 1)
            held.order = await self._store.apply(held.order, Change(kind=EventKind.RETRIED, outcome=outcome))
        await super().execute(held)


def main() -> None:
    """Start a worker process for each line on stdin, and print its id. The argument `naive` chooses the naive engine.

    Workers are forked from a process that has imported everything, because thousands of them are killed and replaced.
    """
    log.configure("warning", "console")
    config = load(SECTIONS, env=dict(os.environ), dotenv=None, toml=None)
    for register in (STORES, CHAINS, VENUES):
        for target in register.values():
            load_class(target)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # this process does not wait for its children
    for _ in sys.stdin:
        worker = os.fork()
        if not worker:
            _work(config, NaiveEngine if sys.argv[1:] == ["naive"] else Engine)
        sys.stdout.write(f"{worker}\n")
        sys.stdout.flush()


def _work(config: Config, engine: type[Engine]) -> NoReturn:
    """Run until killed. Never returns, so that the parent's clean-up does not run in this process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        asyncio.run(run_worker(config, SystemClock(), Metrics(), asyncio.Event(), engine=engine))
    except BaseException as error:  # noqa: BLE001  (printed to the log; `raise` would continue the parent's loop)
        sys.stderr.write(f"{error!r}\n")
    os._exit(1)


if __name__ == "__main__":
    main()
