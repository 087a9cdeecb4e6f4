"""Which slots of one feed were covered by some connection, and which holes that leaves. Pure."""

from collections import deque
from collections.abc import Container, Mapping
from typing import Final, NamedTuple

from headrace.model.updates import Commitment


class Hole(NamedTuple):
    """Slots that no connection covered, both ends included."""

    from_slot: int
    to_slot: int


class Coverage:
    """The union of what all connections have delivered of one feed, in slots.

    A cover begins when a connection surely brings everything after a slot and ends with the last slot of which it
    surely brought everything. While one live cover reaches back to the frontier, others may come and go without loss;
    when none does, the slots between the frontier and the next cover are a hole. Slots before the first cover are no
    loss, unless a connection that had been acknowledged ended before its cover began: then the promise is older.
    `covered_to` is what an earlier Coverage reached, if this one goes on with it.
    """

    PAST_MAX: Final = 32
    UNKNOWN_SLOTS: Final = 64
    """Slots that are declared where it is not known since when the feed was promised."""

    def __init__(self, covered_to: int | None = None) -> None:
        self._frontier = covered_to
        self._past: deque[int] = deque(maxlen=self.PAST_MAX)
        """Where the frontier stood before, ascending: it falls back there if what raised it is taken back."""
        self._live: dict[str, int] = {}

    @property
    def live(self) -> bool:
        """Whether some connection covers the feed now."""
        return bool(self._live)

    def begin(self, connection: str, first_slot: int, head: int = 0) -> Hole | None:
        """`connection` brings everything from `first_slot` on. Returns the hole that is thereby bounded. Where the
        chain is only at `head`, a frontier beyond it was never reached, and is taken back."""
        if head:
            self._fall_back(max(head, first_slot))
        if self._frontier is None:
            self._frontier = first_slot - 1
        self._live[connection] = first_slot
        return self._hole()

    def end(self, connection: str, last_slot: int) -> Hole | None:
        """`connection` is lost; it brought everything up to `last_slot`. Returns a hole if others do not join."""
        first_slot = self._live.pop(connection, None)
        if self._frontier is None:  # promised when the node took the subscription, lost before its cover began
            self._frontier = last_slot
        elif first_slot is not None and first_slot <= self._frontier + 1:
            self._raise(last_slot)
        return self._hole()

    def _raise(self, slot: int) -> None:
        if self._frontier is not None and slot > self._frontier:
            self._past.append(self._frontier)
            self._frontier = slot

    def _fall_back(self, head: int) -> None:
        while self._frontier is not None and self._frontier > head:
            self._frontier = self._past.pop() if self._past else head - self.UNKNOWN_SLOTS

    def suspend(self, last_slots: Mapping[str, int], head: int = 0) -> int | None:
        """All connections end at once, each having brought everything up to its slot here. Returns how far the feed is
        covered without a hole: the latest cover ends first, so none leaves one behind. Nothing is covered beyond
        `head`, where the chain is."""
        for connection in sorted(last_slots, key=lambda name: self._live.get(name, 0), reverse=True):
            self.end(connection, last_slots[connection])
        if head:
            self._fall_back(head)
        return self._frontier

    def _hole(self) -> Hole | None:
        if not self._live or self._frontier is None:
            return None
        reach = min(self._live.values())
        if reach <= self._frontier + 1:
            return None
        hole = Hole(self._frontier + 1, reach - 1)
        self._raise(reach - 1)
        return hole


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
