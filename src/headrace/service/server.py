"""One server process: sources → pipeline → bus → gateway, and orders. Composes all parts and ends them in order."""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec
import structlog

from headrace.adapters import Context
from headrace.bus import Bus, Writer
from headrace.cache import Cache, CacheSettings, Snapshots
from headrace.cache.feed import CacheFeed
from headrace.cluster import ClusterSettings
from headrace.cluster.members import Members
from headrace.config import Config, CoreSettings, Features
from headrace.cores import open_core
from headrace.gateway.auth.authenticator import Authenticator
from headrace.gateway.auth.settings import AuthSettings
from headrace.gateway.context import GatewayContext, GatewayOptions
from headrace.gateway.server import Gateway
from headrace.gateway.settings import AdmissionSettings, GatewaySettings, TlsSettings
from headrace.inbox import Inbox
from headrace.ingest.log_lines import lacks_of
from headrace.ingest.pipeline import Pipeline
from headrace.model.errors import ConfigError, TransientError
from headrace.protocol.frames import Head
from headrace.runtime import log
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock, SystemClock
from headrace.runtime.disk import Disk
from headrace.runtime.health import Health
from headrace.runtime.health_measures import HealthMeasures
from headrace.runtime.metrics import Metrics
from headrace.runtime.probes import Probes
from headrace.runtime.supervise import Supervisor
from headrace.runtime.watch import watch
from headrace.service.checkpoints import CheckpointKeeper, enter_checkpoints
from headrace.service.history import END_S, HistoryHalf, enter_history
from headrace.service.orders import OrderHalf, enter_inbox, enter_orders, files
from headrace.service.settings import REGISTERS, ProgramSettings, Registers
from headrace.service.shared import Lanes, events_of_late, new_members, server_id_of
from headrace.service.shared import watch as watch_members
from headrace.service.stream import Choice, FollowedAccounts, OpenSource, Stream, chosen
from headrace.service.updates import (
    load_programs,
    new_outlet,
    new_recorder,
    new_resolver,
    open_market,
    open_pools,
    open_rpc,
)
from headrace.sources import Outlet
from headrace.sources.pools import PoolLookup, PoolSettings
from headrace.sources.recording import RecorderSettings
from headrace.sources.settings import NodeSourceSettings
from headrace.sources.subscriptions import parse_all

DRAIN_S: Final = 10.0
FLOW_S: Final = 3.0
"""Maximum time in seconds, at the end, for publishing what the source has delivered.

It is too short only if very many updates wait.
"""

ASKED_ONLY: Final = "health"
"""A topic without messages, for the health check, which only needs to know whether bus and cache answer."""

PARTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "orders": "orders",
        "worker": "worker",
        "order": "worker",
        "store": "order store",
        "ingest": "pipeline",
        "config": "tasks",
        "source": "source",
        "rpc": "source",
        "cache": "cache",
        "gateway": "gateway",
        "pools": "tasks",
        "recorder": "recording",
        "health": "tasks",
        "history": "history",
        "cluster": "tasks",
        "checkpoints": "checkpoints",
    }
)
"""Owner of tasks → the part that is reported as not ready if they fail. Every owner must be listed."""

_log = structlog.get_logger("app")


