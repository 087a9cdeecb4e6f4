"""Composes the parts that have a database: orders (store, chain, venues, engine, worker, intake), and inboxes."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import msgspec
import structlog

from headrace.adapters import Context
from headrace.bus import Writer
from headrace.chains import Chain
from headrace.config import Config, CoreSettings
from headrace.database.sqlite_file import MEMORY
from headrace.inbox import Inbox, InboxSettings
from headrace.model.errors import ConfigError, InvariantError, TransientError
from headrace.model.facts import News
from headrace.model.redact import redact
from headrace.orders.ended import Finality, Retirement
from headrace.orders.engine import Engine
from headrace.orders.intake import Intake
from headrace.orders.live_quotes import LiveQuotes
from headrace.orders.metrics import OrderMetrics
from headrace.orders.publisher import Publisher
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store import Store
from headrace.orders.triggers import Triggers
from headrace.orders.worker import Worker
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics
from headrace.runtime.probes import Probes
from headrace.runtime.sinks import Sinks
from headrace.runtime.supervise import Supervisor, Work
from headrace.service.settings import REGISTERS, Registers
from headrace.venues import Venue

_log = structlog.get_logger("assembly")


@dataclass
class OrderHalf:
    """Parts that accept and execute orders.

    `worker` is None if other processes execute orders. `kept` describes the adapters that are used.
    """

    store: Store
    chain: Chain
    intake: Intake
    worker: Worker | None
    finality: Finality | None
    retirement: Retirement | None
    kept: Mapping[str, str]
    clock: Clock
    venues: Sequence[Venue] = ()
    settings: ExecutionSettings = field(default_factory=ExecutionSettings)
    quotes: LiveQuotes | None = None

    def watch(self, probes: Probes, tasks: Supervisor) -> None:
        """Add each part that can fail to the health checks."""
        probes.add("order store", self.store.check)
        self.store.on_trouble = probes.trouble("order store")
        probes.add("chain", self.chain.check)
        self.chain.on_trouble = probes.trouble("chain")
        for venue in self.venues:
            probes.add(f"venue:{venue.name}", venue.check, required=False)
        probes.add("venues", self._check_venues)
        if self.worker is not None:
            probes.add("worker", self.worker.check)
        probes.add("orders", partial(self._check_orders, tasks), required=False)

    async def _check_venues(self, *, thorough: bool) -> None:
        """Raise TransientError if no venue gives quotes."""
        results = await asyncio.gather(
            *[venue.check(thorough=thorough) for venue in self.venues], return_exceptions=True
        )
        if all(isinstance(each, Exception) for each in results):
            raise TransientError("no venue gives quotes")

    async def _check_orders(self, tasks: Supervisor, *, thorough: bool) -> None:
        """Raise TransientError while an order can't be read, or a task of the orders is broken."""
        if count := len(self.store.unreadable.order_ids):
            raise TransientError(f"{count} orders can't be read; the log names them")
        broken = [label for label, error in tasks.failing().items() if label.startswith("orders/") and error.__cause__]
        if broken:
            raise TransientError(f"broken, orders_broken in the log says how: {', '.join(sorted(broken))}")

    def start(
        self,
        tasks: Supervisor,
        metrics: Metrics,
        facts: Sinks[News] | None = None,
        writer: Writer | None = None,
        head: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Start the tasks, and deliver what other processes commit.

        With a `writer`, order events are published. With `facts`, waiting orders follow the trades among them. `head`
        returns the newest slot.
        """
        unreadable = metrics.gauge("orders_unreadable", "Orders that could not be read since the start")

        def apart(work: Work) -> Work:
            return partial(_apart, work)

        self.store.unreadable.on_more = unreadable.set
        unreadable.set(len(self.store.unreadable.order_ids))
        again = partial(Backoff, initial_s=0.2, max_s=5.0)
        measures = OrderMetrics(self.store, self.clock, metrics)
        self.store.attach(measures.hear)
        tasks.start("orders", "measures", apart(measures.run), restart=again())
        tasks.start("orders", "follow", apart(self.store.follow), restart=again())
        if writer is not None:
            publisher = Publisher(writer, self.clock, metrics)
            self.store.attach(publisher.hear)
            tasks.start("orders", "publish", apart(publisher.run), restart=again())
        if facts is not None:
            triggers = Triggers(self.store, self.clock, metrics, head)
            self.store.attach(triggers.hear_orders)
            facts.attach(triggers.hear)
            tasks.start("orders", "triggers", apart(triggers.run), restart=again())
        if self.worker is not None:
            tasks.start("orders", "worker", apart(self._work), restart=again())
        if self.finality is not None:
            tasks.start("orders", "finality", apart(self.finality.run), restart=again())
        if self.retirement is not None:
            tasks.start("orders", "retirement", apart(self.retirement.run), restart=again())

    def start_quotes(self, tasks: Supervisor, metrics: Metrics, writer: Writer | None) -> None:
        """Publish quotes on topics that have subscribers, if this process may publish there.

        On a bus that several servers share, nobody does: each knows the subscribers of its own alone.
        """
        if writer is not None:
            self.quotes = LiveQuotes(self.intake, writer, self.settings, self.clock, metrics)
            work = partial(_apart, self.quotes.run)
            tasks.start("orders", "quotes", work, restart=Backoff(initial_s=0.2, max_s=5.0))

    async def _work(self) -> None:
        """Run the worker. If it breaks, end its leases, so that other workers need not wait until they expire."""
        assert self.worker is not None
        try:
            await self.worker.run()
        except InvariantError:
            await self.worker.release()
            raise


async def _apart(work: Work) -> None:
    """Turn an InvariantError of the orders into a TransientError: the stream continues, and the task restarts."""
    try:
        await work()
    except InvariantError as error:
        _log.error("orders_broken", error=str(error), meaning="a person must look", exc_info=error)
        raise TransientError("the orders are broken") from error


@asynccontextmanager
async def open_orders(
    config: Config,
    context: Context,
    *,
    work: bool,
    registers: Registers = REGISTERS,
    engine: type[Engine] = Engine,
) -> AsyncIterator[OrderHalf]:
    """Open the parts that the settings name. At the end, end the leases and close everything.

    Raises ConfigError for settings or files that can't be used, and TransientError for a database that is unavailable.
    If `context.patience` is given, it is called with the TransientError instead, and orders are refused until the
    database can be used. `engine` is for the chaos test's control, which shows how a faulty engine would behave. Enter
    this before the Supervisor that runs the parts, so that it is left after all tasks have ended.
    """
    core, settings = config.section(CoreSettings), config.section(ExecutionSettings)
    clock, metrics = context.clock, context.metrics
    if context.patience is None:
        await asyncio.to_thread(_check_writable, _order_files(config, registers))
    async with contextlib.AsyncExitStack() as stack:
        store = await registers.stores.open(settings.place.kind, config, context, key="core.database_url")
        stack.push_async_callback(store.close)
        chain = await registers.chains.open(settings.chain, config, context, key="orders.chain")
        stack.push_async_callback(chain.close)
        opened: dict[str, Venue] = {}
        for name in dict.fromkeys((*settings.venues, *settings.quote_venues)):
            key = "orders.venues" if name in settings.venues else "orders.quote_venues"
            opened[name] = venue = await registers.venues.open(name, config, context, key=key)
            stack.push_async_callback(venue.close)
        venues = [opened[name] for name in dict.fromkeys(settings.venues)]
        asked = [opened[name] for name in dict.fromkeys(settings.quote_venues)]
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
        retirement = Retirement(store, settings, clock, metrics) if work and settings.kept_s else None
        kept = {"store": redact(settings.place.where), "chain": settings.chain, "venues": ", ".join(settings.venues)}
        intake = Intake(store, settings, clock, worker, asked or venues)
        yield OrderHalf(store, chain, intake, worker, finality, retirement, kept, clock, venues, settings)


def files(config: Config, registers: Registers, *, orders: bool, inbox: bool) -> list[str]:
    """Return the files that the orders and the inboxes write."""
    found: list[str | None] = [*_order_files(config, registers).values()] if orders else []
    if inbox:
        found.append(config.section(InboxSettings).place.file)
    return [file for file in found if file not in (None, MEMORY)]


def _order_files(config: Config, registers: Registers) -> dict[str, str]:
    """Return the files that the orders write, by the names of their settings."""
    settings = config.section(ExecutionSettings)
    chosen = (*settings.venues, *settings.quote_venues)
    adapters = [registers.chains.adapter(settings.chain), *map(registers.venues.adapter, chosen)]
    found = {name: file for adapter in adapters for name, file in config.files(adapter.Settings).items()}
    return found if settings.place.file is None else {**found, "ORDERS_FILE": settings.place.file}


def check_files(config: Config, registers: Registers) -> None:
    """Raise ConfigError for a file that can't be written and was asked for: others may become writable later.

    The files of orders are asked for if orders were switched on explicitly.
    """
    if config.section(ExecutionSettings).enabled and config.origins["orders.enabled"].kind != "default":
        _check_writable(_order_files(config, registers))
    file = config.section(InboxSettings).place.file
    if file is not None and config.origins["inbox.file"].kind != "default":
        _check_writable({"INBOX_FILE": file})


def _check_writable(files: Mapping[str, str]) -> None:
    """Raise ConfigError for a file that SQLite can't create, or can't write together with its log next to it."""
    for key, file in files.items():
        path = Path(file)
        usable = not path.exists() or (path.is_file() and os.access(path, os.W_OK))
        if not usable or not os.access(path.parent, os.W_OK | os.X_OK):
            raise ConfigError(key, file, "a file that can be written, in a folder that can be")


async def enter_orders(
    stack: contextlib.AsyncExitStack, config: Config, context: Context, registers: Registers = REGISTERS
) -> OrderHalf | None:
    """Return the orders, if they are on. If their database or file can't be used now, it is opened later.

    Raises ConfigError for wrong settings. A file that can't be written is a wrong setting if `[orders] enabled` was set
    explicitly; otherwise it may become writable later.
    """
    settings = config.section(ExecutionSettings)
    if not settings.enabled:
        return None
    if config.origins["orders.enabled"].kind != "default":
        await asyncio.to_thread(_check_writable, _order_files(config, registers))

    def not_open(error: TransientError) -> None:
        meaning = "orders are answered with 503 until they can be opened, which is tried again"
        _log.error("orders_not_open", error=str(error), meaning=meaning)

    patient = replace(context, patience=not_open)
    return await stack.enter_async_context(open_orders(config, patient, work=settings.work_here, registers=registers))


async def enter_inbox(
    stack: contextlib.AsyncExitStack,
    config: Config,
    context: Context,
    registers: Registers = REGISTERS,
    *,
    keep: bool,
) -> Inbox:
    """Return the inboxes, in memory unless `keep` is set. A database that can't be used now is opened later.

    Raises ConfigError for wrong settings, and for a file that was set explicitly and can't be written.
    """
    settings = config.section(InboxSettings)
    if not keep:
        settings = msgspec.structs.replace(settings, file=MEMORY, database_url=None)
    file = settings.place.file
    if file is not None and config.origins["inbox.file"].kind != "default":
        await asyncio.to_thread(_check_writable, {"INBOX_FILE": file})

    def not_open(error: TransientError) -> None:
        meaning = "messages to users are refused until it can be opened, which is tried again"
        _log.error("inbox_not_open", error=str(error), meaning=meaning)

    patient, kind = replace(context, patience=not_open), settings.place.kind
    inbox = await registers.inboxes.open_with(settings, kind, config, patient, key="core.database_url")
    stack.push_async_callback(inbox.close)
    return inbox
