"""One server process: sources → pipeline → bus → gateway, and orders. Composes all parts and ends them in order."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import structlog

from headrace.adapters import Context
from headrace.bus import Bus
from headrace.cache import Cache, CacheSettings, Snapshots
from headrace.cache.feed import CacheFeed
from headrace.cluster import ClusterSettings
from headrace.cluster.members import Members
from headrace.config import Config, Features
from headrace.cores import open_core
from headrace.gateway.auth.authenticator import Authenticator
from headrace.gateway.auth.settings import AuthSettings
from headrace.gateway.broadcasts import Broadcasts, announce_nothing
from headrace.gateway.channel import Channel
from headrace.gateway.context import GatewayContext, GatewayOptions
from headrace.gateway.server import Gateway
from headrace.gateway.settings import AdmissionSettings, GatewaySettings, TlsSettings
from headrace.inbox import Inbox
from headrace.model.errors import TransientError
from headrace.protocol.frames import Head
from headrace.runtime.clock import Clock, SystemClock
from headrace.runtime.disk import Disk
from headrace.runtime.health import Health
from headrace.runtime.health_measures import HealthMeasures
from headrace.runtime.metrics import Metrics
from headrace.runtime.probes import Probes
from headrace.runtime.supervise import Supervisor
from headrace.service.checkpoints import enter_checkpoints
from headrace.service.flow import UpdateFlow
from headrace.service.history import END_S, HistoryHalf, enter_history
from headrace.service.orders import OrderHalf, enter_inbox, enter_orders, files
from headrace.service.reload import LiveSettings
from headrace.service.settings import REGISTERS, ProgramSettings, Registers
from headrace.service.shared import Lanes, new_members, server_id_of
from headrace.service.shared import watch as watch_members
from headrace.service.stream import Choice, FollowedAccounts, OpenSource, chosen
from headrace.service.updates import load_programs, new_resolver, open_rpc
from headrace.sources.recording import RecorderSettings

DRAIN_S: Final = 10.0
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
        self._settings = LiveSettings(config, registers, self.programs, self.resolve, play=play)
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
        self.rpc = open_rpc(config, self.clock, registers)
        self.gateway: Gateway | None = None
        self.started = asyncio.Event()
        """Set once everything runs and, if the gateway is on, its port is open."""
        self._play, self._take_orders = play, orders
        self._registers, self._generation = registers, generation or secrets.token_hex(4)
        self.flow = UpdateFlow(
            config,
            self.clock,
            self.metrics,
            self.health,
            programs=self.programs,
            core=core,
            rpc=self.rpc,
            registers=registers,
            sources=[Choice(source)] if source is not None else chosen(config, registers),
            audience=self._audience,
            record=record or (Path(name) if (name := config.section(RecorderSettings).file) else None),
            play=play,
        )
        self.pipeline, self.stream = self.flow.pipeline, self.flow.stream

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set.

        Then the sources end first, their updates are delivered, and the gateway ends last.
        """
        self._settings.report()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.rpc.aclose)
            listener = None
            if self.config.section(Features).gateway:  # before the databases, which a second server must not open
                listener = stack.enter_context(Gateway.bind(self.config.section(GatewaySettings)))
            context = await self._lend(stack)
            await self._open_bus(stack, context)
            orders = None
            if self._take_orders:
                orders = await enter_orders(stack, self.config, context, self._registers)
            inbox = await enter_inbox(stack, self.config, context, self._registers, keep=not self._play)
            history = None
            if self.config.section(Features).history and "ingest" in self.lanes.candidates:
                parts = (self.config, context, self._registers, self.lanes.writers["ingest"], self._audience)
                history = await enter_history(stack, *parts, keep=not self._play, shared=self.lanes.bus.shared)
            keeper = None
            if "ingest" in self.lanes.candidates and not self._play and not self.lanes.bus.shared:
                keeper = await enter_checkpoints(
                    stack, self.config, context, self._registers, self.probes, self.flow.progress
                )
            if keeper is not None and history is not None:
                keeper.follow(history.feed)
            stack.push_async_callback(self._close_gateway)
            tasks = await stack.enter_async_context(Supervisor(self.clock))
            if orders is not None:
                facts = self.pipeline.consumers if "ingest" in self.lanes.candidates else None
                orders.start(tasks, self.metrics, facts, self.lanes.writers.get("orders"), self._newest_slot)
                if not self.lanes.bus.shared and self.config.section(Features).gateway:
                    orders.start_quotes(tasks, self.metrics, self.lanes.writers.get("orders"))
            if isinstance(self.state, CacheFeed):
                tasks.start("cache", "feed", self.state.run)
            self._watch_parts(tasks, orders, inbox, history)
            end_history = None if history is None else history.start(tasks, self.pipeline.consumers)
            channel = self._open_channel(tasks, inbox)
            if listener is not None:
                await self._open_gateway(tasks, listener, orders, inbox, history, channel)
            if orders is not None:
                _log.info("orders_on", **orders.kept)
            follow = partial(self._settings.follow, self.clock, self.gateway)
            background = [tasks.start("config", "watch", follow)]
            end_updates = self.flow.start(tasks, context, self.lanes, history=history, keeper=keeper)
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
            if history is not None and end_history is not None:
                await asyncio.wait([end_history()], timeout=END_S)
                await history.release()
            await self.lanes.release()
            if self.lanes.bus.shared:
                await self.members.leave()
            if keeper is not None:
                await keeper.finish()
            if self.gateway is not None:
                await self.gateway.stop(DRAIN_S)
            tasks.cancel()

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

    def _open_channel(self, tasks: Supervisor, inbox: Inbox) -> Channel | None:
        """Return the channel for other programs; None if this server is alone."""
        if not self.lanes.bus.shared:
            return None
        sender = Broadcasts(self.lanes.writers, inbox, self.server_id, lambda: self.members.names)
        leads = partial(self.lanes.has, "broadcasts")
        channel = Channel(self.lanes.cluster, sender, self.server_id, leads, self.clock, self.metrics)
        channel.start(tasks)
        return channel

    async def _open_gateway(
        self,
        tasks: Supervisor,
        listener: socket.socket,
        orders: OrderHalf | None,
        inbox: Inbox,
        history: HistoryHalf | None,
        channel: Channel | None,
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
            quotes=orders.quotes if orders is not None else None,
            history=history.history if history is not None else None,
            auth=auth,
            announce=announce_nothing if channel is None else channel.announce,
        )
        self.gateway = Gateway(options, context)
        if orders is not None and self.gateway.order_streams is not None:
            orders.store.attach(self.gateway.order_streams.hear)
        await self.gateway.start(listener)
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


async def _check_tasks(groups: Sequence[Supervisor], *, thorough: bool) -> None:
    """Raise TransientError while a task has failed and waits to be started again."""
    if failing := {name: error for tasks in groups for name, error in tasks.failing().items()}:
        raise TransientError("failed, and begin again: " + "; ".join(f"{name}: {it}" for name, it in failing.items()))
