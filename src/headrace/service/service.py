"""Joins the rooms to one service: sources → pipeline → bus → gateway, orders beside them; and ends them in order."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec
import structlog

from headrace.bus import BusSettings, Lane, Writer
from headrace.bus.lanes import claim_all
from headrace.bus.memory import MemoryBus
from headrace.cache import CacheSettings
from headrace.cache.feed import CacheFeed
from headrace.cache.memory import MemoryCache
from headrace.config import CORE_SECTIONS, Config, CoreSettings, Features
from headrace.gateway.auth.authenticator import Authenticator
from headrace.gateway.auth.settings import AuthSettings
from headrace.gateway.context import GatewayContext, GatewayOptions
from headrace.gateway.server import Gateway
from headrace.gateway.settings import AdmissionSettings, GatewaySettings, TlsSettings
from headrace.inbox import Inbox, InboxSettings
from headrace.ingest.log_lines import lacks_of
from headrace.ingest.pipeline import Pipeline
from headrace.market import MarketSettings
from headrace.model.errors import TransientError
from headrace.protocol.frames import Head
from headrace.runtime import log
from headrace.runtime.backoff import Backoff
from headrace.runtime.breaker import Breaker
from headrace.runtime.clock import Clock, SystemClock
from headrace.runtime.disk import Disk
from headrace.runtime.health import Health
from headrace.runtime.health_measures import HealthMeasures
from headrace.runtime.metrics import Metrics
from headrace.runtime.probes import Probes
from headrace.runtime.supervise import Supervisor
from headrace.runtime.watch import watch
from headrace.service import orders as assembly
from headrace.service.orders import OrderHalf, enter_inbox, enter_orders
from headrace.service.switch import Stream
from headrace.service.updates import (
    COMMCOIN,
    ProgramSettings,
    load_programs,
    new_outlet,
    new_recorder,
    open_market,
    open_pools,
    open_rpc,
)
from headrace.solana.rpc import RpcSettings
from headrace.sources import Outlet, Source
from headrace.sources.pools import PoolLookup, PoolSettings
from headrace.sources.recording import RecorderSettings
from headrace.sources.rpc_pubsub import RpcPubSub, RpcPubSubSettings
from headrace.sources.subscriptions import parse_all

DRAIN_S: Final = 10.0
FLOW_S: Final = 3.0
"""So long what the source has brought is still published at the end; only in a flood there is more."""

ASKED_ONLY: Final = "health"
"""A topic of which there is nothing: whether bus and cache answer is all that counts."""

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
    }
)
"""Owner of tasks → the part of the health board that is red when they don't do their work. A new owner belongs here."""

_log = structlog.get_logger("app")


SECTIONS: Final[Mapping[str, type[msgspec.Struct]]] = MappingProxyType(
    {
        **CORE_SECTIONS,
        "gateway": GatewaySettings,
        "admission": AdmissionSettings,
        "tls": TlsSettings,
        "auth": AuthSettings,
        "rpc_pubsub": RpcPubSubSettings,
        "rpc": RpcSettings,
        "pools": PoolSettings,
        "programs": ProgramSettings,
        "bus": BusSettings,
        "cache": CacheSettings,
        "inbox": InboxSettings,
        "market": MarketSettings,
        "recorder": RecorderSettings,
        **assembly.SECTIONS,
    }
)
"""The sections of `headrace.toml`; each room declares its own."""

SourceFactory = Callable[["Service"], Source]


