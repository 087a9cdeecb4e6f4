"""What was seen before: by slot and transaction, and by slot and account. Pure and bounded."""

from collections.abc import Hashable, Sequence
from typing import Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

SLOTS_MAX: Final = 1_024
TRANSACTIONS_MAX: Final = 200_000
ACCOUNT_VERSIONS_MAX: Final = 200_000

CUT_LOGS: Final = 0b001
LOGS: Final = 0b011
INSTRUCTIONS: Final = 0b100
"""The parts of a transaction that an update shows, as bits.

Whole logs include cut ones. A whole transaction has all.
"""

T = TypeVar("T")


class _Window(Generic[T]):
    """Entries by slot. If there are too many, the slot that was seen first is dropped with all its entries.

    First seen, not lowest: after an outage, the live stream is far ahead when the backfill of older slots arrives.
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
        self.grow(slot)[key] = entry

    def grow(self, slot: int) -> dict[str, T]:
        """Count one more entry in `slot`, after making room for it; return the slot's entries."""
        if self._weight >= self._entries_max:
            self.forget(next(iter(self._slots)))
        entries = self._slots.get(slot)
        if entries is None:
            if len(self._slots) >= self._slots_max:
                self.forget(next(iter(self._slots)))
            entries = self._slots[slot] = {}
            self._weights[slot] = 0
        self._weights[slot] += 1
        self._weight += 1
        return entries

    def forget(self, slot: int) -> None:
        self._slots.pop(slot, None)
        self._weight -= self._weights.pop(slot, 0)

    def forget_one(self, slot: int, key: str) -> None:
        if self._slots.get(slot, {}).pop(key, None) is not None:
            self._weights[slot] -= 1
            self._weight -= 1


Place: TypeAlias = tuple[tuple[int, ...], int]
"""Path and ordinal: with slot and signature they form an event's id."""

Extent: TypeAlias = Literal["nothing", "event", "trade", "all"]
"""Part of an event that was published.

Nothing; the event itself, without its trade or token; its trade too, but without a mint; or everything.
"""


class Standing(msgspec.Struct, frozen=True, gc=False):
    """The place under which an event is published, and how much of it was published before."""

    place: Place
    extent: Extent


class SeenTransaction(msgspec.Struct, gc=False):
    """The parts of one transaction in one slot that were seen so far, and the events that were published from them."""

    views: int
    identities: tuple[int, ...] = ()  # most transactions are seen once: read only if the transaction comes again
    standings: tuple[Standing, ...] = ()
    feed: str = ""
    other_feeds: tuple[str, ...] = ()

    def is_new_to(self, feed: str) -> bool:
        """Note that `feed` delivered the transaction; return whether it is new to this feed and known from another."""
        if not self.feed:
            self.feed = feed
        elif feed != self.feed and feed not in self.other_feeds:
            self.other_feeds = (*self.other_feeds, feed)
            return True
        return False

    def standings_of(self, identities: Sequence[Hashable], places: Sequence[Place]) -> list[Standing]:
        """Return, for each event of an update, its place and how much of it was published, in order.

        An identity consists of program, event and content. Equal events may happen several times in a transaction, so
        they are counted: the third of three equal events is new if two were published. Counting all events of a kind
        would not work, because logs that were cut may lack an event in the middle. `places` are those in the update. An
        event that was published keeps its first place. A new event gets the next free ordinal if its own is taken,
        because log lines and instructions count places differently.
        """
        if not self.standings:
            return [Standing(place, "nothing") for place in places]
        known: dict[int, list[Standing]] = {}
        for identity, standing in zip(self.identities, self.standings, strict=True):
            known.setdefault(identity, []).append(standing)
        taken = {standing.place for standing in self.standings}
        found: list[Standing] = []
        for identity, place in zip(map(hash, identities), places, strict=True):
            if published := known.get(identity):
                found.append(published.pop(0))
                continue
            path, ordinal = place
            while (path, ordinal) in taken:
                ordinal += 1
            taken.add((path, ordinal))
            found.append(Standing((path, ordinal), "nothing"))
        return found

    def note(self, identities: Sequence[Hashable], standings: Sequence[Standing]) -> None:
        """Remember what is published of an update's events; nothing if no later update can add to the transaction."""
        if self.views == INSTRUCTIONS | LOGS:
            self.identities = self.standings = ()
            return
        hashes = tuple(map(hash, identities))
        if not self.standings:
            self.identities, self.standings = hashes, tuple(map(_shared, standings))
            return
        places = {standing.place for standing in standings}
        others = [n for n, standing in enumerate(self.standings) if standing.place not in places]
        self.identities = hashes + tuple([self.identities[n] for n in others])
        self.standings = tuple(map(_shared, standings)) + tuple([self.standings[n] for n in others])


_STANDINGS_MAX: Final = 4_096
_standings: Final[dict[Standing, Standing]] = {}


def _shared(standing: Standing) -> Standing:
    """Return an equal standing that is stored only once: there are few different ones."""
    if len(_standings) >= _STANDINGS_MAX:
        _standings.clear()
    return _standings.setdefault(standing, standing)


class TransactionDedupe:
    """Transactions by slot and signature; the same transaction in another slot (a fork) is another fact."""

    def __init__(self, slots_max: int = SLOTS_MAX, transactions_max: int = TRANSACTIONS_MAX) -> None:
        self._window = _Window[SeenTransaction](slots_max, transactions_max)

    def admit(self, slot: int, signature: str, view: int) -> SeenTransaction | None:
        """Return the record of a transaction if this update may show something new of it; else None."""
        seen = self._window.find(slot, signature)
        if seen is None:
            seen = SeenTransaction(view)
            self._window.add(slot, signature, seen)
            return seen
        if seen.views | view == seen.views:
            return None
        seen.views |= view
        return seen

    def forget_one(self, slot: int, signature: str) -> None:
        """Forget a transaction that is not in the slot: if it comes again, all of it is new."""
        self._window.forget_one(slot, signature)

    def find(self, slot: int, signature: str) -> SeenTransaction | None:
        """Return the record of a transaction that was admitted before."""
        return self._window.find(slot, signature)

    def forget(self, slot: int) -> None:
        """Forget a dead slot: if it comes again, all of it is new."""
        self._window.forget(slot)

    def __len__(self) -> int:
        return len(self._window)


class _Versions(msgspec.Struct, gc=False):
    """The contents that an account had in a slot, in order, and how far each feed has reported them."""

    contents: list[Hashable]
    places: dict[Hashable, int]


class AccountDedupe:
    """Account versions by slot and key, matched by content, because write versions are comparable within one node only.

    Each feed may report the same versions. A content that returns (A, B, A) is a version of its own, unless a feed only
    repeats the version that it reported last.
    """

    def __init__(self, slots_max: int = SLOTS_MAX, versions_max: int = ACCOUNT_VERSIONS_MAX) -> None:
        self._window = _Window[_Versions](slots_max, versions_max)

    def admit(self, slot: int, pubkey: str, feed: Hashable, content: Hashable) -> int | None:
        """Return the number of the account's version in this slot, counted from 0; None for a version that was seen."""
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
        """Forget a dead slot: if it comes again, all of it is new."""
        self._window.forget(slot)

    def __len__(self) -> int:
        return len(self._window)
