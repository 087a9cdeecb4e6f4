"""Finds the slots of a feed that connections covered, and the holes: slots without cover, or with unreadable messages.

Pure.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from headrace.sources.subscriptions import ChainSubscription

HOLES_MAX: Final = 16
"""Maximum number of holes of one feed declared at once. If there are more, one hole that spans them is declared."""
PUBKEYS_MAX: Final = 100
_DECLARED_MAX: Final = 64


class Hole(NamedTuple):
    """Slots that no connection covered, both ends included."""

    from_slot: int
    to_slot: int


class Coverage:
    """Slots of one feed that connections covered, as the union over all connections.

    A connection's cover begins with the first slot that it certainly delivers completely, and ends with the last. The
    frontier is the slot up to which everything is covered or declared. While one live cover reaches back to the
    frontier, other covers may begin and end without loss. If none does, the slots between the frontier and the next
    cover are a hole.
    Slots before the first cover are not a loss, with one exception: the node accepted a subscription, but the
    connection ended before its cover began. `covered_to` is the frontier of an earlier Coverage, which this one
    continues.
    """

    PAST_MAX: Final = 32
    UNKNOWN_SLOTS: Final = 64
    """Number of slots declared if it is not known from which slot on the feed was covered."""

    def __init__(self, covered_to: int | None = None) -> None:
        self._frontier = covered_to
        self._past: deque[int] = deque(maxlen=self.PAST_MAX)
        """Earlier frontiers, ascending.

        The frontier falls back to one of them if the slot that raised it is taken back.
        """
        self._live: dict[str, int] = {}

    @property
    def live(self) -> bool:
        """Return whether any connection covers the feed now."""
        return bool(self._live)

    def begin(self, connection: str, first_slot: int, head: int = 0) -> Hole | None:
        """Begin the cover of `connection` at `first_slot`; return the hole before it, if there is one.

        A frontier beyond `head`, the chain's head, was never reached: it is taken back.
        """
        if head:
            self._fall_back(max(head, first_slot))
        if self._frontier is None:
            self._frontier = first_slot - 1
        self._live[connection] = first_slot
        return self._hole()

    def end(self, connection: str, last_slot: int) -> Hole | None:
        """End the cover of `connection` with `last_slot`; return the hole before the next live cover, if any."""
        first_slot = self._live.pop(connection, None)
        if self._frontier is None:  # the node acknowledged the subscription, but the cover had not begun
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
        """End all covers at once, each with its slot in `last_slots`; return the slot up to which there is no hole.

        The latest cover ends first, so that no cover leaves a hole. Nothing beyond `head`, the chain's head, is
        covered.
        """
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


class UnreadableHole(NamedTuple):
    """A hole of a feed; `pubkeys` are the accounts with a state that could not be read."""

    subscription: ChainSubscription
    hole: Hole
    pubkeys: tuple[str, ...] = ()


class UnreadableSlots:
    """Slots of each feed in which a notification could not be read, until `take` returns them to be declared.

    Adjacent slots become one hole. A hole inside an earlier one is left out, unless an account must be read again.
    Bounded: at most HOLES_MAX holes for each feed.
    """

    def __init__(self) -> None:
        self._noted: dict[ChainSubscription, list[Hole]] = {}
        self._pubkeys: dict[ChainSubscription, dict[str, None]] = {}
        self._declared: dict[ChainSubscription, deque[Hole]] = {}

    def note(self, subscription: ChainSubscription, hole: Hole, pubkey: str | None = None) -> None:
        """Remember that a notification from some slot in `hole` could not be read."""
        holes = self._noted.setdefault(subscription, [])
        if hole not in holes[-HOLES_MAX:]:
            holes.append(hole)
        if len(holes) > 2 * HOLES_MAX:
            holes[:] = _merged(holes)
        pubkeys = self._pubkeys.setdefault(subscription, {})
        if pubkey is not None and len(pubkeys) < PUBKEYS_MAX:
            pubkeys[pubkey] = None

    def oldest(self, subscription: ChainSubscription) -> int | None:
        """Return the lowest slot of a feed that `take` would return; None without one."""
        return min((hole.from_slot for hole in self._noted.get(subscription, ())), default=None)

    def take(self) -> list[UnreadableHole]:
        """Return the holes to declare, and forget what was noted."""
        found = []
        for subscription, holes in self._noted.items():
            declared = self._declared.setdefault(subscription, deque(maxlen=_DECLARED_MAX))
            pubkeys = tuple(self._pubkeys.get(subscription, ()))
            for hole in _merged(holes):
                known = any(old.from_slot <= hole.from_slot and hole.to_slot <= old.to_slot for old in declared)
                if pubkeys or not known:
                    found.append(UnreadableHole(subscription, hole, pubkeys))
                    declared.append(hole)
                pubkeys = ()
        self._noted, self._pubkeys = {}, {}
        return found


def _merged(holes: list[Hole]) -> list[Hole]:
    """Return the same slots in as few holes as possible: a single hole if there would be more than HOLES_MAX."""
    merged: list[Hole] = []
    for hole in sorted(holes):
        if merged and hole.from_slot <= merged[-1].to_slot + 1:
            merged[-1] = Hole(merged[-1].from_slot, max(merged[-1].to_slot, hole.to_slot))
        else:
            merged.append(hole)
    return merged if len(merged) <= HOLES_MAX else [Hole(merged[0].from_slot, merged[-1].to_slot)]
