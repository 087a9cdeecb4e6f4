"""Composes the history of a process that publishes updates: the store of facts, and the feed that writes them."""

import asyncio
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec
import structlog

from headrace.adapters import Context
from headrace.bus import Writer
from headrace.config import Config
from headrace.history import History, HistorySettings
from headrace.history.feed import HistoryFeed
from headrace.history.live import LiveCandles
from headrace.history.spill import Spill
from headrace.model.errors import TransientError
from headrace.model.facts import News
from headrace.runtime.probes import Probes
from headrace.runtime.sinks import Sinks
from headrace.runtime.supervise import Supervisor
from headrace.service.settings import Registers

END_S = 5.0
"""Seconds at the end in which waiting facts are still written."""

_log = structlog.get_logger("assembly")


@dataclass
class HistoryHalf:
    """History, its feed, and its live candles. `file` is the file that this process writes; None on a server."""

    history: History
    feed: HistoryFeed
    live: LiveCandles
    file: str | None

    def watch(self, probes: Probes) -> None:
        """Add the history to the health checks. A stream continues without it."""
        probes.add("history", self.feed.check, required=False)
        self.history.on_trouble = probes.trouble("history")

    def start(self, tasks: Supervisor, facts: Sinks[News]) -> Callable[[], "asyncio.Future[object]"]:
        """Begin to receive facts.

        Return a function that ends this in order and returns the task that is then ending.
        """
        detach = facts.attach(self.feed.hear)
        tasks.start("history", "candles", self.live.run)
        tasks.start("history", "spill", self.feed.spill)
        task = tasks.start("history", "write", self.feed.run)

        def end() -> asyncio.Future[object]:
            detach()
            self.feed.close()
            return task

        return end


async def enter_history(
    stack: AsyncExitStack,
    config: Config,
    context: Context,
    registers: Registers,
    writer: Writer,
    audience: Callable[[], Iterable[str]],
    *,
    keep: bool,
) -> HistoryHalf:
    """Return the history.

    Unless it is to be kept, it is emptied when a recording starts over, and its folder is deleted at the end.
    Live candles are published by `writer` on the candle topics in `audience`. A history that can't be opened now is
    opened later. Raises ConfigError for files of a newer version.
    """
    settings = config.section(HistorySettings)
    if not keep:
        folder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="headrace-history-")
        stack.push_async_callback(asyncio.to_thread, folder.cleanup)
        settings = msgspec.structs.replace(settings, database_url=None, file=f"{folder.name}/history.db")

    def not_open(error: TransientError) -> None:
        meaning = "facts wait, and are declared missing where they can't, until it can be opened, which is tried again"
        _log.error("history_not_open", error=str(error), meaning=meaning)

    patient = replace(context, patience=not_open)
    history = await registers.histories.open_with(
        settings, settings.place.kind, config, patient, key="core.database_url"
    )
    stack.push_async_callback(history.close)
    live = LiveCandles(history, writer, context.clock, audience)
    spill = await _open_spill(settings) if keep and settings.spill_bytes else None
    if spill is not None:
        stack.callback(spill.close)
    feed = HistoryFeed(
        history,
        context.clock,
        context.metrics,
        buffer_bytes=settings.buffer_bytes,
        spill=spill,
        empties=not keep,
        changed=live.changed,
    )
    return HistoryHalf(history, feed, live, settings.place.file)


async def _open_spill(settings: HistorySettings) -> Spill | None:
    """Return the file for facts that do not fit the memory; None if the file can't be used."""
    path = Path(f"{settings.file}-spill")
    try:
        return await asyncio.to_thread(partial(Spill, path, bytes_max=settings.spill_bytes))
    except (OSError, TransientError) as error:
        _log.warning("history_without_spill", file=str(path), error=str(error))
        return None
