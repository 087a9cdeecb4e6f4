"""In which slots of which feed a notification could not be read, until that is declared. Pure and bounded."""

from collections import deque
from typing import Final, NamedTuple

from headrace.sources.coverage import Hole
from headrace.sources.subscriptions import Subscription

HOLES_MAX: Final = 16
"""Holes of one feed that are declared at once; of more, one is made that spans them."""
PUBKEYS_MAX: Final = 100
_DECLARED_MAX: Final = 64


class Loss(NamedTuple):
    """A hole of a feed; `pubkeys` are the accounts of which a state could not be read."""

    subscription: Subscription
    hole: Hole
    pubkeys: tuple[str, ...] = ()


class Damage:
    """Collect with `note`; `take` returns what is to be declared now, slots that touch as one hole, and none that lies
    in a hole that was taken before unless there is an account to read again."""

    def __init__(self) -> None:
        self._noted: dict[Subscription, list[Hole]] = {}
        self._pubkeys: dict[Subscription, dict[str, None]] = {}
        self._declared: dict[Subscription, deque[Hole]] = {}

    def note(self, subscription: Subscription, hole: Hole, pubkey: str | None = None) -> None:
        """A notification of some slot of `hole` could not be read."""
        holes = self._noted.setdefault(subscription, [])
        if hole not in holes[-HOLES_MAX:]:
            holes.append(hole)
        if len(holes) > 2 * HOLES_MAX:
            holes[:] = _merged(holes)
        pubkeys = self._pubkeys.setdefault(subscription, {})
        if pubkey is not None and len(pubkeys) < PUBKEYS_MAX:
            pubkeys[pubkey] = None

    def take(self) -> list[Loss]:
        """Return the losses to declare, and forget what was noted."""
        losses = []
        for subscription, holes in self._noted.items():
            declared = self._declared.setdefault(subscription, deque(maxlen=_DECLARED_MAX))
            pubkeys = tuple(self._pubkeys.get(subscription, ()))
            for hole in _merged(holes):
                known = any(old.from_slot <= hole.from_slot and hole.to_slot <= old.to_slot for old in declared)
                if pubkeys or not known:
                    losses.append(Loss(subscription, hole, pubkeys))
                    declared.append(hole)
                pubkeys = ()
        self._noted, self._pubkeys = {}, {}
        return losses


def _merged(holes: list[Hole]) -> list[Hole]:
    """The same slots in as few holes as possible; in one that spans them where that is more than HOLES_MAX."""
    merged: list[Hole] = []
    for hole in sorted(holes):
        if merged and hole.from_slot <= merged[-1].to_slot + 1:
            merged[-1] = Hole(merged[-1].from_slot, max(merged[-1].to_slot, hole.to_slot))
        else:
            merged.append(hole)
    return merged if len(merged) <= HOLES_MAX else [Hole(merged[0].from_slot, merged[-1].to_slot)]