class Service:
    """One process. Build it from a Config (which reads files), then `run` it on a loop until `stop` is set.

    `source` makes what feeds the pipeline; without one it is the configured nodes. `generation` begins the epochs of
    all topics: random for a live service, so that no client takes this life for an earlier one; a recording's id for a
    replay that must be the same each time. `play` is set for a service that plays a recording; it takes orders only if
    `orders` says so too, as its prices are of another day.
    """

    def __init__(
        self,
        config: Config,
        clock: Clock | None = None,
        *,
        source: SourceFactory | None = None,
        generation: str | None = None,
        record: Path | None = None,
        play: bool = False,
        orders: bool = True,
    ) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self.health, self.metrics = Health(self.clock), Metrics(process=True)
        self.metrics.registry.register(HealthMeasures(self.health))
        self.probes = Probes(self.health, self.clock)
        self.programs = load_programs(config)
        self._check_subscriptions(config.section(RpcPubSubSettings))
        self.bus = MemoryBus(config.section(BusSettings), self.clock, generation or secrets.token_hex(4))
        self.writers: Mapping[Lane, Writer] = {}
        """What this process publishes with, once it runs."""
        self.cache = MemoryCache(config.section(CacheSettings), self.metrics)
        self.state: CacheFeed | None = None
        self.pipeline = Pipeline(
            self.programs,
            self.clock,
            self.metrics,
            audience=self._audience,
            market=open_market(config, self.metrics),
            ask_pool=None if play or not config.section(PoolSettings).lookup else self._ask_pool,
        )
        self._pools: PoolLookup | None = None
        self.rpc = open_rpc(config, self.clock)
        self.gateway: Gateway | None = None
        self.started = asyncio.Event()
        """Set when everything runs and, with the gateway on, its port is open."""
        self._play, self._take_orders = play, orders
        self.stream = Stream(config, self.health, partial(source or open_nodes, self))
        self._record = record or (Path(name) if (name := config.section(RecorderSettings).file) else None)
        self._outlet: Outlet = new_outlet("ingest")

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`; then sources end first, what they brought is delivered, and the gateway ends last."""
        self._say_what_is_missing()
        self._warn_of_log_lines(self.config.section(RpcPubSubSettings))
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.rpc.aclose)
            stack.push_async_callback(self.bus.close)
            stack.push_async_callback(self.cache.close)
            orders = None
            if self._take_orders:
                orders = await enter_orders(stack, self.config, self.clock, self.metrics)
            inbox = await enter_inbox(stack, self.config, self.clock, keep=not self._play)
            self.writers = await claim_all(self.bus)
            self.state = CacheFeed(self.bus, self.cache, await self.cache.claim(), self.clock, self.metrics)
            tasks = await stack.enter_async_context(Supervisor(self.clock))
            if orders is not None:
                orders.start(tasks, self.metrics, self.pipeline.consumers, self.writers["orders"], self._newest_slot)
            tasks.start("cache", "feed", self.state.run)
            self._watch_parts(tasks, orders, inbox)
            if self.config.section(Features).gateway:
                await self._open_gateway(tasks, orders, inbox)
            if orders is not None:
                _log.info("orders_on", **orders.kept)
            flow = tasks.start("ingest", "pipeline", partial(self.pipeline.run, self._outlet, self.writers["ingest"]))
            intake, recording = self._tap(tasks)
            lookup = self._look_up_pools(tasks, intake)
            background = [
                tasks.start("config", "watch", self._follow_config),
                tasks.start("source", "switch", partial(self.stream.follow, tasks, intake)),
            ]
            await self.probes.ask_all()
            background.append(tasks.start("health", "probes", self.probes.run))
            self.started.set()
            await stop.wait()
            for task in (*background, *lookup):
                task.cancel()
            await self.stream.end()
            intake.close()
            await asyncio.wait([flow, *recording], timeout=FLOW_S)
            if len(self._outlet) or len(intake):
                _log.warning("updates_left_out", updates=len(self._outlet) + (len(intake) if recording else 0))
            if self.gateway is not None:
                await self.gateway.stop(DRAIN_S)
            tasks.cancel()

    def _watch_parts(self, tasks: Supervisor, orders: OrderHalf | None, inbox: Inbox) -> None:
        """Put on the health board whatever does not report by itself, as sources, gateway, keys and recorder do."""
        add = self.probes.add
        if orders is not None:
            orders.watch(self.probes, tasks)
        add("inbox", inbox.check)
        inbox.on_trouble = self.probes.trouble("inbox")
        add("bus", self._check_bus)
        add("cache", self._check_cache)
        add("pipeline", self.pipeline.check)
        add("tasks", partial(_check_tasks, tasks))
        add("disk", Disk(assembly.files(self.config, orders=orders is not None, inbox=not self._play)).check)

    async def _check_bus(self, *, thorough: bool) -> None:
        await self.bus.top(ASKED_ONLY)

    async def _check_cache(self, *, thorough: bool) -> None:
        if self.state is not None:
            await self.state.snapshot(ASKED_ONLY)

    def head(self) -> Head:
        """How far the chain is known here, for the heartbeats."""
        heard_at = self.pipeline.received_at
        lag_ms = None if heard_at is None else max(0, round((self.clock.monotonic() - heard_at) * 1000))
        return Head(**self.pipeline.head, upstream_lag_ms=lag_ms)

    def _newest_slot(self) -> int | None:
        return self.pipeline.head["processed"]

    def resolve(self, name: str) -> str:
        """A program's id by its name; KeyError for a name that nothing here has."""
        if name in self.programs.by_name:
            return self.programs.by_name[name].program_id
        if name == COMMCOIN:
            return self.config.section(CoreSettings).commcoin_program_id
        raise KeyError(name)

    async def _open_gateway(self, tasks: Supervisor, orders: OrderHalf | None, inbox: Inbox) -> None:
        features, settings = self.config.section(Features), self.config.section(AuthSettings)
        auth = Authenticator(settings, self.clock, self.metrics, self.health) if settings.mode != "off" else None
        options = GatewayOptions(
            server_id=self.config.section(CoreSettings).server_id,
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
            writers=self.writers,
            orders=orders.intake if orders is not None else None,
            auth=auth,
        )
        self.gateway = Gateway(options, context)
        if orders is not None and self.gateway.order_streams is not None:
            orders.store.attach(self.gateway.order_streams.hear)
        await self.gateway.start()
        apply, admit = self.gateway.apply, self.gateway.admission.apply
        self.config.on_change(GatewaySettings, lambda _, new: apply(new))
        self.config.on_change(AdmissionSettings, lambda _, new: admit(new))

    def _audience(self) -> list[str]:
        return list(self.gateway.hub.topics()) if self.gateway is not None else []

    def _look_up_pools(self, tasks: Supervisor, intake: Outlet) -> list[asyncio.Task[object]]:
        """Where trades may wait for the mints of their pool, somebody must ask for these."""
        if self.pipeline.ask_pool is None:
            return []
        self._pools = open_pools(self.config, self.rpc, self.programs, intake, self.clock, self.metrics)
        return [tasks.start("pools", "look up", self._pools.run, restart=Backoff())]

    def _ask_pool(self, pool: str, program_id: str) -> None:
        if self._pools is not None:
            self._pools.ask(pool, program_id)

    def _tap(self, tasks: Supervisor) -> tuple[Outlet, list[asyncio.Task[object]]]:
        """Where the source puts its updates: the pipeline's outlet, or the recorder before it."""
        if self._record is None:
            return self._outlet, []
        intake = new_outlet("recorder")
        recorder = new_recorder(self._record, self.config, self.clock, self.health)
        return intake, [tasks.start("recorder", "run", partial(recorder.run, intake, self._outlet))]

    # Settings.

    async def _follow_config(self) -> None:
        """Apply what changes on SIGHUP or in a file, all or nothing."""
        self.config.on_change(RpcPubSubSettings, lambda _, new: self._check_subscriptions(new))
        self.config.on_change(RpcPubSubSettings, lambda _, new: self._warn_of_log_lines(new))
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

    def _check_subscriptions(self, settings: RpcPubSubSettings) -> None:
        """Refuse wrong ones now, not when the stream is switched on. Raises ConfigError."""
        parse_all(settings.subscriptions, self.resolve)

    def _warn_of_log_lines(self, settings: RpcPubSubSettings) -> None:
        """Name the subscriptions that bring less than people expect, and the word that brings it."""
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
        core, features = self.config.section(CoreSettings), self.config.section(Features)
        if (auth := self.config.section(AuthSettings)).mode == "off" and (auth.jwt_secret or auth.jwks_url):
            _log.warning("authentication_not_used", meaning="keys for tokens are set, but AUTH_MODE is off")
        if features.broker or core.redis_url:
            _log.warning("redis_not_used", meaning="this version has the in-process bus only; one server, no sharing")


async def _check_tasks(tasks: Supervisor, *, thorough: bool) -> None:
    """Raise TransientError while a task has failed and waits to begin again."""
    if failing := tasks.failing():
        raise TransientError("failed, and begin again: " + "; ".join(f"{name}: {it}" for name, it in failing.items()))


def open_nodes(service: Service) -> Source:
    """The configured RPC PubSub endpoints."""
    settings = service.config.section(RpcPubSubSettings)
    return RpcPubSub(
        settings,
        clock=service.clock,
        metrics=service.metrics,
        health=service.health,
        rpc=service.rpc,
        resolve=service.resolve,
        breakers=[Breaker() for _ in settings.ws_urls],
    )
