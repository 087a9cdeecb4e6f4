"""How far one connection has come with each of its feeds, and whether it still lives. Pure."""

from collections.abc import Container
from typing import Final

from headrace.model.updates import Commitment

PATIENCE: Final = 6
"""While every other witness says that the chain itself stands, a silent connection is kept this many times longer."""


class Progress:
    """How far one connection has come with each of its feeds, so that what it surely brought can be told afterwards.

    A node announces a slot when it begins it and delivers the slot's content when it is done, in an order of its own
    between forks; so the second head heard after an acknowledgement bounds what may have been missed before, and the
    last `margin_slots` before a loss count as not brought.

    A node may drop a feed and go on with its slots. Of a feed that the ledger lists, heads therefore prove nothing: it
    was brought up to its last update, or up to where the ledger bore out that there was no other.
    """

    HEADS_AFTER_ACK: Final = 2
    AHEAD_MAX: Final = 512
    """Slots by which others' heads may put off the begin of a cover."""

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
        """The node took the subscription; its cover begins some heads later. `commitment`: that of this feed.
        `listed`: the ledger lists what lands on it."""
        self._commitments[feed] = commitment or self._commitment
        if listed:
            self._listed.add(feed)
        self._waiting[feed] = 0
        self._promised[feed] = self.head

    def forget(self, feed: str) -> None:
        """The feed is not wanted any more."""
        for known in (self._waiting, self._promised, self._first, self._commitments, self._borne_out, self.last):
            known.pop(feed, None)
        self._listed.discard(feed)

    @property
    def covering(self) -> bool:
        """Whether the cover of every acknowledged feed has begun."""
        return not self._waiting

    def first(self, feed: str) -> int | None:
        """The first slot that is surely whole, None while the cover has not begun."""
        return self._first.get(feed)

    def promise(self, slot: int) -> None:
        """The first head was heard, of which nothing tells yet whether it counts: what is acknowledged is promised from
        there on."""
        for feed in self._waiting:
            self._promised[feed] = self._promised[feed] or slot

    def slot(self, slot: int, root: int, others_head: int) -> list[tuple[str, int]]:
        """The head is `slot` now (`others_head`: by others' word). Returns the feeds whose cover begins, each with the
        first slot that is surely whole. A head that is lower than before takes back what was said in between."""
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
        """Covers that began above `slot` have yet to begin."""
        for feed in [feed for feed, first in self._first.items() if first > slot + self.AHEAD_MAX + 1]:
            del self._first[feed]
            self._waiting[feed] = 0
        self._promised = {feed: min(promised, slot) for feed, promised in self._promised.items()}
        self.last = {feed: min(last, slot) for feed, last in self.last.items()}
        self._borne_out = {feed: min(borne_out, slot) for feed, borne_out in self._borne_out.items()}
        self.root = min(self.root, slot)

    def brought(self, feed: str, slot: int) -> None:
        """Something of `slot` was delivered on `feed`."""
        if slot > self.last.get(feed, 0):
            self.last[feed] = slot

    def borne_out(self, feed: str, slot: int) -> None:
        """The ledger, at `slot`, holds nothing of `feed` that was not brought since its cover began. That goes for no
        slot which the node itself has yet to pass by the margin."""
        slot = min(slot, self.head - self._margin_slots)
        if feed in self._first and slot > self._borne_out.get(feed, 0):
            self._borne_out[feed] = slot

    def surely(self, *, trust_head: bool = True, alive: Container[str] = ()) -> dict[str, int]:
        """Feed → the last slot up to which all was brought, for every feed whose cover had begun; for one that was only
        acknowledged, the slot after which it was promised.

        At `processed` the head tells. Later commitments lag behind it: there the root tells (`confirmed`), and what the
        feed itself brought. `trust_head` is False where the node dropped feeds while its slots went on. For a listed
        feed neither tells, unless it is `alive`: something of it, if only unreadable, came just now.
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
    """Watches one connection. Feed it what happens; `verdict` names the reason to give the connection up.

    `head` is where this connection is, `reference` where others say that the chain is: `getSlot` over HTTP, other
    connections. Both may come down again.
    """

    def __init__(self, now: float, *, stall_s: float, stall_slots: int) -> None:
        self._stall_s, self._stall_slots = stall_s, stall_slots
        self._last_message = self._last_advance = now
        self._reference_at: float | None = None
        self.head = self.reference = 0

    @property
    def lag_slots(self) -> int:
        """How many slots the connection is behind the reference; 0 if it leads or nothing is known."""
        return max(0, self.reference - self.head) if self.head and self.reference else 0

    def message(self, now: float) -> None:
        """Anything arrived, good or bad."""
        self._last_message = now

    def excuse(self, now: float) -> None:
        """Nobody was reading: neither silence nor a standing head says anything about the node."""
        self._last_message = self._last_advance = now

    def slot(self, slot: int, now: float) -> None:
        """Take `slot` for where the connection is. One that is lower takes a claim back, and is no advance."""
        if slot > self.head:
            self._last_advance = now
        self.head = slot

    def witness(self, slot: int, now: float) -> None:
        """Another way to the chain knows of `slot`."""
        self.reference, self._reference_at = slot, now

    def verdict(self, now: float) -> str | None:
        """Why the connection should be given up, or None: `behind`, `silent` or `head_stands`."""
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
