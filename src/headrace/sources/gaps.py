"""Gaps: declared as soon as both ends are known, filled from the ledger as far as that goes, then closed."""

from functools import partial
from typing import NamedTuple

import structlog

from headrace.model.errors import HeadraceError
from headrace.model.updates import GapState, GapUpdate
from headrace.runtime.clock import Clock
from headrace.runtime.supervise import Supervisor
from headrace.sources import Outlet
from headrace.sources.coverage import Hole
from headrace.sources.ledger import Ledger, why
from headrace.sources.subscriptions import Subscription

_log = structlog.get_logger("source")


class Gap(NamedTuple):
    """A hole in one feed that has been declared."""

    gap_id: str
    subscription: Subscription
    hole: Hole
    pubkeys: tuple[str, ...] = ()
    """Accounts of a `program:` feed of which the present state is to be read again."""


class Gaps:
    """The gaps of one source. One task per feed that has any fills them in turn, those that came up meanwhile together.

    `tasks` owns the work. Without a `ledger` nothing can be filled.
    """

    def __init__(self, name: str, ledger: Ledger | None, *, clock: Clock, outlet: Outlet, tasks: Supervisor) -> None:
        self.name, self._ledger = name, ledger
        self._clock, self._outlet, self._tasks = clock, outlet, tasks
        self._waiting: dict[Subscription, list[Gap]] = {}
        self._open: dict[str, Gap] = {}
        self._closed = False

    @property
    def open(self) -> int:
        """How many gaps are not closed yet."""
        return len(self._open)

    def close(self) -> None:
        """The source is stopping, and its tasks with it: open no more gaps, and give up those that are open, as far as
        the outlet has room."""
        self._closed = True
        for gap in self._open.values():
            update = self._update(gap, "unrecoverable", "the source stopped")
            if not self._outlet.closed and self._outlet.put_nowait(update):
                self._note(gap, "unrecoverable", "the source stopped")
        self._open.clear()

    def add(self, subscription: Subscription, hole: Hole, pubkeys: tuple[str, ...] = ()) -> None:
        """Declare `hole` and see to it. Returns at once; after `close` it does nothing."""
        gap = self._gap(subscription, hole)._replace(pubkeys=pubkeys)
        if self._closed or (gap.gap_id in self._open and not pubkeys):
            return
        self._open[gap.gap_id] = gap
        self._tasks.start(self.name, gap.gap_id, partial(self._run, gap))

    async def declare_lost(self, subscription: Subscription, hole: Hole, reason: str) -> None:
        """Declare a hole of which it is known already that it can't be filled. One of the same slots that was declared
        for another reason is another gap."""
        gap = self._gap(subscription, hole, f":{reason}")
        await self._tell(gap, "open")
        await self._tell(gap, "unrecoverable", reason)

    def _gap(self, subscription: Subscription, hole: Hole, suffix: str = "") -> Gap:
        return Gap(f"{self.name}:{subscription.feed}:{hole.from_slot}-{hole.to_slot}{suffix}", subscription, hole)

    async def _run(self, gap: Gap) -> None:
        await self._tell(gap, "open")
        waiting = self._waiting.get(gap.subscription)
        if waiting is not None:
            waiting.append(gap)  # the task that fills this feed takes it when it comes round
            return
        self._waiting[gap.subscription] = [gap]
        while gaps := self._waiting[gap.subscription]:
            self._waiting[gap.subscription] = []
            lacks = await self._fill(gap.subscription, gaps)
            for done in gaps:
                await self._tell(done, "unrecoverable" if lacks else "backfilled", "; ".join(lacks))
                self._open.pop(done.gap_id, None)
        del self._waiting[gap.subscription]

    async def _tell(self, gap: Gap, state: GapState, reason: str = "") -> None:
        await self._outlet.put(self._update(gap, state, reason))
        self._note(gap, state, reason)

    def _update(self, gap: Gap, state: GapState, reason: str) -> GapUpdate:
        hole = gap.hole
        return GapUpdate(
            source=self.name,
            feed=gap.subscription.feed,
            received_ns=self._clock.wall_ns(),
            slot=hole.to_slot,
            gap_id=gap.gap_id,
            from_slot=hole.from_slot,
            to_slot=hole.to_slot,
            state=state,
            reason=reason,
        )

    def _note(self, gap: Gap, state: GapState, reason: str) -> None:
        hole = gap.hole
        if state != "backfilled":
            log = _log.info if state == "open" else _log.warning
            log("gap", gap_id=gap.gap_id, state=state, from_slot=hole.from_slot, to_slot=hole.to_slot, reason=reason)

    async def _fill(self, subscription: Subscription, gaps: list[Gap]) -> list[str]:
        if self._ledger is None:
            return ["no HTTP endpoint"]
        try:
            pubkeys = [pubkey for gap in gaps for pubkey in gap.pubkeys]
            return await self._ledger.fill(subscription, [gap.hole for gap in gaps], pubkeys)
        except HeadraceError as error:
            _log.warning("refill_failed", feed=subscription.feed, error=str(error))
            return [why(error)]
