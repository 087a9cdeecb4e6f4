"""Puts the order half together: store, chain, venues, engine, worker, intake. The service or a worker runs it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import msgspec

from headrace.bus import Bus
from headrace.chains import CHAINS, Chain
from headrace.chains.mock import MockChainSettings
from headrace.config import Config, CoreSettings
from headrace.execution.engine import Engine
from headrace.execution.finality import Finality
from headrace.execution.intake import Intake
from headrace.execution.publisher import Publisher
from headrace.execution.settings import ExecutionSettings
from headrace.execution.triggers import Triggers
from headrace.execution.worker import Worker
from headrace.model.errors import ConfigError
from headrace.model.redact import redact
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics
from headrace.runtime.registry import load
from headrace.runtime.supervise import Supervisor
from headrace.store import STORES, Store
from headrace.store.inbox import INBOXES, Inbox, InboxSettings
from headrace.venues import VENUES, Venue
from headrace.venues.mock_market import MockMarketSettings

SECTIONS: Final[Mapping[str, type[msgspec.Struct]]] = MappingProxyType(
    {"orders": ExecutionSettings, "mock_chain": MockChainSettings, "mock_venues": MockMarketSettings}
)
"""The sections of `headrace.toml` that belong to orders."""


@dataclass
class OrderHalf:
    """What takes and executes orders. `worker` is None where other processes execute them."""

    store: Store
    chain: Chain
    intake: Intake
    worker: Worker | None
    finality: Finality | None

    def start(self, tasks: Supervisor, bus: Bus | None, metrics: Metrics) -> None:
        """Begin to work and to hear what other processes commit; with a bus, publish there and hear its prices."""
        again = partial(Backoff, initial_s=0.2, max_s=5.0)
        tasks.start("orders", "follow", self.store.follow, restart=again())
        if bus is not None:
            publisher = Publisher(bus, metrics)
            self.store.attach(publisher.hear)
            triggers = Triggers(self.store, metrics)
            self.store.attach(triggers.hear_orders)
            bus.attach(triggers.hear_trades)
            tasks.start("orders", "triggers", triggers.run, restart=again())
            tasks.start("orders", "publish", publisher.run, restart=again())
        if self.worker is not None:
            tasks.start("orders", "worker", self.worker.run, restart=again())
        if self.finality is not None:
            tasks.start("orders", "finality", self.finality.run, restart=again())


@asynccontextmanager
async def open_orders(
    config: Config, clock: Clock, metrics: Metrics, *, work: bool, engine: type[Engine] = Engine
) -> AsyncIterator[OrderHalf]:
    """Open what the settings name; at the end, leases are given back and everything is closed.

    `engine` is for the chaos run's control, which shows what another one would do.
    Enter it before the Supervisor that runs it, so that it is left after all tasks have ended.
    """
    core, settings = config.section(CoreSettings), config.section(ExecutionSettings)
    async with contextlib.AsyncExitStack() as stack:
        store = await open_store(core.database_url, settings.file, clock)
        stack.push_async_callback(store.close)
        chain: Chain = load(CHAINS["mock"])(config.section(MockChainSettings), clock)
        stack.push_async_callback(chain.close)
        market = config.section(MockMarketSettings)
        venues: list[Venue] = [load(VENUES[name])(market, clock) for name in sorted(VENUES)]
        worker = None
        if work:
            worker = Worker(
                store,
                engine(store, chain, venues, settings, clock),
                settings,
                clock,
                metrics,
                concurrency=core.queue_max_concurrency,
                per_minute=core.queue_rate_limit_per_minute,
            )
            stack.push_async_callback(worker.release)
        finality = Finality(store, chain, settings, clock) if work else None
        yield OrderHalf(store, chain, Intake(store, settings, clock), worker, finality)


async def open_store(database_url: str | None, file: str, clock: Clock) -> Store:
    """What the URL names, else the given SQLite file. Raises ConfigError for a database that is not supported."""
    opener, place = _adapter(STORES, database_url, file)
    store: Store = await opener.open(place, clock)
    return store


async def open_inbox(database_url: str | None, settings: InboxSettings, clock: Clock) -> Inbox:
    """As `open_store`; the file is that of the settings."""
    opener, place = _adapter(INBOXES, database_url, settings.file)
    inbox: Inbox = await opener.open(place, clock, settings)
    return inbox


def _adapter(register: Mapping[str, str], database_url: str | None, file: str) -> tuple[Any, str]:
    """The class for the database that is configured, and where that is."""
    kind, place = "sqlite", file
    if database_url and database_url.startswith("sqlite:"):
        place = database_url.removeprefix("sqlite:").removeprefix("//")
    elif database_url:
        kind, place = "postgres", database_url
    try:
        return load(register[kind]), place
    except ModuleNotFoundError as error:
        raise ConfigError("DATABASE_URL", redact(place), f"pip install 'headrace[{kind}]' first") from error


async def run_worker(
    config: Config, clock: Clock, metrics: Metrics, stop: asyncio.Event, *, engine: type[Engine] = Engine
) -> None:
    """Execute orders, and nothing else, until `stop`."""
    async with open_orders(config, clock, metrics, work=True, engine=engine) as orders, Supervisor(clock) as tasks:
        orders.start(tasks, None, metrics)
        await stop.wait()
        tasks.cancel()
