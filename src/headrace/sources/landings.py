"""Transactions delivered at `processed`: each waits for the proof that it is in the block of its slot."""

from collections.abc import Sequence

import msgspec
import structlog

from headrace.model.updates import LandingUpdate, LogsUpdate, TransactionUpdate
from headrace.runtime.clock import Clock
from headrace.sources import Outlet
from headrace.sources.coverage import Hole
from headrace.sources.gaps import Gaps
from headrace.sources.metrics import SourceMetrics
from headrace.sources.proofs import Proofs, Proven
from headrace.sources.subscriptions import SLOTS, ChainSubscription

_log = structlog.get_logger("source")


class Landings:
    """Registers unproven transactions as they pass, and publishes the results of their proofs as LandingUpdates.

    A transaction that no node could prove or disprove becomes a gap of its feeds.
    """

    def __init__(
        self, name: str, proofs: Proofs, *, outlet: Outlet, gaps: Gaps, clock: Clock, metrics: SourceMetrics
    ) -> None:
        self._name, self._proofs, self._outlet, self._gaps = name, proofs, outlet, gaps
        self._clock, self._metrics = clock, metrics

    async def admit(
        self, update: LogsUpdate | TransactionUpdate, wanted: Sequence[ChainSubscription]
    ) -> LogsUpdate | TransactionUpdate | None:
        """Return the update to deliver, or None if it must not be delivered.

        If its block is known to contain the transaction, the update is returned as proven. If the block is known not to
        contain it, None is returned.
        """
        known = self._proofs.known(update.slot, update.signature)
        if known is False:
            self._metrics.bad(update.source, "not_in_block")
            return None
        if known:
            return msgspec.structs.replace(update, unproven=False)
        concerned = [each for each in wanted if each.feed == update.feed]
        now = self._clock.monotonic()
        given_up = self._proofs.delivered(update.slot, update.signature, update.err is None, concerned, now)
        if given_up:
            await self.publish(given_up)
        return update

    async def publish(self, proven: Sequence[Proven]) -> None:
        """Publish the results of proofs. Declare a gap for transactions that no node could prove or disprove."""
        holes: dict[ChainSubscription, Hole] = {}
        for each in proven:
            self._metrics.proven(
                self._name, landed=len(each.landed), absent=len(each.absent), unknown=len(each.unknown)
            )
            if each.absent:
                _log.warning("not_in_block", slot=each.slot, signatures=each.absent[:4], count=len(each.absent))
            update = LandingUpdate(
                source=self._name,
                feed=SLOTS.feed,
                received_ns=self._clock.wall_ns(),
                slot=each.slot,
                landed=each.landed,
                absent=each.absent,
                unknown=each.unknown,
            )
            if not self._outlet.put_nowait(update):
                await self._outlet.put(update)
            for subscription in each.feeds:
                low, high = holes.get(subscription, (each.slot, each.slot))
                holes[subscription] = Hole(min(low, each.slot), max(high, each.slot))
        for subscription, hole in holes.items():
            await self._gaps.declare_lost(subscription, hole, "transactions that no node confirmed")
