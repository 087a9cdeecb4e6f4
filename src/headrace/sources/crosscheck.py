"""Compares connections with a node's answers over HTTP: the chain's head, and the newest transaction of quiet feeds."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from headrace.model.errors import HeadraceError
from headrace.runtime.clock import Clock
from headrace.solana.rpc import Rpc, SignatureInfo
from headrace.sources.connection import Connection
from headrace.sources.head import APART
from headrace.sources.metrics import SourceMetrics
from headrace.sources.refill import Recent
from headrace.sources.settings import NodeSourceSettings
from headrace.sources.slots import ChainSlots
from headrace.sources.subscriptions import LISTED, SLOTS, ChainSubscription, fetched_at

_NEWEST_MARGIN_SLOTS: Final = 4
"""Number of slots during which a transaction may still be on its way through the stream."""

_log = structlog.get_logger("source")


class CrossCheck:
    """Comparison of connections with the ledger. Call `once` every `check_s`.

    The answer to `getSlot` is one witness of the chain's head. For a connection whose node has no slot subscription it
    is also the connection's head, passed to `on_slot`. A connection that no longer delivers what the ledger lists is
    ended. If a feed lacks nothing, its progress records that, because slots alone do not prove that a feed is alive.
    """

    def __init__(
        self,
        name: str,
        rpc: Rpc,
        slots: ChainSlots,
        *,
        settings: NodeSourceSettings,
        clock: Clock,
        metrics: SourceMetrics,
        recent: Recent,
        on_slot: Callable[[Connection, int], None],
    ) -> None:
        self.fault = ""
        """The first failure of the last round, in words that may be shown. Empty if all calls were answered."""
        self._witness, self._rpc, self._slots = f"{name}-http", rpc, slots
        self._settings, self._clock, self._metrics = settings, clock, metrics
        self._recent, self._on_slot = recent, on_slot
        self._commitment = fetched_at(settings.commitment)
        self._quiet: dict[tuple[Connection, str], tuple[int, float]] = {}
        self._landed: dict[tuple[Connection, str], int] = {}
        """Slot of the newest transaction when the ledger was first asked about a quiet feed.

        Once the head has passed this slot, the connection should have delivered the transaction. The first answer is
        kept because the head would never pass the newest transaction of a busy program.
        """
        self._ledger_slot: int | None = None
        """The ledger's slot in this round, read before any feed is compared."""

    async def once(self, connections: Iterable[Connection], wanted: Sequence[ChainSubscription]) -> None:
        """Make one round.

        Without an answer to `getSlot` nothing is compared. A feed whose listing fails is left out.
        """
        connected = [connection for connection in connections if connection.connected]
        self._ledger_slot = None
        faults: list[str] = []
        try:
            slot = await self._rpc.get_slot("processed")
            if self._slots.hear(self._witness, slot):
                self._compare_heads(connected, slot)
        except HeadraceError as error:
            faults.append(str(error))
        for subscription in wanted if not faults else ():
            if subscription.kind in LISTED:
                try:
                    await self._audit(subscription, connected)
                except HeadraceError as error:
                    faults.append(f"{subscription.feed}: {error}")
        self.fault = faults[0] if faults else ""
        if faults:
            _log.debug("cross_check_failed", errors=faults)
        self._quiet = {key: since for key, since in self._quiet.items() if key[0] in connected}
        self._landed = {key: slot for key, slot in self._landed.items() if key in self._quiet}

    def _compare_heads(self, connected: list[Connection], slot: int) -> None:
        now = self._clock.monotonic()
        for connection in connected:
            if SLOTS in connection.refused:
                self._on_slot(connection, slot)
            connection.watch.witness(self._slots.head_of_others(connection.name), now)
            self._metrics.lag(connection.name, connection.watch.lag_slots)

    async def _audit(self, subscription: ChainSubscription, connected: list[Connection]) -> None:
        """Compare a quiet feed with the ledger: nodes are known to drop a subscription and stay connected."""
        feed = subscription.feed
        quiet = [connection for connection in connected if self._is_quiet_for_long(connection, feed)]
        if not quiet:
            return
        settled = await self._settled(max(connection.watch.head for connection in quiet))
        newest = await self._rpc.get_signatures_for_address(
            subscription.key, limit=1, commitment=self._commitment, min_context_slot=settled
        )
        for connection in quiet:
            if settled is not None and self._lacks_nothing(connection, feed, newest):
                connection.progress.borne_out(feed, settled)
            landed = self._landed.setdefault((connection, feed), newest[0].slot if newest else 0)
            if landed > connection.watch.head + APART:
                del self._landed[connection, feed]  # not a transaction of this chain: ask for the newest again
                continue
            if landed + _NEWEST_MARGIN_SLOTS > connection.watch.head:
                continue  # compared again in the next round
            del self._quiet[connection, feed], self._landed[connection, feed]
            first, last = connection.progress.first(feed), connection.progress.last.get(feed, 0)
            if first is not None and landed >= first and landed > last:
                connection.part("feed_stands", f"{feed}: nothing since slot {last}")

    async def _settled(self, head: int) -> int | None:
        """Return the slot up to which the ledger has certainly indexed transactions.

        None if the ledger's slot is far ahead of `head`.
        """
        if self._ledger_slot is None:
            self._ledger_slot = await self._rpc.get_slot(self._commitment)
        settled = self._ledger_slot - self._settings.refill_settle_slots
        return settled if 0 < settled <= head + APART else None

    def _lacks_nothing(self, connection: Connection, feed: str, newest: Sequence[SignatureInfo]) -> bool:
        """Return whether the feed's newest transaction is older than the connection's cover, or was delivered."""
        first, last = connection.progress.first(feed), connection.progress.last.get(feed, 0)
        if first is None or not newest:
            return first is not None and not last
        slot = newest[0].slot
        return slot < first or (slot <= last and self._recent.delivered(feed, newest[0]))

    def _is_quiet_for_long(self, connection: Connection, feed: str) -> bool:
        now, last = self._clock.monotonic(), connection.progress.last.get(feed, 0)
        seen, since = self._quiet.setdefault((connection, feed), (last, now))
        if seen != last:
            self._quiet[connection, feed] = (last, now)
            self._landed.pop((connection, feed), None)
            return False
        return now - since >= self._settings.quiet_feed_s
