"""Tracks what one connection delivered of each feed, and whether the connection is alive. Pure."""

from collections.abc import Container
from typing import Final

from headrace.model.updates import Commitment

PATIENCE: Final = 6
"""Factor by which a silent connection is kept longer if all other witnesses show that the chain itself stands still."""


class Progress:
    """Progress of one connection with each of its feeds, which determines what it certainly delivered.

    A node announces a slot when the slot begins, sends its updates when it is done, and sends forks in any order.
    Therefore the second head after an acknowledgement bounds what may have been missed before, and the last
    `margin_slots` before the connection ends count as not delivered.

    A node may drop a feed and still send slots. For a feed that the ledger lists, heads therefore prove nothing: it was
    delivered up to its last update, or up to the slot at which the ledger had no other transaction.
    """

    HEADS_AFTER_ACK: Final = 2
    AHEAD_MAX: Final = 512
    """Maximum number of slots by which the heads of other connections may delay the start of a cover."""

    def __init__(self, commitment: Commitment, margin_slots: int) -> None:
        self._commitment, self._margin_slots = commitment, margin_slots
        self._waiting: dict[str, int] = {}
        self._promised: dict[str, int] = {}
        self._first: dict[str, int] = {}
        self._commitments: dict[str, Commitment] = {}
        self._listed: set[str] = set()
        self._borne_out: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.head = self.root = 0

    def acknowledged(self, feed: str, commitment: Commitment | None = None, *, listed: bool = False) -> None:
        """Record that the node accepted a subscription. The cover of its feed begins some heads later.

        `commitment` is the feed's. With `listed`, heads alone do not prove the delivery, because the feed can be
        compared with the ledger.
        """
        self._commitments[feed] = commitment or self._commitment
        if listed:
            self._listed.add(feed)
        self._waiting[feed] = 0
        self._promised[feed] = self.head

    def forget(self, feed: str) -> None:
        """Forget a feed that is no longer subscribed to."""
        for known in (self._waiting, self._promised, self._first, self._commitments, self._borne_out, self.last):
            known.pop(feed, None)
        self._listed.discard(feed)

    @property
    def covering(self) -> bool:
        """Return whether the cover of every acknowledged feed has begun."""
        return not self._waiting

    def first(self, feed: str) -> int | None:
        """Return the first slot of a feed that is certainly complete; None while its cover has not begun."""
        return self._first.get(feed)

    def promise(self, slot: int) -> None:
        """Record the first head, which may not count yet: acknowledged feeds are expected from `slot` on."""
        for feed in self._waiting:
            self._promised[feed] = self._promised[feed] or slot

    def replayed(self, first_slot: int) -> list[tuple[str, int]]:
        """Begin the cover of every acknowledged feed at `first_slot`. Return these feeds, each with that slot."""
        begun = [(feed, first_slot) for feed in self._waiting]
        self._first.update(begun)
        self._waiting.clear()
        return begun

    def slot(self, slot: int, root: int, others_head: int) -> list[tuple[str, int]]:
        """Take a new head. Return the feeds whose cover begins, each with the first slot that is certainly complete.

        `others_head` is the head according to the other connections. A head lower than the last takes back the heads in
        between.
        """
        if slot < self.head:
            self._come_down(slot)
        self.head, self.root = slot, max(self.root, min(root, slot))
        if not self._waiting:
            return []
        self._promised = {feed: min(promised, slot) for feed, promised in self._promised.items()}
        begun = []
        for feed, heads in list(self._waiting.items()):
            self._waiting[feed] = heads + 1
            self._promised[feed] = self._promised[feed] or slot
            if heads + 1 >= self.HEADS_AFTER_ACK:
                del self._waiting[feed]
                ahead = min(others_head, self.head + self.AHEAD_MAX)
                self._first[feed] = first = max(self.head, ahead) + 1
                begun.append((feed, first))
        return begun

    def _come_down(self, slot: int) -> None:
        """Take back covers that began above `slot`."""
        for feed in [feed for feed, first in self._first.items() if first > slot + self.AHEAD_MAX + 1]:
            del self._first[feed]
            self._waiting[feed] = 0
        self._promised = {feed: min(promised, slot) for feed, promised in self._promised.items()}
        self.last = {feed: min(last, slot) for feed, last in self.last.items()}
        self._borne_out = {feed: min(borne_out, slot) for feed, borne_out in self._borne_out.items()}
        self.root = min(self.root, slot)

    def brought(self, feed: str, slot: int) -> None:
        """Record that an update of `slot` was delivered on `feed`."""
        if slot > self.last.get(feed, 0):
            self.last[feed] = slot

    def borne_out(self, feed: str, slot: int) -> None:
        """Record that the ledger at `slot` has no undelivered transaction of `feed` since its cover began.

        The slot counts only if the node itself has passed it by the margin.
        """
        slot = min(slot, self.head - self._margin_slots)
        if feed in self._first and slot > self._borne_out.get(feed, 0):
            self._borne_out[feed] = slot

    def surely(self, *, trust_head: bool = True, alive: Container[str] = ()) -> dict[str, int]:
        """Return feed → the slot up to which everything was certainly delivered.

        For a feed whose cover has not begun, that is the slot after which it was expected. For other feeds it depends
        on the commitment. At `processed` it is the head. At `confirmed` it is the root, because updates lag behind the
        head. At other commitments it is the slot of the feed's own last update.
        `trust_head` is False if the node dropped feeds while it sent slots. For a listed feed neither head nor root is
        used, unless the feed is in `alive`, because a message of it came just now, readable or not.
        """
        reached = {feed: self._promised[feed] for feed in self._waiting if self._promised[feed]}
        for feed, first in self._first.items():
            slot = min(self.last.get(feed, 0), self.head) - self._margin_slots  # no feed is ahead of the heads
            slot = max(slot, self._borne_out.get(feed, 0))
            commitment = self._commitments.get(feed, self._commitment)
            heads_tell = trust_head and (feed not in self._listed or feed in alive)
            if heads_tell and commitment == "processed":
                slot = max(slot, self.head - self._margin_slots)
            elif heads_tell and commitment == "confirmed":
                slot = max(slot, min(self.root, self.head - self._margin_slots))
            reached[feed] = max(slot, first - 1)
        return reached


