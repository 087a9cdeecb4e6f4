"""Writes facts to a history through a bounded buffer, so that a slow disk does not delay the update flow."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import structlog

from headrace.history import KEPT, History, Kept, Written
from headrace.history.buffer import Buffer
from headrace.history.candles import CandleKey
from headrace.history.spill import Spill
from headrace.model.errors import InvariantError, TransientError
from headrace.model.facts import (
    Gap,
    GapDeclared,
    News,
    Restarted,
    TokenCreated,
    Traded,
)
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics

T = TypeVar("T")

FEED: Final = "history"
"""Feed under which gaps of the history itself are declared."""
INTERVAL_S: Final = 0.1
"""Seconds between writes. Facts are written in batches, as each commit rewrites the same pages of the indexes."""
_log = structlog.get_logger("history")


class HistoryFeed:
    """Consumer of facts that writes them to the history in their order.

    At most `buffer_bytes` of facts wait in memory, and further facts in the file `spill`. When both are full, or there
    is no file, all facts that come until the memory is empty are dropped and counted. Their slots are declared as a gap
    of the feed `history`: trades may be missing there, and trades that a fork voided may remain. The slots between the
    last write of an earlier process and the first fact of this process are declared, too, and the slots of facts that
    the history can't store.
    A recording that starts over empties the history if `empties` is set. Otherwise its facts are written again, which
    changes nothing, as each is known by its event's id.
    `changed` is called with the candles that changed, once they are stored.
    """

    def __init__(
        self,
        history: History,
        clock: Clock,
        metrics: Metrics,
        *,
        buffer_bytes: int,
        spill: Spill | None = None,
        empties: bool = False,
        changed: Callable[[Sequence[CandleKey]], None] = lambda _: None,
    ) -> None:
        self._history, self._clock, self._changed = history, clock, changed
        self._buffer = Buffer(buffer_bytes, spill, lose=self._lose, refuse=self._refuse)
        self._empties = empties
        self._lost: tuple[int, int] | None = None
        self._lost_count = 0
        self.heard = self.settled = 0
        """Facts that came, and facts of them that are written or declared missing."""
        self.resumed_at: Callable[[], int | None] = lambda: None
        """Returns the slot from which the sources continue those of an earlier process; None if they do not."""
        self._unstorable: list[int] = []
        self._wake = asyncio.Event()
        self._closed = self._resumed = self._starts_over = False
        self._fault: TransientError | None = None
        self._written = metrics.counter("history_written", "Facts that the history has taken")
        self._dropped = metrics.counter("history_dropped", "Facts that came faster than the history took them")
        buffer = self._buffer
        metrics.gauge("history_buffer_bytes", "Bytes of facts in memory that wait to be written").set_function(
            lambda: buffer.bytes
        )
        metrics.gauge("history_spilled_batches", "Batches of facts in the file that wait to be written").set_function(
            lambda: buffer.frames
        )

    def hear(self, news: Sequence[News]) -> None:
        """Queue facts for writing (`model.facts.FactConsumer`)."""
        for each in news:
            if isinstance(each, KEPT):
                self.heard += 1
                if self._lost is not None or not self._buffer.put(each):
                    self._lose([each])
            elif isinstance(each, Restarted) and self._empties:
                self._buffer.clear()
                self._lost, self._unstorable, self._starts_over = None, [], True
        self._wake.set()

    def resume(self) -> None:
        """Declare the slots between the last write, of any process, and the next fact as a gap."""
        self._resumed = False

    def close(self) -> None:
        """Let `run` write the waiting facts and then return. Facts in the file stay there for the next process."""
        self._closed = True
        self._wake.set()

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError while facts can't be written, or are dropped."""
        if self._fault is not None:
            raise self._fault
        if self._lost is not None:
            raise TransientError("facts come faster than they are written; what is missing is declared as a gap")
        await self._history.check(thorough=thorough)

    async def spill(self) -> None:
        """Move facts that don't fit the memory to the file, until cancelled."""
        await self._buffer.run()

    async def run(self) -> None:
        """Write facts until closed or cancelled."""
        while not self._closed or self._lost is not None or not self._buffer.is_empty:
            if self._closed and self._buffer.frames and not self._buffer.has_older:
                await self._buffer.flush()
                return
            await self._write_next()

    async def _write_next(self) -> None:
        """Write the oldest facts, or wait for facts."""
        if self._starts_over:
            self._starts_over, self._resumed = False, True
            await self._until_answered(self._history.clear)
        elif self._unstorable:
            slot = self._unstorable.pop()
            await self._until_written([_gap(slot, slot, "unstorable")])
        elif batch := await self._buffer.take():
            was_earlier = self._buffer.earlier
            await self._resume(batch)
            await self._until_written(batch)
            await self._buffer.finish()
            self.settled += 0 if was_earlier else len(batch)
            if was_earlier and not self._buffer.earlier:
                self._resumed = False  # the facts that follow are the first of this process
        elif self._lost is not None:
            lost, count, self._lost, self._lost_count = self._lost, self._lost_count, None, 0
            await self._until_written([_gap(*lost, "full")])
            self.settled += count
        else:
            self._wake.clear()
            await self._wake.wait()
            if not self._closed:
                await self._clock.sleep(INTERVAL_S)

    def _lose(self, facts: Sequence[Kept]) -> None:
        self._lost_count += len(facts)
        for fact in facts:
            first, last = _slots_of(fact)
            lost = (first, last) if self._lost is None else self._lost
            self._lost = min(lost[0], first), max(lost[1], last)
            self._dropped.inc()
        self._wake.set()

    def _refuse(self, facts: Sequence[Kept]) -> None:
        """Remember facts that no file can hold; the database could not store them either."""
        self.settled += len(facts)
        self._unstorable += [_slots_of(fact)[0] for fact in facts if not isinstance(fact, GapDeclared)]

    async def _resume(self, batch: Sequence[Kept]) -> None:
        """Before the first write, declare the slots since the last write of an earlier process as a gap.

        Where the sources continue those of an earlier process, they declare the slots after `resumed_at` themselves.
        """
        if self._resumed:
            return
        first = max(_slots_of(fact)[1] for fact in batch)  # the highest, as backfilled facts have old slots
        resumed_at = self.resumed_at()
        if resumed_at is not None:
            first = min(first, resumed_at)
        extent = await self._until_answered(self._history.extent)
        if extent.last is not None and first > extent.last:
            await self._until_written([_gap(extent.last, first, "not_running")])
        self._resumed = True

    async def _until_written(self, batch: Sequence[Kept]) -> None:
        """Write a batch. If a fact can't be stored, write all other facts and declare the fact's slot as a gap."""
        try:
            written = await self._until_answered(partial(self._history.write, batch))
        except InvariantError as error:
            if len(batch) > 1:
                half = len(batch) // 2
                await self._until_written(batch[:half])
                await self._until_written(batch[half:])
                return
            _log.error("history_unstorable", error=str(error), fact=type(batch[0]).__name__)
            written = Written((), [] if isinstance(batch[0], GapDeclared) else [_slots_of(batch[0])[0]])
        self._written.inc(len(batch))
        for slot in written.refused:
            await self._until_written([_gap(slot, slot, "unstorable")])
        if written.candles:
            self._changed(written.candles)

    async def _until_answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        backoff = Backoff(initial_s=0.1, max_s=5.0)
        while True:
            try:
                answer = await ask()
            except TransientError as error:
                if not backoff.tries:
                    _log.warning("history_away", error=str(error))
                self._fault = error
                await self._clock.sleep(backoff.next_s())
            else:
                self._fault = None
                return answer


def _gap(first: int, last: int, why: str) -> GapDeclared:
    return GapDeclared(Gap(f"{FEED}:{why}:{first}:{last}", first, last, "unrecoverable", f"history_{why}"), FEED)


def _slots_of(fact: Kept) -> tuple[int, int]:
    """Return the first and last slot that would be incomplete without the fact."""
    if isinstance(fact, Traded | TokenCreated):
        return fact.seen.origin.slot, fact.seen.origin.slot
    if isinstance(fact, GapDeclared):
        return fact.gap.from_slot, fact.gap.to_slot
    return fact.slot, fact.slot
