"""Reads a log from a position, then follows it live, and finds the position where the two meet. Pure.

A follower gets a log's entries in two ways: in pages that it reads, and as entries that arrive live meanwhile. Within
an epoch, every such log counts offsets from 1 without a gap. Three followers share these rules: subscriptions to topics
of the bus, the topic of a user, and the stream of an order.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final

from headrace.model.events import Message, Position

START: Final = Position("", 0)


class Arrival(Enum):
    """Meaning of a live entry to a follower."""

    NEXT = "next"
    """The entry directly follows the last one: take it now."""
    BEYOND = "beyond"
    """Entries before this one are missing: read the log."""
    KNOWN = "known"
    """The entry was already taken, or is about to be read: nothing to do."""


class LogReader:
    """The place of one follower in a log.

        reading ──nothing beyond──> live ──missing entries, or entries that could not be taken──> reading

    `at` is the last entry taken, `newest` the newest entry known, both in the same epoch. While `reading`, entries that
    arrive are only noted: the reader will find them in the log.
    """

    __slots__ = ("at", "newest", "reading")

    def __init__(self, at: Position = START) -> None:
        self.at = at
        self.newest = at.offset
        self.reading = False

    @property
    def behind(self) -> bool:
        """Return whether the log has entries that were not taken."""
        return self.newest > self.at.offset

    def arrive(self, entry: Position, *, able: bool = True) -> Arrival:
        """Record a live entry. The caller takes the entry if the result is NEXT.

        Without `able`, the result is never NEXT, because the follower can't take entries now. An entry of another epoch
        means that the log starts again.
        """
        if entry.epoch != self.at.epoch:
            self.at, self.newest = Position(entry.epoch, 0), 0
        if entry.offset > self.newest:
            self.newest = entry.offset
        if self.reading or not able or entry.offset <= self.at.offset:
            return Arrival.KNOWN
        if entry.offset == self.at.offset + 1:
            self.at = entry
            return Arrival.NEXT
        return Arrival.BEYOND

    def know(self, newest: int) -> None:
        """Record that the log reaches up to `newest`."""
        self.newest = max(self.newest, newest)

    def take(self, offset: int) -> int:
        """Take the entry at `offset` of a page that was read. Return how many entries are missing before it."""
        missing = max(0, offset - self.at.offset - 1)
        self.at = Position(self.at.epoch, offset)
        self.know(offset)
        return missing

    def is_through(self, entries: int, page: int) -> bool:
        """Return whether a page that had `entries` of at most `page` entries was the last page for now."""
        return entries < page and not self.behind


def tail_after(top: Position, held: Sequence[Message], known: int) -> list[Message] | None:
    """Return the held live messages that come after `top`, where the reading of a log ended.

    Returns None if that is unknown, or if entries in between are missing. In that case the log must be read again. The
    first `known` messages of `held` arrived before `top` was read, so they are not newer than `top`.
    Epochs have no order. Whether a held message of another epoch is older or newer than `top` follows only from the
    messages next to it.
    """
    first = next((i for i, message in enumerate(held) if message.epoch == top.epoch), None)
    if first is None:
        return [] if len(held) == known else None
    reader = LogReader(top)
    tail: list[Message] = []
    for message in held[first:]:
        arrival = reader.arrive(Position(message.epoch, message.offset))
        if arrival is Arrival.NEXT:
            tail.append(message)
        elif arrival is Arrival.BEYOND:
            return None
    return tail
