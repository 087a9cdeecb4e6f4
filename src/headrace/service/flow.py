"""The flow of updates from the sources to the bus: begun once this process may publish, continued, ended in order."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import structlog

from headrace.adapters import Context
from headrace.bus import Writer
from headrace.config import Config, Features
from headrace.cores import Core
from headrace.decoders.registry import Programs
from headrace.ingest.pipeline import Pipeline
from headrace.model.errors import ConfigError
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.service.checkpoints import CheckpointKeeper
from headrace.service.history import HistoryHalf
from headrace.service.settings import Registers
from headrace.service.shared import Lanes, events_of_late
from headrace.service.stream import Choice, Stream
from headrace.service.updates import new_outlet, new_recorder, open_market, open_pools
from headrace.solana.rpc import Rpc
from headrace.sources import Outlet
from headrace.sources.pools import PoolLookup, PoolSettings

FLOW_S: Final = 3.0
"""Maximum time in seconds, at the end, for publishing what the source has delivered.

It is too short only if very many updates wait.
"""

Progress: TypeAlias = Mapping[str, Mapping[str, int]]
"""Source → feed → the slot up to which everything is published."""

_log = structlog.get_logger("app")


class UpdateFlow:
    """The pipeline, the stream of sources in front of it, and how far the updates are published.

    - `sources`: the sources of the stream.
    - `audience`: returns the topics with subscribers.
    - `record`: the file in which all updates are recorded before the pipeline takes them.
    - `play`: the updates are a recording's. No node is asked for the mints of pools.
    """

    def __init__(
        self,
        config: Config,
        clock: Clock,
        metrics: Metrics,
        health: Health,
        *,
        programs: Programs,
        core: Core,
        rpc: Rpc,
        registers: Registers,
        sources: Sequence[Choice],
        audience: Callable[[], Collection[str]],
        record: Path | None,
        play: bool,
    ) -> None:
        self.pipeline = Pipeline(
            programs,
            clock,
            metrics,
            core=core,
            transfers=config.section(Features).transfers,
            audience=audience,
            market=open_market(config, metrics),
            ask_pool=None if play or not config.section(PoolSettings).lookup else self._ask_pool,
        )
        self.stream = Stream(config, sources)
        self._config, self._clock, self._metrics, self._health = config, clock, metrics, health
        self._programs, self._rpc, self._registers, self._record = programs, rpc, registers, record
        self._pools: PoolLookup | None = None
        self._outlet: Outlet = new_outlet("ingest")
        self._intake: Outlet | None = None
        self._reached: Progress = {}
        self._asked: Progress = {}
        self._asked_at = 0

    def start(
        self,
        tasks: Supervisor,
        context: Context,
        lanes: Lanes,
        *,
        history: HistoryHalf | None,
        keeper: CheckpointKeeper | None,
    ) -> Callable[[], Awaitable[None]]:
        """Start the flow, if this process publishes updates. Return a function that ends the flow in order."""
        if "ingest" not in lanes.candidates:
            self._health.report("source", ready=True, detail="another process publishes updates", required=False)
            self._config.on_change(Features, _refuse_stream)
            lanes.start(tasks, {}, bytes)
            return _end_nothing
        if lanes.bus.shared:
            self._health.report("source", ready=True, detail="another server publishes updates", required=False)
            self._config.on_change(Features, _refuse_to_stop)
        ends: list[Callable[[], Awaitable[None]]] = []

        begun: list[asyncio.Task[object]] = []

        async def resume(note: bytes) -> None:
            if lanes.bus.shared:
                self.stream.resume(read_note(note))
                self.pipeline.known = await events_of_late(lanes.bus, self._clock)
                if history is not None:
                    await history.take(is_first=not note)
            elif keeper is not None:
                await keeper.restore(self.stream)

        def begin(writer: Writer, note: bytes) -> None:
            work = partial(self._begin, tasks, context, writer, ends, resume=partial(resume, note), keeper=keeper)
            begun.append(tasks.start("ingest", "begin", work))

        lanes.start(tasks, {"ingest": begin}, self._note)

        async def end() -> None:
            if begun:
                await asyncio.wait(begun)
            for each in ends:
                await each()

        return end

    async def _begin(
        self,
        tasks: Supervisor,
        context: Context,
        writer: Writer,
        ends: list[Callable[[], Awaitable[None]]],
        *,
        resume: Callable[[], Awaitable[None]],
        keeper: CheckpointKeeper | None,
    ) -> None:
        """Publish updates from now on. Continue where the updates stopped that `resume` knows of."""
        await resume()
        flow = tasks.start("ingest", "pipeline", partial(self.pipeline.run, self._outlet, writer))
        self._intake, recording = self._tap(tasks)
        intake = self._intake
        lookup = self._look_up_pools(tasks, intake)
        switch = tasks.start("source", "switch", partial(self.stream.follow, tasks, context, intake))
        watching = [switch, *lookup]
        if keeper is not None:
            keep = partial(keeper.run, self.stream, intake)
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

    def _note(self) -> bytes:
        """Return how far updates are published, for the server that publishes them after this one."""
        return msgspec.json.encode(self.progress())

    def progress(self) -> Progress:
        """Return source → feed → the slot up to which everything is published."""
        published = self.pipeline.published
        received = (self._outlet if self._intake is None else self._intake).received
        if published >= self._asked_at:  # everything that the sources had delivered by then is published
            self._reached = self._asked
            self._asked, self._asked_at = self._covered(), received
        if published == received:
            self._reached = self._covered()
        return self._reached

    def _covered(self) -> Progress:
        """Return source → feed → the slot up to which everything is delivered or declared, and confirmed.

        Slots that are not confirmed are read again by the next leader, which can't know otherwise whether a fork
        retracts them.
        """
        confirmed = self.pipeline.head["confirmed"]
        return {
            source: {feed: slot if confirmed is None else min(slot, confirmed) for feed, slot in feeds.items()}
            for source, feeds in self.stream.covered.items()
        }

    def _look_up_pools(self, tasks: Supervisor, intake: Outlet) -> list[asyncio.Task[object]]:
        """Start the look-up of the mints of pools, if trades may wait for it."""
        if self.pipeline.ask_pool is None:
            return []
        self._pools = open_pools(self._config, self._rpc, self._programs, intake, self._clock, self._metrics)
        return [tasks.start("pools", "look up", self._pools.run, restart=Backoff())]

    def _ask_pool(self, pool: str, program_id: str) -> None:
        if self._pools is not None:
            self._pools.ask(pool, program_id)

    def _tap(self, tasks: Supervisor) -> tuple[Outlet, list[asyncio.Task[object]]]:
        """Return the outlet for the sources' updates: the pipeline's outlet, or that of a recorder in front of it."""
        if self._record is None:
            return self._outlet, []
        intake = new_outlet("recorder")
        recorder = new_recorder(self._record, self._config, self._clock, self._health, registers=self._registers)
        return intake, [tasks.start("recorder", "run", partial(recorder.run, intake, self._outlet))]


def _refuse_stream(_: Features, new: Features) -> None:
    """Raise ConfigError if the stream is switched on in a process that does not publish updates."""
    if new.stream:
        expected = "off, or a restart with the lane ingest in BUS_LANES"
        raise ConfigError("features.stream", "on, where another process publishes updates", expected)


def _refuse_to_stop(_: Features, new: Features) -> None:
    """Raise ConfigError if the stream is switched off in a process that may be the one that publishes updates."""
    if not new.stream:
        raise ConfigError("features.stream", "off, while servers share a bus", "a restart with it off")


def read_note(note: bytes) -> Progress:
    """Return the progress that `note` holds; empty without a note, or if another version wrote it."""
    try:
        return msgspec.json.decode(note, type=dict[str, dict[str, int]])
    except msgspec.DecodeError:
        return {}


async def _end_nothing() -> None:
    """Do nothing: this process has no flow of updates."""
