"""Gaps: declared as soon as both ends are known, refilled from the ledger as far as possible, then closed."""

from functools import partial
from typing import NamedTuple

import structlog

from headrace.model.errors import HeadraceError
from headrace.model.updates import GapState, GapUpdate
from headrace.runtime.clock import Clock
from headrace.runtime.supervise import Supervisor
from headrace.sources import Outlet
from headrace.sources.coverage import Hole
from headrace.sources.ledger import why
from headrace.sources.refill import Refill
from headrace.sources.subscriptions import ChainSubscription

_log = structlog.get_logger("source")


class DeclaredGap(NamedTuple):
    """A hole in one feed that has been declared. `pubkeys`: accounts of a `program:` feed to read again."""

    gap_id: str
    subscription: ChainSubscription
    hole: Hole
    pubkeys: tuple[str, ...] = ()


class Gaps:
    """Gaps of one source. One task for each feed refills its gaps. Gaps declared during a refill are refilled together.

    `tasks` runs the work. Without `refill` every gap is unrecoverable.
    """

    def __init__(self, name: str, refill: Refill | None, *, clock: Clock, outlet: Outlet, tasks: Supervisor) -> None:
        self._name, self._refill = name, refill
        self._clock, self._outlet, self._tasks = clock, outlet, tasks
        self._waiting: dict[ChainSubscription, list[DeclaredGap]] = {}
        self._open: dict[str, DeclaredGap] = {}
        self._closed = False

    @property
    def open(self) -> int:
        """The number of gaps that are not closed yet."""
        return len(self._open)

    def oldest(self, feed: str) -> int | None:
        """Return the lowest slot of the feed's gaps that are not closed yet."""
        return min((g.hole.from_slot for g in self._open.values() if g.subscription.feed == feed), default=None)

    def close(self) -> None:
        """Open no more gaps, and declare the open ones unrecoverable, as far as the outlet has room.

        Called when the source stops, together with the tasks that refill.
        """
        self._closed = True
        for gap in self._open.values():
            update = self._update(gap, "unrecoverable", "the source stopped")
            if not self._outlet.closed and self._outlet.put_nowait(update):
                self._log(gap, "unrecoverable", "the source stopped")
        self._open.clear()

    def add(self, subscription: ChainSubscription, hole: Hole, pubkeys: tuple[str, ...] = ()) -> None:
        """Declare `hole` and start its refill. Returns at once. Does nothing after `close`."""
        gap = self._gap(subscription, hole)._replace(pubkeys=pubkeys)
        if self._closed or (gap.gap_id in self._open and not pubkeys):
            return
        self._open[gap.gap_id] = gap
        self._tasks.start(self._name, gap.gap_id, partial(self._run, gap))

    async def declare_lost(self, subscription: ChainSubscription, hole: Hole, reason: str) -> None:
        """Declare a hole that can't be refilled. The same slots with another reason are another gap."""
        gap = self._gap(subscription, hole, f":{reason}")
        if not self._closed:
            self._open[gap.gap_id] = gap
        await self._publish(gap, "open")
        await self._publish(gap, "unrecoverable", reason)
        self._open.pop(gap.gap_id, None)

    def _gap(self, subscription: ChainSubscription, hole: Hole, suffix: str = "") -> DeclaredGap:
        gap_id = f"{self._name}:{subscription.feed}:{hole.from_slot}-{hole.to_slot}{suffix}"
        return DeclaredGap(gap_id, subscription, hole)

    async def _run(self, gap: DeclaredGap) -> None:
        await self._publish(gap, "open")
        waiting = self._waiting.get(gap.subscription)
        if waiting is not None:
            waiting.append(gap)  # the task that refills this feed takes the gap in its next round
            return
        self._waiting[gap.subscription] = [gap]
        while gaps := self._waiting[gap.subscription]:
            self._waiting[gap.subscription] = []
            lacks = await self._fill(gap.subscription, gaps)
            for done in gaps:
                await self._publish(done, "unrecoverable" if lacks else "backfilled", "; ".join(lacks))
                self._open.pop(done.gap_id, None)
        del self._waiting[gap.subscription]

    async def _fill(self, subscription: ChainSubscription, gaps: list[DeclaredGap]) -> list[str]:
        """Refill gaps of one feed. Return a description of what could not be fetched."""
        if self._refill is None:
            return ["no HTTP endpoint"]
        try:
            pubkeys = [pubkey for gap in gaps for pubkey in gap.pubkeys]
            return await self._refill.fill(subscription, [gap.hole for gap in gaps], pubkeys)
        except HeadraceError as error:
            _log.warning("refill_failed", feed=subscription.feed, error=str(error))
            return [why(error)]

    async def _publish(self, gap: DeclaredGap, state: GapState, reason: str = "") -> None:
        await self._outlet.put(self._update(gap, state, reason))
        self._log(gap, state, reason)

    def _update(self, gap: DeclaredGap, state: GapState, reason: str) -> GapUpdate:
        hole = gap.hole
        return GapUpdate(
            source=self._name,
            feed=gap.subscription.feed,
            received_ns=self._clock.wall_ns(),
            slot=hole.to_slot,
            gap_id=gap.gap_id,
            from_slot=hole.from_slot,
            to_slot=hole.to_slot,
            state=state,
            reason=reason,
        )

    def _log(self, gap: DeclaredGap, state: GapState, reason: str) -> None:
        hole = gap.hole
        if state != "backfilled":
            log = _log.info if state == "open" else _log.warning
            log("gap", gap_id=gap.gap_id, state=state, from_slot=hole.from_slot, to_slot=hole.to_slot, reason=reason)