class Service:
    """One process. Build it from a Config (which reads files), then `run` it on a loop until `stop` is set.

    - `source`: opens the source of the pipeline instead of the sources that the settings name.
    - `generation`: begins the epochs of all topics. For a live service it is random, so that a client notices a
      restart. For a replay, which must be the same each time, it is the recording's id.
    - `play`: the service plays a recording. It then accepts orders only if `orders` is set too, because its prices are
      from another day.
    """

    def __init__(
        self,
        config: Config,
        clock: Clock | None = None,
        *,
        source: OpenSource | None = None,
        generation: str | None = None,
        record: Path | None = None,
        play: bool = False,
        orders: bool = True,
        registers: Registers = REGISTERS,
    ) -> None:
        registers.check(config)
        self.config = config
        self.clock = clock or SystemClock()
        self.health, self.metrics = Health(self.clock), Metrics(process=True)
        self.metrics.registry.register(HealthMeasures(self.health))
        self.probes = Probes(self.health, self.clock)
        self.programs = load_programs(config)
        self.resolve = new_resolver(config, lambda: self.programs)
        """Returns a program's id by name. Raises KeyError for an unknown name."""
        for settings in registers.subscribed(config):
            self._check_subscriptions(settings)
        self.bus: Bus
        self.cache: Cache
        self.state: Snapshots
        self.lanes: Lanes
        self.members: Members
        """Open while the process runs.

        Each lane of the bus has one writer. If another process claims a lane, this process loses it (FencedError), so
        that nothing is published twice.
        """
        core = open_core(config.section(ProgramSettings).core, self.programs)
        self.health.report("core", ready=True, detail=core.name, required=False)
        self.pipeline = Pipeline(
            self.programs,
            self.clock,
            self.metrics,
            core=core,
            transfers=config.section(Features).transfers,
            audience=self._audience,
            market=open_market(config, self.metrics),
            ask_pool=None if play or not config.section(PoolSettings).lookup else self._ask_pool,
        )
        self._pools: PoolLookup | None = None
        self.rpc = open_rpc(config, self.clock, registers)
        self.gateway: Gateway | None = None
        self.started = asyncio.Event()
        """Set once everything runs and, if the gateway is on, its port is open."""
        self._play, self._take_orders = play, orders
        self._registers, self._generation = registers, generation or secrets.token_hex(4)
        self.stream = Stream(config, [Choice(source)] if source is not None else chosen(config, registers))
        self._record = record or (Path(name) if (name := config.section(RecorderSettings).file) else None)
        self._outlet: Outlet = new_outlet("ingest")
        self._reached: Mapping[str, Mapping[str, int]] = {}
        self._asked: Mapping[str, Mapping[str, int]] = {}
        self._asked_at = 0
        self._intake: Outlet | None = None
        self._history: HistoryHalf | None = None
        self._keeper: CheckpointKeeper | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set.

        Then the sources end first, their updates are delivered, and the gateway ends last.
        """
        self._say_what_is_missing()
        for settings in self._registers.subscribed(self.config):
            self._warn_of_log_lines(settings)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.rpc.aclose)
            context = await self._lend(stack)
            await self._open_bus(stack, context)
            orders = None
            if self._take_orders:
                orders = await enter_orders(stack, self.config, context, self._registers)
            inbox = await enter_inbox(stack, self.config, context, self._registers, keep=not self._play)
            history = None
            if self.config.section(Features).history and "ingest" in self.lanes.candidates:
                parts = (self.config, context, self._registers, self.lanes.writers["ingest"], self._audience)
                history = self._history = await enter_history(stack, *parts, keep=not self._play)
            if "ingest" in self.lanes.candidates and not self._play and not self.lanes.bus.shared:
                read = self._read_reached
                self._keeper = await enter_checkpoints(
                    stack, config=self.config, context=context, registers=self._registers, probes=self.probes, read=read
                )
            if self._keeper is not None and history is not None:
                self._keeper.follow(history.feed)
            stack.push_async_callback(self._close_gateway)
            tasks = await stack.enter_async_context(Supervisor(self.clock))
            if orders is not None:
                facts = self.pipeline.consumers if "ingest" in self.lanes.candidates else None
                orders.start(tasks, self.metrics, facts, self.lanes.writers.get("orders"), self._newest_slot)
            if isinstance(self.state, CacheFeed):
                tasks.start("cache", "feed", self.state.run)
            self._watch_parts(tasks, orders, inbox, history)
            end_history = None if history is None else history.start(tasks, self.pipeline.consumers)
            if self.config.section(Features).gateway:
                await self._open_gateway(tasks, orders, inbox, history)
            if orders is not None:
                _log.info("orders_on", **orders.kept)
            background = [tasks.start("config", "watch", self._follow_config)]
            end_updates = self._start_updates(tasks, context)
            if self.lanes.bus.shared:
                await self.members.beat()
                background.append(tasks.start("cluster", "beat", self.members.run))
            await self.probes.ask_all()
            background.append(tasks.start("health", "probes", self.probes.run))
            self.started.set()
            await stop.wait()
            for task in background:
                task.cancel()
            await end_updates()
            await self.lanes.release()
            if self.lanes.bus.shared:
                await self.members.leave()
            if end_history is not None:
                await asyncio.wait([end_history()], timeout=END_S)
            if self._keeper is not None:
                await self._keeper.finish()
            if self.gateway is not None:
                await self.gateway.stop(DRAIN_S)
            tasks.cancel()

    def _start_updates(self, tasks: Supervisor, context: Context) -> Callable[[], Awaitable[None]]:
        """Start the flow of updates, if this process publishes them. Return a function that ends the flow in order."""
        if "ingest" not in self.lanes.candidates:
            self.health.report("source", ready=True, detail="another process publishes updates", required=False)
            self.config.on_change(Features, _refuse_stream)
            self.lanes.start(tasks, {}, bytes)
            return _end_nothing
        if self.lanes.bus.shared:
            self.health.report("source", ready=True, detail="another server publishes updates", required=False)
            self.config.on_change(Features, _refuse_to_stop)
        ends: list[Callable[[], Awaitable[None]]] = []

        begun: list[asyncio.Task[object]] = []

        def begin(writer: Writer, note: bytes) -> None:
            work = partial(self._begin_updates, tasks, context, writer, note, ends)
            begun.append(tasks.start("ingest", "begin", work))

        self.lanes.start(tasks, {"ingest": begin}, self._checkpoint)

        async def end() -> None:
            if begun:
                await asyncio.wait(begun)
            for each in ends:
                await each()

        return end

    async def _begin_updates(
        self,
        tasks: Supervisor,
        context: Context,
        writer: Writer,
        note: bytes,
        ends: list[Callable[[], Awaitable[None]]],
    ) -> None:
        """Publish updates from now on. After another server, continue where that server stopped."""
        if self.lanes.bus.shared:
            self.stream.resume(read_note(note))
            self.pipeline.known = await events_of_late(self.bus, self.clock)
            if self._history is not None:
                self._history.feed.resume()
        elif self._keeper is not None:
            await self._keeper.restore(self.stream)
        flow = tasks.start("ingest", "pipeline", partial(self.pipeline.run, self._outlet, writer))
        self._intake, recording = self._tap(tasks)
        intake = self._intake
        lookup = self._look_up_pools(tasks, intake)
        switch = tasks.start("source", "switch", partial(self.stream.follow, tasks, context, intake))
        watching = [switch, *lookup]
        if self._keeper is not None:
            keep = partial(self._keeper.run, self.stream, intake)
            watching.append(tasks.start("checkpoints", "save", keep, restart=Backoff(0.2, 5.0)))

        async def end() -> None:
            for task in watching:
                task.cancel()
            await self.stream.end()
            intake.close()
            await asyncio.wait([flow, *recording], timeout=FLOW_S)
            if len(self._outlet) or len(intake):
                _log.warning("updates_left_out", updates=len(self._outlet) + (len(intake) if recording else 0))

        ends.append(end)

    def _checkpoint(self) -> bytes:
        """Return how far updates are published, for the server that publishes them after this one."""
        return msgspec.json.encode(self._read_reached())

    def _read_reached(self) -> Mapping[str, Mapping[str, int]]:
        """Return source → feed → the slot up to which everything is published."""
        published = self.pipeline.published
        received = (self._outlet if self._intake is None else self._intake).received
        if published >= self._asked_at:  # everything that the sources had delivered by then is published
            self._reached = self._asked
            self._asked, self._asked_at = self._covered(), received
        if published == received:
            self._reached = self._covered()
        return self._reached

    def _covered(self) -> Mapping[str, Mapping[str, int]]:
        """Return source → feed → the slot up to which everything is delivered or declared, and confirmed.

        Slots that are not confirmed are read again by the next leader, which can't know otherwise whether a fork
        retracts them.
        """
        confirmed = self.pipeline.head["confirmed"]
        return {
            source: {feed: slot if confirmed is None else min(slot, confirmed) for feed, slot in feeds.items()}
            for source, feeds in self.stream.covered.items()
        }

    async def _lend(self, stack: contextlib.AsyncExitStack) -> Context:
        """Return the context for adapters. Tasks that they leave behind are cancelled once all adapters are closed."""
        self._lent = tasks = await stack.enter_async_context(Supervisor(self.clock))
        stack.callback(tasks.cancel)
        return Context(
            clock=self.clock,
            metrics=self.metrics,
            health=self.health,
            tasks=tasks,
            rpc=self.rpc,
            programs=lambda: self.programs,
            resolve=self.resolve,
            generation=self._generation,
            accounts=FollowedAccounts(self.stream, self.pipeline.consumers),
        )

    async def _open_bus(self, stack: contextlib.AsyncExitStack, context: Context) -> None:
        """Open the bus and the cache that the settings name, and become the writer of this process's lanes.

        The cache contains the state of the updates that this process publishes, or that it gets from a shared bus.
        """
        config, registers = self.config, self._registers
        kind = registers.bus_kind(config)
        if self._play and kind == "redis":
            kind = "memory"  # a recording is played for this process alone
        self.bus = await registers.buses.open(kind, config, context, key="bus.kind")
        stack.push_async_callback(self.bus.close)
        self.cache = await registers.caches.open(config.section(CacheSettings).kind, config, context, key="cache.kind")
        stack.push_async_callback(self.cache.close)
        shared, stream = self.bus.shared, config.section(Features).stream or self._play
        kind = kind if shared and kind in registers.clusters else "memory"
        cluster = await registers.clusters.open(kind, config, context, key="bus.kind")
        stack.push_async_callback(cluster.close)
        self.server_id, give_back = await asyncio.to_thread(partial(server_id_of, config, shared=shared))
        stack.callback(give_back)
        self.lanes = await Lanes.open(self.bus, cluster, config, self.clock, stream=stream)
        settings = config.section(ClusterSettings)
        self.members = new_members(self.lanes, context, settings, self.server_id, self._load)
        if shared or "ingest" in self.lanes.candidates:
            self.state = CacheFeed(self.bus, self.cache, await self.cache.claim(), self.clock, self.metrics)
        else:
            self.state = self.cache

    def _watch_parts(
        self, tasks: Supervisor, orders: OrderHalf | None, inbox: Inbox, history: HistoryHalf | None
    ) -> None:
        """Add all parts to the health checks that do not report themselves (sources, gateway, keys and recorder do)."""
        add = self.probes.add
        if orders is not None:
            orders.watch(self.probes, tasks)
        if history is not None:
            history.watch(self.probes)
        add("inbox", inbox.check)
        inbox.on_trouble = self.probes.trouble("inbox")
        add("bus", self.bus.check)
        add("cache", self._check_cache)
        add("pipeline", self.pipeline.check)
        if self.bus.shared:
            watch_members(self.members, self.probes)
        add("tasks", partial(_check_tasks, (tasks, self._lent)))
        written = files(self.config, self._registers, orders=orders is not None, inbox=not self._play)
        if history is not None and history.file is not None:
            written = [*written, history.file]
        add("disk", Disk(written).check)

    async def _check_cache(self, *, thorough: bool) -> None:
        await self.state.snapshot(ASKED_ONLY)

    def head(self) -> Head:
        """Return the newest slots that this process knows, for the heartbeats."""
        heard_at = self.pipeline.received_at
        lag_ms = None if heard_at is None else max(0, round((self.clock.monotonic() - heard_at) * 1000))
        return Head(**self.pipeline.head, upstream_lag_ms=lag_ms)

    def _newest_slot(self) -> int | None:
        return self.pipeline.head["processed"]

    async def _open_gateway(
        self, tasks: Supervisor, orders: OrderHalf | None, inbox: Inbox, history: HistoryHalf | None
    ) -> None:
        features, settings = self.config.section(Features), self.config.section(AuthSettings)
        auth = Authenticator(settings, self.clock, self.metrics, self.health) if settings.mode != "off" else None
        options = GatewayOptions(
            server_id=self.server_id,
            gateway=self.config.section(GatewaySettings),
            admission=self.config.section(AdmissionSettings),
            tls=self.config.section(TlsSettings),
            demo=self._play,
            dashboard=features.dashboard,
            expose_metrics=features.metrics,
        )
        context = GatewayContext(
            bus=self.bus,
            clock=self.clock,
            health=self.health,
            metrics=self.metrics,
            supervisor=tasks,
            head=self.head,
            cache=self.state,
            inbox=inbox,
            writers=self.lanes.writers,
            members=self.members,
            orders=orders.intake if orders is not None else None,
            history=history.history if history is not None else None,
            auth=auth,
        )
        self.gateway = Gateway(options, context)
        if orders is not None and self.gateway.order_streams is not None:
            orders.store.attach(self.gateway.order_streams.hear)
        await self.gateway.start()
        apply, admit = self.gateway.apply, self.gateway.admission.apply
        self.config.on_change(GatewaySettings, lambda _, new: apply(new))
        self.config.on_change(AdmissionSettings, lambda _, new: admit(new))

    async def _close_gateway(self) -> None:
        """Close the gateway if the tasks failed, so that clients go to another server at once."""
        if self.gateway is not None:
            await self.gateway.stop(0.0)

    def _load(self) -> Mapping[str, object]:
        """Return the counts of this server's clients, for other servers."""
        if self.gateway is None:
            return {}
        hub, users = self.gateway.hub, self.gateway.admission.users
        counts = {"connections": len(hub.clients), "users": len(users), "subscriptions": hub.subscriptions}
        host = self.config.section(GatewaySettings).host
        address = self.config.section(ClusterSettings).address or f"{host}:{self.gateway.port}"
        return {**counts, "address": address}

    def _audience(self) -> list[str]:
        return list(self.gateway.hub.topics()) if self.gateway is not None else []

    def _look_up_pools(self, tasks: Supervisor, intake: Outlet) -> list[asyncio.Task[object]]:
        """Start the look-up of the mints of pools, if trades may wait for it."""
        if self.pipeline.ask_pool is None:
            return []
        self._pools = open_pools(self.config, self.rpc, self.programs, intake, self.clock, self.metrics)
        return [tasks.start("pools", "look up", self._pools.run, restart=Backoff())]

    def _ask_pool(self, pool: str, program_id: str) -> None:
        if self._pools is not None:
            self._pools.ask(pool, program_id)

    def _tap(self, tasks: Supervisor) -> tuple[Outlet, list[asyncio.Task[object]]]:
        """Return the outlet for the sources' updates: the pipeline's outlet, or that of a recorder in front of it."""
        if self._record is None:
            return self._outlet, []
        intake = new_outlet("recorder")
        recorder = new_recorder(self._record, self.config, self.clock, self.health, registers=self._registers)
        return intake, [tasks.start("recorder", "run", partial(recorder.run, intake, self._outlet))]

    # Settings.

    async def _follow_config(self) -> None:
        """Apply changes made on SIGHUP or in a file, all or nothing."""
        for settings in self._registers.subscribed(self.config):
            self.config.on_change(type(settings), lambda _, new: self._check_subscriptions(new))
            self.config.on_change(type(settings), lambda _, new: self._warn_of_log_lines(new))
        self.config.on_change(CoreSettings, lambda _, new: log.set_level(new.log_level))
        paths = [*self.config.paths, *self.config.section(TlsSettings).paths()]
        paths += self.config.section(AuthSettings).paths()
        async with contextlib.aclosing(watch(paths, self.clock)) as changes:
            async for _ in changes:
                if self.gateway is not None:
                    await asyncio.to_thread(self.gateway.reload_certificate)
                    await self.gateway.reload_keys()
                change = self.config.reload(await asyncio.to_thread(self.config.read))
                for warning in change.warnings:
                    _log.warning("settings_warning", warning=warning)
                for error in change.errors:
                    _log.error("settings_refused", error=str(error), effect="the former settings stay in force")
                if change.needs_restart:
                    _log.warning("settings_need_restart", keys=", ".join(change.needs_restart))
                if change.applied:
                    _log.info("settings_applied", keys=", ".join(change.applied))

    def _check_subscriptions(self, settings: NodeSourceSettings) -> None:
        """Raise ConfigError for wrong subscriptions now, not only when the stream is switched on."""
        parse_all(settings.subscriptions, self.resolve)

    def _warn_of_log_lines(self, settings: NodeSourceSettings) -> None:
        """Log the subscriptions that deliver less than may be expected, and which kind would deliver the rest."""
        if self._play:
            return
        wanted = parse_all(settings.subscriptions, self.resolve)
        for lack in lacks_of((each.kind, self.programs.name_of(each.key)) for each in wanted):
            _log.warning("subscription_lacks_trades", **lack._asdict())

    def _say_what_is_missing(self) -> None:
        for warning in self.config.warnings:
            _log.warning("settings_warning", warning=warning)
        for warning in self.programs.warnings:
            _log.warning("idl_warning", warning=warning)
        core = self.config.section(CoreSettings)
        if (auth := self.config.section(AuthSettings)).mode == "off" and (auth.jwt_secret or auth.jwks_url):
            _log.warning("authentication_not_used", meaning="keys for tokens are set, but AUTH_MODE is off")
        if self._play:
            return
        kind = self._registers.bus_kind(self.config)
        if kind == "memory" and core.redis_url:
            _log.warning(
                "redis_not_used", meaning="REDIS_URL is set, but MESSAGE_BROKER_ENABLED or BUS_KIND says memory"
            )
        if kind == "redis" and not core.database_url:
            meaning = "orders and messages to users are in files of this server alone; DATABASE_URL shares them"
            _log.warning("database_not_shared", meaning=meaning)


