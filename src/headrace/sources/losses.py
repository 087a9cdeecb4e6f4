"""Declares gaps for what no connection delivered: slots without a cover, and unreadable messages."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Final

from headrace.sources.connection import Connection, Unreadable
from headrace.sources.coverage import Coverage, Hole, UnreadableSlots
from headrace.sources.gaps import Gaps
from headrace.sources.subscriptions import ChainSubscription

_PAST_SLOTS: Final = 1_024
_AHEAD_SLOTS: Final = 512
"""Maximum number of slots between a node's head and the slot of an update.

A slot further away is misread or made up.
"""


class Losses:
    """The covers of each feed. A hole between covers, or by an unreadable message, becomes a gap.

    `covered` comes from an earlier source. `head` is the chain's head, 0 while it is unknown.
    """

    def __init__(self, wanted: Sequence[ChainSubscription], covered: Mapping[str, int], gaps: Gaps) -> None:
        self.wanted, self._gaps = wanted, gaps
        feeds = {subscription.feed for subscription in wanted}
        self._coverage = {feed: Coverage(slot) for feed, slot in covered.items() if feed in feeds}
        self._unreadable = UnreadableSlots()

    def want(self, wanted: Sequence[ChainSubscription]) -> None:
        """Replace the subscriptions. The covers of other feeds are forgotten."""
        self.wanted = wanted
        kept = {subscription.feed for subscription in wanted}
        self._coverage = {feed: coverage for feed, coverage in self._coverage.items() if feed in kept}

    def begin(self, connection: Connection, begun: Iterable[tuple[str, int]], head: int) -> None:
        """Begin covers of a connection. `begun` has feeds, each with the first slot that is certainly complete."""
        for feed, first_slot in begun:
            coverage = self._coverage.setdefault(feed, Coverage())
            self._declare(feed, coverage.begin(connection.name, first_slot, head))

    def end(self, connection: Connection, reason: str) -> None:
        """End all covers of a connection that ended for `reason`."""
        for feed, last_slot in connection.surely(reason).items():
            coverage = self._coverage.setdefault(feed, Coverage())
            self._declare(feed, coverage.end(connection.name, last_slot))

    def reached(self, connections: Iterable[Connection], head: int) -> dict[str, int]:
        """Return what `suspend` would return now, without ending the covers."""
        kept = self._coverage
        self._coverage = deepcopy(kept)
        try:
            return self.suspend(connections, head)
        finally:
            self._coverage = kept

    def suspend(self, connections: Iterable[Connection], head: int) -> dict[str, int]:
        """End the covers of all connections at once. Return feed → the slot up to which it is covered."""
        ends: dict[str, dict[str, int]] = {feed: {} for feed in self._coverage}
        for connection in connections:
            for feed, last_slot in connection.surely().items():
                ends.setdefault(feed, {})[connection.name] = last_slot
        reached = {
            feed: self._coverage.get(feed, Coverage()).suspend(last_slots, head) for feed, last_slots in ends.items()
        }
        return {feed: slot for feed, slot in reached.items() if slot is not None}

    def oldest_unreadable(self, subscription: ChainSubscription) -> int | None:
        """Return the lowest slot of an unreadable notification that is not declared yet."""
        return self._unreadable.oldest(subscription)

    def unreadable(self, connection: Connection, lost: Unreadable, head: int) -> None:
        """Remember the slots of an unreadable notification until `declare_unreadable`."""
        for subscription in lost.subscriptions:
            hole = _hole_of(connection, subscription, lost.slot, head)
            if hole is not None and subscription.kind != "signature":
                self._unreadable.note(subscription, hole, lost.pubkey)

    def declare_unreadable(self) -> bool:
        """Declare the slots of unreadable notifications. Return whether there were any."""
        found = self._unreadable.take()
        for each in found:
            if each.subscription in self.wanted:
                self._gaps.add(each.subscription, each.hole, each.pubkeys)
        return bool(found)

    def _declare(self, feed: str, hole: Hole | None) -> None:
        for subscription in self.wanted:
            if hole is not None and subscription.feed == feed:
                self._gaps.add(subscription, hole)


def _hole_of(connection: Connection, subscription: ChainSubscription, slot: int | None, head: int) -> Hole | None:
    """Return the slot that the notification names. If it names none, return all slots at which the node may be.

    None if the connection covered no slot of the feed yet.
    """
    head = connection.progress.head or head
    if head and slot is not None and head - _PAST_SLOTS <= slot <= head + _AHEAD_SLOTS:
        return Hole(slot, slot)
    reached = connection.progress.surely(alive=(subscription.feed,)).get(subscription.feed)
    return Hole(min(reached, head) + 1, head + 1) if head and reached is not None else None