class Watch:
    """Watches one connection. `verdict` returns the reason to end it.

    `head` is the connection's head. `reference` is the chain's head according to others: `getSlot` over HTTP, and other
    connections. Both may fall again.
    """

    def __init__(self, now: float, *, stall_s: float, stall_slots: int) -> None:
        self._stall_s, self._stall_slots = stall_s, stall_slots
        self._last_message = self._last_advance = now
        self._reference_at: float | None = None
        self.head = self.reference = 0

    @property
    def lag_slots(self) -> int:
        """Number of slots that the connection is behind the reference; 0 if it leads, or if either is unknown."""
        return max(0, self.reference - self.head) if self.head and self.reference else 0

    def message(self, now: float) -> None:
        """Record a message, readable or not."""
        self._last_message = now

    def excuse(self, now: float) -> None:
        """Start waiting again. Nothing was read, so neither silence nor an unmoved head is the node's fault."""
        self._last_message = self._last_advance = now

    def slot(self, slot: int, now: float) -> None:
        """Set the connection's head. A lower slot corrects an earlier head and does not advance it."""
        if slot > self.head:
            self._last_advance = now
        self.head = slot

    def witness(self, slot: int, now: float) -> None:
        """Set the chain's head according to others."""
        self.reference, self._reference_at = slot, now

    def verdict(self, now: float) -> str | None:
        """Return why the connection must end: `behind`, `silent` or `head_stands`; None if it need not."""
        standing_s = now - self._last_advance
        if self.head and self.lag_slots > self._stall_slots and standing_s > self._stall_s / 2:
            return "behind"
        chain_stands = self._chain_stands(now)
        patience_s = self._stall_s * (PATIENCE if chain_stands else 1)
        if now - self._last_message > patience_s:
            return "silent"
        return "head_stands" if standing_s > patience_s else None

    def _chain_stands(self, now: float) -> bool:
        fresh = self._reference_at is not None and now - self._reference_at <= self._stall_s
        return fresh and self.head > 0 and self.reference <= self.head
