"""What was seen before: by slot and transaction, and by slot and account. Pure and bounded."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Final, Generic, TypeVar

import msgspec

SLOTS_MAX: Final = 1_024
TRANSACTIONS_MAX: Final = 200_000
ACCOUNT_VERSIONS_MAX: Final = 200_000

CUT_LOGS: Final = 0b001
LOGS: Final = 0b011
INSTRUCTIONS: Final = 0b100
"""What a view of a transaction shows, as bits: whole logs show all that cut ones do. A whole transaction has both."""

T = TypeVar("T")


class _Window(Generic[T]):
    """Entries by slot. When there are too many, the slot that was seen first goes, with all that it holds.

    First seen, not lowest: after an outage, the live stream is far ahead when the backfill of older slots comes in.
    """

    def __init__(self, slots_max: int, entries_max: int) -> None:
        self._slots_max, self._entries_max = slots_max, entries_max
        self._slots: dict[int, dict[str, T]] = {}
        self._weights: dict[int, int] = {}
        self._weight = 0

    def __len__(self) -> int:
        return self._weight

    def find(self, slot: int, key: str) -> T | None:
        entries = self._slots.get(slot)
        return entries.get(key) if entries else None

    def add(self, slot: int, key: str, entry: T) -> None:
        self.grow(slot)
        self._slots[slot][key] = entry

    def grow(self, slot: int) -> None:
        """Count one more thing in `slot`, after making room for it."""
        if self._weight >= self._entries_max:
            self.forget(next(iter(self._slots)))
        if slot not in self._slots:
            if len(self._slots) >= self._slots_max:
                self.forget(next(iter(self._slots)))
            self._slots[slot], self._weights[slot] = {}, 0
        self._weights[slot] += 1
        self._weight += 1

    def forget(self, slot: int) -> None:
        self._slots.pop(slot, None)
        self._weight -= self._weights.pop(slot, 0)


class SeenTransaction(msgspec.Struct, gc=False):
    """The views of one transaction in one slot that came so far, and the events that were published from them."""

    views: int
    first: tuple[int, ...] | None = None  # most transactions are seen once: counted only when they come again
    published: Counter[int] | None = None

    def unpublished(self, identities: Sequence[Hashable]) -> list[bool]:
        """For the events of a view, in order: whether each is to be published. They then count as published.

        An identity names program, event and content. Equal events may happen several times in a transaction, so
        those of a view are counted: the third of three equal ones is new where two were published. Counting all
        events of a kind would not do: logs that were cut may lack one in the middle.
        """
        if self.first is None:
            self.first = tuple(map(hash, identities))
            return [True] * len(identities)
        if self.published is None:
            self.published = Counter(self.first)
        in_view: Counter[int] = Counter()
        new = []
        for identity in map(hash, identities):
            in_view[identity] += 1
            new.append(in_view[identity] > self.published[identity])
        self.published |= in_view
        return new


class TransactionDedupe:
    """Transactions by slot and signature: the same one in another slot (a fork) is another fact."""

    def __init__(self, slots_max: int = SLOTS_MAX, transactions_max: int = TRANSACTIONS_MAX) -> None:
        self._window = _Window[SeenTransaction](slots_max, transactions_max)

    def admit(self, slot: int, signature: str, view: int) -> SeenTransaction | None:
        """The record of a transaction of which this view may show something new; None if it can't."""
        seen = self._window.find(slot, signature)
        if seen is None:
            seen = SeenTransaction(view)
            self._window.add(slot, signature, seen)
            return seen
        if seen.views | view == seen.views:
            return None
        seen.views |= view
        return seen

    def forget(self, slot: int) -> None:
        """The slot died: should it happen anew, all of it is new."""
        self._window.forget(slot)

    def __len__(self) -> int:
        return len(self._window)


class _Versions(msgspec.Struct, gc=False):
    """The contents that an account had in a slot, in order, and how far each feed has told them."""

    contents: list[Hashable]
    places: dict[Hashable, int]


class AccountDedupe:
    """Account versions by slot and key, matched by content: write versions are comparable within one node only.

    Each feed may tell the same versions; a content that comes back (A, B, A) is a version of its own, unless a feed
    merely repeats what it told last.
    """

    def __init__(self, slots_max: int = SLOTS_MAX, versions_max: int = ACCOUNT_VERSIONS_MAX) -> None:
        self._window = _Window[_Versions](slots_max, versions_max)

    def admit(self, slot: int, pubkey: str, feed: Hashable, content: Hashable) -> int | None:
        """Which version of the account in this slot this is, from 0; None for one that was seen."""
        seen = self._window.find(slot, pubkey)
        if seen is None:
            self._window.add(slot, pubkey, _Versions([content], {feed: 1}))
            return 0
        contents, place = seen.contents, seen.places.get(feed, 0)
        if place and contents[place - 1] == content:
            return None
        for later in range(place, len(contents)):
            if contents[later] == content:
                seen.places[feed] = later + 1
                return None
        contents.append(content)
        seen.places[feed] = len(contents)
        self._window.grow(slot)
        return len(contents) - 1

    def forget(self, slot: int) -> None:
        """The slot died: should it happen anew, all of it is new."""
        self._window.forget(slot)

    def __len__(self) -> int:
        return len(self._window)
