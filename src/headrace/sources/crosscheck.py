"""Compares the streams with what a node says over HTTP: the slot head, and the newest transaction of a quiet feed."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from headrace.model.errors import HeadraceError
from headrace.model.updates import Commitment
from headrace.runtime.clock import Clock
from headrace.solana.rpc import Rpc, SignatureInfo
from headrace.sources.head import APART
from headrace.sources.ledger import Recent
from headrace.sources.metrics import Tally
from headrace.sources.rpc_pubsub.session import Session
from headrace.sources.rpc_pubsub.settings import RpcPubSubSettings
from headrace.sources.subscriptions import LISTED, SLOTS, Subscription

_NEWEST_MARGIN_SLOTS: Final = 4
"""A transaction younger than this may still be on its way through the stream."""

_log = structlog.get_logger("source")


class CrossCheck:
    """Call `once` every `check_s`. `getSlot` is a witness of the head (`head_told` returns whether its word counts),
    and the head of a session whose node has no slot subscription (`slot_shown`). A session that no longer brings what
    the ledger has is parted; one that lacks nothing has that borne out, as slots alone do not prove that a feed lives.
    """

    def __init__(
        self,
        rpc: Rpc,
        *,
        settings: RpcPubSubSettings,
        clock: Clock,
        tally: Tally,
        recent: Recent,
        head_told: Callable[[int], bool],
        others_head: Callable[[str], int],
        slot_shown: Callable[[Session, int], bool],
    ) -> None:
        self.fault = ""
        """What failed first in the last round, in words that may be shown; empty if all was answered."""
        self._rpc, self._settings, self._clock, self._tally = rpc, settings, clock, tally
        self._recent = recent
        self._head_told, self._others_head, self._slot_shown = head_told, others_head, slot_shown
        self._commitment: Commitment = "finalized" if settings.commitment == "finalized" else "confirmed"
        self._quiet: dict[tuple[Session, str], tuple[int, float]] = {}
        self._landed: dict[tuple[Session, str], int] = {}
        """What the ledger had when it was first asked about a quiet feed. It is held against the session when the head
        has passed it; the newest of a busy program never would be."""
        self._ledger_slot: int | None = None
        """Where the ledger was in this round, before any feed was looked for in it."""

    async def once(self, sessions: Iterable[Session], wanted: Sequence[Subscription]) -> None:
        """Make one round. A node that does not tell its slot makes it a round without findings; a feed whose listing
        fails is left out, and the others are looked at."""
        sessions = [session for session in sessions if session.connected]
        self._ledger_slot = None
        faults: list[str] = []
        try:
            slot = await self._rpc.get_slot("processed")
            if self._head_told(slot):
                self._compare_heads(sessions, slot)
        except HeadraceError as error:
            faults.append(str(error))
        for subscription in wanted if not faults else ():
            if subscription.kind in LISTED:
                try:
                    await self._audit(subscription, sessions)
                except HeadraceError as error:
                    faults.append(f"{subscription.feed}: {error}")
        self.fault = faults[0] if faults else ""
        if faults:
            _log.debug("cross_check_failed", errors=faults)
        self._quiet = {key: since for key, since in self._quiet.items() if key[0] in sessions}
        self._landed = {key: slot for key, slot in self._landed.items() if key in self._quiet}

    def _compare_heads(self, sessions: list[Session], slot: int) -> None:
        now = self._clock.monotonic()
        for session in sessions:
            if SLOTS in session.registry.refused:
                self._slot_shown(session, slot)
            session.watch.witness(self._others_head(session.name), now)
            self._tally.lag(session.name, session.watch.lag_slots)

    async def _audit(self, subscription: Subscription, sessions: list[Session]) -> None:
        """Nodes have been seen to drop a subscription and stay connected; only the ledger tells this from a lull."""
        feed = subscription.feed
        quiet = [session for session in sessions if self._quiet_for_long(session, feed)]
        if not quiet:
            return
        settled = await self._settled(max(session.watch.head for session in quiet))
        newest = await self._rpc.get_signatures_for_address(
            subscription.key, limit=1, commitment=self._commitment, min_context_slot=settled
        )
        for session in quiet:
            if settled is not None and self._lacks_nothing(session, feed, newest):
                session.progress.borne_out(feed, settled)
            landed = self._landed.setdefault((session, feed), newest[0].slot if newest else 0)
            if landed > session.watch.head + APART:
                del self._landed[session, feed]  # no transaction of this chain: what is really the newest is asked anew
                continue
            if landed + _NEWEST_MARGIN_SLOTS > session.watch.head:
                continue  # looked at again next round
            del self._quiet[session, feed], self._landed[session, feed]
            first, last = session.progress.first(feed), session.progress.last.get(feed, 0)
            if first is not None and landed >= first and landed > last:
                session.part("feed_stands", f"{feed}: nothing since slot {last}")

    async def _settled(self, head: int) -> int | None:
        """Up to where the ledger has surely indexed what landed; None where it says to be far ahead of `head`."""
        if self._ledger_slot is None:
            self._ledger_slot = await self._rpc.get_slot(self._commitment)
        settled = self._ledger_slot - self._settings.refill_settle_slots
        return settled if 0 < settled <= head + APART else None

    def _lacks_nothing(self, session: Session, feed: str, newest: Sequence[SignatureInfo]) -> bool:
        """Return whether the feed's newest transaction is older than the session's cover, or was brought by then."""
        first, last = session.progress.first(feed), session.progress.last.get(feed, 0)
        if first is None or not newest:
            return first is not None and not last
        slot = newest[0].slot
        return slot < first or (slot <= last and self._recent.delivered(feed, newest[0]))

    def _quiet_for_long(self, session: Session, feed: str) -> bool:
        now, last = self._clock.monotonic(), session.progress.last.get(feed, 0)
        seen, since = self._quiet.setdefault((session, feed), (last, now))
        if seen != last:
            self._quiet[session, feed] = (last, now)
            self._landed.pop((session, feed), None)
            return False
        return now - since >= self._settings.quiet_feed_s
