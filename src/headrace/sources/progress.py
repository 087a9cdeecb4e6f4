"""Follow how far one connection has come with each of its feeds, and whether it still lives. Pure."""

from collections.abc import Container
from typing import Final

from headrace.model.updates import Commitment

PATIENCE: Final = 6
"""A silent connection is kept this many times longer while all other witnesses see the chain itself stand."""


class Progress:
    """Progress of one connection with each of its feeds, from which follows what it surely delivered.

    A node announces a slot when it begins, and sends the slot's updates when it is done, with forks in any order.
    Therefore the second head after an acknowledgement bounds what may have been missed before, and the last
    `margin_slots` before a loss count as not delivered.

    A node may drop a feed and still send slots. For a feed that the ledger lists, heads therefore prove nothing: it was
    delivered up to its last update, or up to the slot at which the ledger had no other transaction.
    """

    HEADS_AFTER_ACK: Final = 2
    AHEAD_MAX: Final = 512
    """Slots by which the heads of other connections may put off the begin of a cover."""

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
        """Take the node's consent to a subscription; the cover of its feed begins some heads later.

        `commitment` is that of this feed. `listed`: the ledger lists its transactions.
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
        """Return the first slot of a feed that is surely whole, None while its cover has not begun."""
        return self._first.get(feed)

    def promise(self, slot: int) -> None:
        """Let acknowledged feeds be promised from `slot` on: the first head, which may not count yet."""
        for feed in self._waiting:
            self._promised[feed] = self._promised[feed] or slot

    def replayed(self, first_slot: int) -> list[tuple[str, int]]:
        """Begin the cover of every acknowledged feed at `first_slot`; return these feeds, each with that slot."""
        begun = [(feed, first_slot) for feed in self._waiting]
        self._first.update(begun)
        self._waiting.clear()
        return begun

    def slot(self, slot: int, root: int, others_head: int) -> list[tuple[str, int]]:
        """Take a new head; return the feeds whose cover begins, each with the first slot that is surely whole.

        `others_head` is the head by the other connections. A head that is lower than the last one takes back the heads
        in between.
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
        """Remember that an update of `slot` was delivered on `feed`."""
        if slot > self.last.get(feed, 0):
            self.last[feed] = slot

    def borne_out(self, feed: str, slot: int) -> None:
        """Remember that the ledger at `slot` has no undelivered transaction of `feed` since its cover began.

        Slots that the node itself has not passed by the margin do not count.
        """
        slot = min(slot, self.head - self._margin_slots)
        if feed in self._first and slot > self._borne_out.get(feed, 0):
            self._borne_out[feed] = slot

    def surely(self, *, trust_head: bool = True, alive: Container[str] = ()) -> dict[str, int]:
        """Return feed → the last slot up to which everything was delivered.

        For a feed whose cover has not begun: the slot after which it was promised. At `processed` the head is the
        bound. Later commitments lag behind the head: there the bound is the root (`confirmed`), and the feed's own last
        update. `trust_head` is False where the node dropped feeds while it sent slots. For a listed feed neither head
        nor root counts, unless the feed is `alive`: a message of it came just now, readable or not.
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
    """Watch over one connection; `verdict` names the reason to give the connection up.

    `head` is the slot of this connection, `reference` that of the chain by others: `getSlot` over HTTP, other
    connections. Both may come down again.
    """

    def __init__(self, now: float, *, stall_s: float, stall_slots: int) -> None:
        self._stall_s, self._stall_slots = stall_s, stall_slots
        self._last_message = self._last_advance = now
        self._reference_at: float | None = None
        self.head = self.reference = 0

    @property
    def lag_slots(self) -> int:
        """Slots that the connection is behind the reference; 0 if it leads or nothing is known."""
        return max(0, self.reference - self.head) if self.head and self.reference else 0

    def message(self, now: float) -> None:
        """Take note of a message, readable or not."""
        self._last_message = now

    def excuse(self, now: float) -> None:
        """Begin to wait anew: nothing was read, so neither silence nor a standing head says anything about the node."""
        self._last_message = self._last_advance = now

    def slot(self, slot: int, now: float) -> None:
        """Take `slot` as the connection's head. A lower one takes a claim back, and is no advance."""
        if slot > self.head:
            self._last_advance = now
        self.head = slot

    def witness(self, slot: int, now: float) -> None:
        """Take `slot` as the head of the chain by others."""
        self.reference, self._reference_at = slot, now

    def verdict(self, now: float) -> str | None:
        """Return why to give the connection up: `behind`, `silent`, `head_stands`, or None."""
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
