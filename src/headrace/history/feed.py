"""Writes facts to a history through a bounded buffer, so that a slow disk does not delay the update flow."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import structlog

from headrace.history import KEPT, History, Kept, Written
from headrace.history.candles import CandleKey
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
BATCH_MAX: Final = 2_000
FACT_BYTES: Final = 1_500
"""Approximate memory of a fact in bytes, besides the text of its event."""
DECISION_BYTES: Final = 300

_log = structlog.get_logger("history")


class HistoryFeed:
    """Consumer of facts that writes them to the history in their order.

    At most `buffer_bytes` of facts wait. When the buffer is full, all facts that come until it is empty are dropped
    and counted. Their slots are declared as a gap of the feed `history`: trades may be missing there, and trades that a
    fork voided may remain. The slots between the last write of an earlier process and the first fact of this process
    are declared, too, and the slots of facts that the history can't store.
    `changed` is called with the candles that changed, once they are stored.
    """

    def __init__(
        self,
        history: History,
        clock: Clock,
        metrics: Metrics,
        *,
        buffer_bytes: int,
        changed: Callable[[Sequence[CandleKey]], None] = lambda _: None,
    ) -> None:
        self._history, self._clock, self._buffer_bytes, self._changed = history, clock, buffer_bytes, changed
        self._waiting: deque[Kept | Restarted] = deque()
        self._bytes = 0
        self.heard = self.settled = 0
        """Facts that came, and facts that are written or declared missing."""
        self._lost: tuple[int, int] | None = None
        self._lost_count = 0
        self._wake = asyncio.Event()
        self._closed = self._resumed = False
        self.resumed_at: int | None = None
        """Slot from which the sources of this process continue those of an earlier one; None if they do not."""
        self._fault: TransientError | None = None
        self._written = metrics.counter("history_written", "Facts that the history has taken")
        self._dropped = metrics.counter("history_dropped", "Facts that came faster than the history took them")
        metrics.gauge("history_buffer_bytes", "Bytes of facts that wait to be written").set_function(
            lambda: self._bytes
        )

    def hear(self, news: Sequence[News]) -> None:
        """Queue facts for writing (`model.facts.FactConsumer`)."""
        for each in news:
            if isinstance(each, KEPT):
                self._take(each)
            elif isinstance(each, Restarted):
                self._waiting.clear()
                self._waiting.append(each)
                self._bytes, self._lost = 0, None
                self._wake.set()

    def close(self) -> None:
        """Let `run` write the waiting facts and then return."""
        self._closed = True
        self._wake.set()

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError while facts can't be written, or are dropped."""
        if self._fault is not None:
            raise self._fault
        if self._lost is not None:
            raise TransientError("facts come faster than they are written; what is missing is declared as a gap")
        await self._history.check(thorough=thorough)

    async def run(self) -> None:
        """Write facts until closed or cancelled."""
        while self._waiting or self._lost is not None or not self._closed:
            if self._waiting and isinstance(self._waiting[0], Restarted):
                self._waiting.popleft()
                self._resumed = True
                await self._until_answered(self._history.clear)
            elif self._waiting:
                batch = self._next_batch()
                await self._resume(batch)
                await self._until_written(batch)
                self.settled += len(batch)
            elif self._lost is not None:
                lost, count, self._lost, self._lost_count = self._lost, self._lost_count, None, 0
                await self._until_written([_gap(*lost, "full")])
                self.settled += count
            else:
                self._wake.clear()
                await self._wake.wait()
                if not self._closed:
                    await self._clock.sleep(INTERVAL_S)

    def _take(self, fact: Kept) -> None:
        weight = _weight(fact)
        self.heard += 1
        if self._lost is not None or self._bytes + weight > self._buffer_bytes:
            first, last = _slots_of(fact)
            lost = (first, last) if self._lost is None else self._lost
            self._lost = min(lost[0], first), max(lost[1], last)
            self._lost_count += 1
            self._dropped.inc()
        else:
            self._bytes += weight
            self._waiting.append(fact)
        self._wake.set()

    def _next_batch(self) -> list[Kept]:
        batch: list[Kept] = []
        while self._waiting and len(batch) < BATCH_MAX and not isinstance(fact := self._waiting[0], Restarted):
            batch.append(fact)
            self._waiting.popleft()
        self._bytes -= sum(map(_weight, batch))
        return batch

    async def _resume(self, batch: Sequence[Kept]) -> None:
        """Before the first write, declare the slots since the last write of an earlier process as a gap.

        Where the sources continue those of an earlier process, they declare the slots after `resumed_at` themselves.
        """
        if self._resumed:
            return
        first = max(_slots_of(fact)[1] for fact in batch)  # the highest, as backfilled facts have old slots
        if self.resumed_at is not None:
            first = min(first, self.resumed_at)
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


def _weight(fact: Kept) -> int:
    return FACT_BYTES + len(fact.seen.body.text) if isinstance(fact, Traded | TokenCreated) else DECISION_BYTES
