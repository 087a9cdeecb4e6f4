"""The stream of updates into the service: switched off and on, and changed, while everything else goes on."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from headrace.config import Config, Features
from headrace.runtime.health import Health
from headrace.runtime.supervise import Supervisor
from headrace.sources import NOTHING_COVERED, Outlet, Source
from headrace.sources.rpc_pubsub import RpcPubSubSettings

_log = structlog.get_logger("stream")


class Stream:
    """Runs a source while `[features] stream` says so, a new one from `make_source` each time.

    What happens on the chain while it is off is a gap like any other: the next source learns how far the last one came.
    """

    def __init__(self, config: Config, health: Health, make_source: Callable[[], Source]) -> None:
        self._covered: Mapping[str, int] = NOTHING_COVERED
        """Feed → the slot up to which earlier sources brought or declared everything."""
        self._config, self._health, self._make_source = config, health, make_source
        self._source: Source | None = None
        self._running: asyncio.Task[object] | None = None

    async def follow(self, tasks: Supervisor, outlet: Outlet) -> None:
        """Follow `[features] stream`, and the subscriptions, as they change; for ever."""
        changed = asyncio.Event()
        self._config.on_change(Features, lambda _old, _new: changed.set())
        self._config.on_change(RpcPubSubSettings, self._resubscribe)
        while True:
            wanted = self._config.section(Features).stream
            if wanted and self._running is None:
                self._running = tasks.start("source", "run", partial(self._run, outlet))
            elif not wanted:
                await self.end()
                self._health.report("source", ready=True, detail="switched off", required=False)
            await changed.wait()
            changed.clear()

    async def end(self) -> None:
        """End the source, if one runs; returns when it has ended."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait([running])
        source, self._source = self._source, None
        if source is not None:
            self._health.forget(f"source:{source.name}")
            self._covered = source.covered

    async def _run(self, outlet: Outlet) -> None:
        self._source = source = self._make_source()
        self._health.forget("source")
        name = f"source:{source.name}"
        if name not in self._health.components():
            self._health.report(name, ready=True, detail="running")
        ending = await source.run(outlet, self._covered)
        self._health.report(name, ready=ending.how != "failed", detail=f"{ending.how} {ending.detail}".strip())
        if ending.how == "failed":
            _log.error("source_failed", source=source.name, detail=ending.detail)

    def _resubscribe(self, _old: RpcPubSubSettings, new: RpcPubSubSettings) -> None:
        if self._source is not None:
            self._source.update_subscriptions(new.subscriptions)