def _refuse_stream(_: Features, new: Features) -> None:
    """Raise ConfigError if the stream is switched on in a process that does not publish updates."""
    if new.stream:
        expected = "off, or a restart with the lane ingest in BUS_LANES"
        raise ConfigError("features.stream", "on, where another process publishes updates", expected)


def _refuse_to_stop(_: Features, new: Features) -> None:
    """Raise ConfigError if the stream is switched off in a process that may be the one that publishes updates."""
    if not new.stream:
        raise ConfigError("features.stream", "off, while servers share a bus", "a restart with it off")


def read_note(note: bytes) -> Mapping[str, Mapping[str, int]]:
    """Return the progress that a `Service` recorded in `note`; empty without a note, or if another version wrote it."""
    try:
        return msgspec.json.decode(note, type=dict[str, dict[str, int]])
    except msgspec.DecodeError:
        return {}


async def _end_nothing() -> None:
    """Do nothing: this process has no flow of updates."""


async def _check_tasks(groups: Sequence[Supervisor], *, thorough: bool) -> None:
    """Raise TransientError while a task has failed and waits to be started again."""
    if failing := {name: error for tasks in groups for name, error in tasks.failing().items()}:
        raise TransientError("failed, and begin again: " + "; ".join(f"{name}: {it}" for name, it in failing.items()))
