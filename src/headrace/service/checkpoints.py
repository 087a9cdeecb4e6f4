"""Durable checkpoints of the sources, so that a restarted service fills or declares the time for which it was off."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

import structlog

from headrace.adapters import Context
from headrace.config import Config
from headrace.history.feed import HistoryFeed
from headrace.model.errors import TransientError
from headrace.model.updates import GapState, GapUpdate
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.runtime.probes import Probes
from headrace.service.settings import Registers
from headrace.service.stream import Stream
from headrace.sources import Outlet
from headrace.sources.checkpoints import Checkpoints, CheckpointSettings

LOOK_S: Final = 0.05
"""Seconds between looks at whether what came before a checkpoint is processed."""
LOAD_S: Final = 2.0
"""Longest time in seconds that a start waits for the checkpoints."""

_log = structlog.get_logger("assembly")


ReadReached: TypeAlias = Callable[[], Mapping[str, Mapping[str, int]]]
"""Returns source → feed → the slot up to which everything is published."""


class CheckpointKeeper:
    """Stores the checkpoints of the sources while they run, and restores them at the next start.

    A checkpoint is stored once the updates before it are published and, where there is a history, written there. A
    process that is killed therefore leaves a checkpoint that is too old rather than too new; what comes again is
    recognised by its event ids. If the stored checkpoints can't be read at the start, the sources start without them.
    As soon as they can be read, the slots in between are declared as gaps. Until then none is stored.
    """

    def __init__(self, store: Checkpoints, settings: CheckpointSettings, clock: Clock, read: ReadReached) -> None:
        self._store, self._settings, self._clock, self._reached = store, settings, clock, read
        self._saved: dict[str, Mapping[str, int]] = {}
        self._read = False
        self._history: HistoryFeed | None = None
        self._stream: Stream | None = None

    def follow(self, history: HistoryFeed) -> None:
        """Store a checkpoint only once this history has the facts before it."""
        self._history = history
        history.resumed_at = lambda: None if self._stream is None else self._stream.resumed_at

    async def restore(self, stream: Stream) -> None:
        """Give the stored checkpoints to the sources, which have not begun."""
        self._stream = stream
        backoff, deadline = Backoff(0.1, 1.0), self._clock.monotonic() + LOAD_S
        while not self._read:
            try:
                stream.resume(await self._store.load())
                self._read = True
            except TransientError as error:
                pause_s = backoff.next_s()
                if self._clock.monotonic() + pause_s > deadline:
                    _log.error("checkpoints_not_read", error=str(error), meaning="what was missed is declared later")
                    return
                await self._clock.sleep(pause_s)

    async def run(self, stream: Stream, outlet: Outlet) -> None:
        """Store checkpoints until cancelled."""
        while True:
            await self._clock.sleep(self._settings.interval_s)
            if not self._read and not await self._read_late(stream, outlet):
                continue
            due = self._reached()
            heard = 0 if self._history is None else self._history.heard
            while self._history is not None and self._history.settled < heard:
                await self._clock.sleep(LOOK_S)
            await self._save(due)

    async def finish(self) -> None:
        """Store the last checkpoints, of the ended sources, if everything that they delivered is processed."""
        if self._read and (self._history is None or self._history.settled >= self._history.heard):
            with contextlib.suppress(TransientError):  # the one before stays: more is filled, nothing is lost
                await self._save(self._reached())

    async def _save(self, due: Mapping[str, Mapping[str, int]]) -> None:
        for source, covered in due.items():
            if covered and covered != self._saved.get(source):
                await self._store.save(source, covered)
                self._saved[source] = covered

    async def _read_late(self, stream: Stream, outlet: Outlet) -> bool:
        """Read the checkpoints that could not be read at the start; declare the slots up to the present ones as gaps.

        Return False, and declare nothing, while no source covers anything yet.
        """
        found, present = await self._store.load(), stream.covered
        concerned = [(source, feeds, present[source]) for source, feeds in found.items() if source in present]
        if not present:
            return False
        states: tuple[GapState, ...] = ("open", "unrecoverable")
        for source, feeds, now in concerned:
            for feed, slot in feeds.items():
                last = now.get(feed, max(now.values()))
                for state in states if last > slot else ():
                    await outlet.put(self._gap(source, feed, slot + 1, last, state))
        self._read = True
        return True

    def _gap(self, source: str, feed: str, first: int, last: int, state: GapState) -> GapUpdate:
        return GapUpdate(
            source=source,
            feed=feed,
            received_ns=self._clock.wall_ns(),
            slot=last,
            gap_id=f"{source}:{feed}:{first}-{last}:checkpoint",
            from_slot=first,
            to_slot=last,
            state=state,
            reason="the checkpoint could not be read at the start" if state == "unrecoverable" else "",
        )


async def enter_checkpoints(
    stack: contextlib.AsyncExitStack,
    config: Config,
    context: Context,
    registers: Registers,
    probes: Probes,
    read: ReadReached,
) -> CheckpointKeeper | None:
    """Return the keeper of checkpoints, None if they are switched off. A database that is away is opened later.

    Raises ConfigError for a database that can never be used.
    """
    settings = config.section(CheckpointSettings)
    if not settings.enabled:
        return None

    def not_open(error: TransientError) -> None:
        _log.error("checkpoints_not_open", error=str(error), meaning="opening is tried again")

    patient, kind = replace(context, patience=not_open), settings.place.kind
    store = await registers.checkpoints.open_with(settings, kind, config, patient, key="core.database_url")
    stack.push_async_callback(store.close)
    probes.add("checkpoints", store.check, required=False)
    store.on_trouble = probes.trouble("checkpoints")
    return CheckpointKeeper(store, settings, context.clock, read)
