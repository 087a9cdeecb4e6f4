"""The stream of updates into the service: switched off and on, and changed, while all other parts run."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import structlog

from headrace.adapters import Context
from headrace.config import Config, Features
from headrace.runtime.supervise import Supervisor
from headrace.service.settings import REGISTERS, Registers
from headrace.sources import NOTHING_COVERED, Outlet, Source
from headrace.sources.endpoints import EndpointSource
from headrace.sources.settings import NodeSourceSettings

_log = structlog.get_logger("stream")

OpenSource: TypeAlias = Callable[[Context], Awaitable[Source]]


class Choice(NamedTuple):
    """A source that the service has: how to open it, its settings if it has subscriptions, its name in the register.

    Without a name no checkpoint is kept.
    """

    open: OpenSource
    settings: type[NodeSourceSettings] | None = None
    kind: str = ""


def chosen(config: Config, registers: Registers = REGISTERS) -> list[Choice]:
    """Return the sources that the settings name."""
    found = []
    for kind in registers.kinds(config):
        settings = registers.sources.adapter(kind).Settings
        subscribed = settings if issubclass(settings, NodeSourceSettings) else None
        found.append(Choice(partial(registers.sources.open, kind, config, key="sources.kinds"), subscribed, kind))
    return found


class Stream:
    """Runs all chosen sources while `[features] stream` is on. Each time they are opened again.

    What happens on the chain while the stream is off is a gap like any other: the next source of a choice learns which
    slots the last one covered. All sources put their updates on one outlet.
    """

    def __init__(self, config: Config, choices: Sequence[Choice]) -> None:
        self._config = config
        self._sources = [_Switched(choice) for choice in choices]
        self._on = False

    def restore(self, found: Mapping[str, Mapping[str, int]]) -> int | None:
        """Let the sources continue where those of an earlier process ended; return the lowest slot, None without any.

        `found` is kind → feed → slot. Call this before `follow`.
        """
        for source in self._sources:
            source.restore(found.get(source.choice.kind, NOTHING_COVERED))
        return min([slot for covered in self.checkpoints().values() for slot in covered.values()], default=None)

    def checkpoints(self) -> dict[str, Mapping[str, int]]:
        """Return kind → feed → slot, as of now: see `Source.checkpoint`."""
        return {source.choice.kind: source.checkpoint for source in self._sources if source.choice.kind}

    async def follow(self, tasks: Supervisor, context: Context, outlet: Outlet) -> None:
        """Follow `[features] stream`, and the subscriptions, as they change; return only when cancelled."""
        changed = asyncio.Event()
        self._config.on_change(Features, lambda _old, _new: changed.set())
        for source in self._sources:
            if source.choice.settings is not None:
                self._config.on_change(source.choice.settings, source.subscribe)
        while True:
            wanted = self._config.section(Features).stream
            if wanted and not self._on:
                self._on = True
                context.health.forget("source")
                for source in self._sources:
                    source.start(tasks, context, outlet)
            elif not wanted:
                await self.end()
                context.health.report("source", ready=True, detail="switched off", required=False)
            await changed.wait()
            changed.clear()

    async def end(self) -> None:
        """End the running sources; return once all have ended."""
        self._on = False
        await asyncio.gather(*[source.end() for source in self._sources])


class _Switched:
    """One choice, and its running source, if there is one."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self._covered: Mapping[str, int] = NOTHING_COVERED
        """Feed → the slot up to which earlier sources delivered or declared everything."""
        self._checkpoint: Mapping[str, int] = NOTHING_COVERED
        self._source: Source | None = None
        self._running: asyncio.Task[object] | None = None
        self._forget: Callable[[str], None] = lambda _: None

    @property
    def checkpoint(self) -> Mapping[str, int]:
        return self._checkpoint if self._source is None else self._source.checkpoint

    def restore(self, covered: Mapping[str, int]) -> None:
        self._covered = self._checkpoint = covered

    def start(self, tasks: Supervisor, context: Context, outlet: Outlet) -> None:
        self._forget = context.health.forget
        self._running = tasks.start("source", "run", partial(self._run, context, outlet))

    async def end(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait([running])
        source, self._source = self._source, None
        if source is not None:
            self._forget(f"source:{source.name}")
            self._covered, self._checkpoint = source.covered, source.checkpoint

    def subscribe(self, _old: NodeSourceSettings, new: NodeSourceSettings) -> None:
        """Change the subscriptions of the running source. Raises ConfigError as `Source.update_subscriptions` does."""
        if isinstance(self._source, EndpointSource):
            self._source.update_settings(new)
        elif self._source is not None:
            self._source.update_subscriptions(new.subscriptions)

    async def _run(self, context: Context, outlet: Outlet) -> None:
        health = context.health
        self._source = source = await self.choice.open(context)
        name = f"source:{source.name}"
        if name not in health.components():
            health.report(name, ready=True, detail="running")
        ending = await source.run(outlet, self._covered)
        health.report(name, ready=ending.how != "failed", detail=f"{ending.how} {ending.detail}".strip())
        if ending.how == "failed":
            _log.error("source_failed", source=source.name, detail=ending.detail)
