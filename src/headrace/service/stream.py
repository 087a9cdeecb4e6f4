"""The stream of updates into the service, which is switched off and on, and changed, while all other parts run."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import structlog
from msgspec.structs import replace

from headrace.adapters import Context, Cover
from headrace.config import Config, Features
from headrace.model.facts import News
from headrace.model.updates import Commitment
from headrace.runtime.sinks import Sinks
from headrace.runtime.supervise import Supervisor
from headrace.service.settings import REGISTERS, Registers
from headrace.sources import NOTHING_COVERED, Outlet, Source
from headrace.sources.endpoints import EndpointSource
from headrace.sources.settings import NodeSourceSettings

_log = structlog.get_logger("stream")

OpenSource: TypeAlias = Callable[[Context], Awaitable[Source]]


class Choice(NamedTuple):
    """A source that the service has: how to open it, and its settings if it has subscriptions."""

    open: OpenSource
    settings: type[NodeSourceSettings] | None = None


def chosen(config: Config, registers: Registers = REGISTERS) -> list[Choice]:
    """Return the sources that the settings name."""
    found = []
    for kind in registers.kinds(config):
        settings = registers.sources.adapter(kind).Settings
        subscribed = settings if issubclass(settings, NodeSourceSettings) else None
        found.append(Choice(partial(registers.sources.open, kind, config, key="sources.kinds"), subscribed))
    return found


class Stream:
    """Runs all chosen sources while `[features] stream` is on.

    Each time the stream is switched on, they are opened again.
    Everything that happens on the chain while the stream is off is a gap like any other: the next source of a choice
    learns which slots the last one covered. All sources put their updates on one outlet.
    """

    def __init__(self, config: Config, choices: Sequence[Choice]) -> None:
        self._config = config
        self._sources = [_Switched(choice, config) for choice in choices]
        self._on = False

    async def follow(self, tasks: Supervisor, context: Context, outlet: Outlet) -> None:
        """Follow `[features] stream`, and the subscriptions, as they change. Returns only when cancelled."""
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

    @property
    def commitment(self) -> Commitment:
        """The lowest commitment of the sources."""
        chosen = {source.settings.commitment for source in self._sources if source.settings is not None}
        levels: tuple[Commitment, ...] = ("processed", "confirmed", "finalized")
        return next((level for level in levels if level in chosen), "processed")

    def follow_accounts(self, keys: Collection[str]) -> None:
        """Subscribe to these accounts at all sources, in addition to the subscriptions of the settings."""
        for source in self._sources:
            source.follow_accounts(keys)

    def covers(self, key: str) -> list[Cover]:
        """Return the slots that each live connection covers of a followed account."""
        return [cover for source in self._sources for cover in source.covers(key)]

    @property
    def covered(self) -> dict[str, dict[str, int]]:
        """Source → feed → the slot up to which everything is known to be delivered or declared."""
        return {name: dict(covered) for each in self._sources for name, covered in [each.covered] if covered}

    def resume(self, covered: Mapping[str, Mapping[str, int]]) -> None:
        """Continue where the sources of another process stopped. `covered` is that process's record."""
        for source in self._sources:
            source.resumed = covered

    @property
    def resumed_at(self) -> int | None:
        """The lowest slot from which the sources continue those of another process; None if a source does not."""
        slots = [source.resumed_at for source in self._sources]
        return None if None in slots else min(filter(None, slots), default=None)

    async def end(self) -> None:
        """End the running sources. Return once all have ended."""
        self._on = False
        await asyncio.gather(*[source.end() for source in self._sources])


class FollowedAccounts:
    """The stream as adapters see it (`AccountFeed`)."""

    def __init__(self, stream: Stream, facts: Sinks[News]) -> None:
        self._stream = stream
        self.attach = facts.attach
        self.follow = stream.follow_accounts
        self.covers = stream.covers

    @property
    def commitment(self) -> Commitment:
        """The commitment at which the stream brings accounts."""
        return self._stream.commitment


class _Switched:
    """One choice, and its running source, if there is one."""

    def __init__(self, choice: Choice, config: Config) -> None:
        self.choice, self._config = choice, config
        self._accounts: tuple[str, ...] = ()
        self._covered: Mapping[str, int] = NOTHING_COVERED
        """Feed → the slot up to which earlier sources delivered or declared everything."""
        self.resumed: Mapping[str, Mapping[str, int]] = {}
        """Source → feed → the slot up to which another process covered it."""
        self.resumed_at: int | None = None
        """The lowest slot from which the source continues that of another process."""
        self._name = ""
        self._source: Source | None = None
        self._running: asyncio.Task[object] | None = None
        self._forget: Callable[[str], None] = lambda _: None

    @property
    def covered(self) -> tuple[str, Mapping[str, int]]:
        """The name of the source, and feed → the slot up to which it and earlier sources covered the feed."""
        return self._name, self._covered if self._source is None else self._source.covered

    def start(self, tasks: Supervisor, context: Context, outlet: Outlet) -> None:
        self._forget = context.health.forget
        self._running = tasks.start("source", "run", partial(self._run, context, outlet))

    async def end(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait([running])
        source = self._source
        if source is not None:
            self._covered, self._source = source.covered, None
            self._forget(f"source:{source.name}")

    def subscribe(self, _old: NodeSourceSettings, new: NodeSourceSettings) -> None:
        """Change the subscriptions of the running source. Raises ConfigError like `Source.update_subscriptions`."""
        wanted = (*new.subscriptions, *self._accounts)
        if isinstance(self._source, EndpointSource):
            self._source.update_settings(replace(new, subscriptions=wanted))
        elif self._source is not None:
            self._source.update_subscriptions(wanted)

    @property
    def settings(self) -> NodeSourceSettings | None:
        """The settings in force; None for a source without subscriptions."""
        return None if self.choice.settings is None else self._config.section(self.choice.settings)

    def follow_accounts(self, keys: Collection[str]) -> None:
        """Subscribe to these accounts too, now and whenever the source is opened."""
        self._accounts = tuple(f"account:{key}" for key in keys)
        if (settings := self.settings) is not None:
            self.subscribe(settings, settings)

    def covers(self, key: str) -> list[Cover]:
        """Return the slots that each connection of the running source covers of an account."""
        stream = self._source.stream if isinstance(self._source, EndpointSource) else None
        if stream is None:
            return []
        progress = [connection.progress for connection in stream.connections.values()]
        found = [(each.first(f"account:{key}"), each.head) for each in progress]
        return [Cover(first, head - 1) for first, head in found if first is not None]

    async def _run(self, context: Context, outlet: Outlet) -> None:
        health = context.health
        self._source = source = await self.choice.open(context)
        self._name, name = source.name, f"source:{source.name}"
        if not self._covered and (resumed := self.resumed.get(source.name)):
            self._covered, self.resumed_at = resumed, min(resumed.values())
        if self._accounts and (settings := self.settings) is not None:
            self.subscribe(settings, settings)
        if name not in health.components():
            health.report(name, ready=True, detail="running")
        ending = await source.run(outlet, self._covered)
        health.report(name, ready=ending.how != "failed", detail=f"{ending.how} {ending.detail}".strip())
        if ending.how == "failed":
            _log.error("source_failed", source=source.name, detail=ending.detail)
