"""What was seen before: by slot and transaction, and by slot and account. Pure and bounded."""

from collections.abc import Hashable, Sequence
from typing import Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar

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
        self.grow(slot)[key] = entry

    def grow(self, slot: int) -> dict[str, T]:
        """Count one more thing in `slot`, after making room for it; gives the slot's entries."""
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
"""Path and ordinal: with slot and signature they are an event's id."""

Extent: TypeAlias = Literal["nothing", "event", "trade", "all"]
"""What of an event was published: nothing; the event itself, though not the trade or token that it is; its trade too,
but without a mint; or all that there is."""


class Standing(NamedTuple):
    """The place under which an event is published, and what of it was published before."""

    place: Place
    extent: Extent


class SeenTransaction(msgspec.Struct, gc=False):
    """The views of one transaction in one slot that came so far, and the events that were published from them."""

    views: int
    identities: tuple[
        int, ...
    ] = ()  # most transactions are seen once: these are looked through only when it comes again
    standings: tuple[Standing, ...] = ()
    feed: str = ""
    other_feeds: tuple[str, ...] = ()

    def is_new_to(self, feed: str) -> bool:
        """Note that `feed` brought it; return whether it is the first time, of one that others brought before."""
        if not self.feed:
            self.feed = feed
        elif feed != self.feed and feed not in self.other_feeds:
            self.other_feeds = (*self.other_feeds, feed)
            return True
        return False

    def standings_of(self, identities: Sequence[Hashable], places: Sequence[Place]) -> list[Standing]:
        """Return how each event of a view stands, in order.

        An identity names program, event and content. Equal events may happen several times in a transaction, so
        those of a view are counted: the third of three equal ones is new where two were published. Counting all
        events of a kind would not do: logs that were cut may lack one in the middle.

        `places` are those that the view gives. Of an event that was published, the first place stays; a new one gets
        the next free ordinal where its own is taken, for log lines count places otherwise than instructions.
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
        """Remember how the events of a view stand now; nothing of a transaction that no later view can add to."""
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
    """Return the same standing, kept once: there are few different ones."""
    if len(_standings) >= _STANDINGS_MAX:
        _standings.clear()
    return _standings.setdefault(standing, standing)


class TransactionDedupe:
    """Transactions by slot and signature: the same one in another slot (a fork) is another fact."""

    def __init__(self, slots_max: int = SLOTS_MAX, transactions_max: int = TRANSACTIONS_MAX) -> None:
        self._window = _Window[SeenTransaction](slots_max, transactions_max)

    def admit(self, slot: int, signature: str, view: int) -> SeenTransaction | None:
        """Return the record of a transaction of which this view may show something new; None if it can't."""
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
        """Forget a transaction that is not in the slot: should it come again, all of it is new."""
        self._window.forget_one(slot, signature)

    def find(self, slot: int, signature: str) -> SeenTransaction | None:
        """Return the record of a transaction that was admitted before."""
        return self._window.find(slot, signature)

    def forget(self, slot: int) -> None:
        """Forget a slot that died: should it happen anew, all of it is new."""
        self._window.forget(slot)

    def __len__(self) -> int:
        return len(self._window)


class _Versions(msgspec.Struct, gc=False):
    """The contents that an account had in a slot, in order, and how far each feed has reported them."""

    contents: list[Hashable]
    places: dict[Hashable, int]


class AccountDedupe:
    """Account versions by slot and key, matched by content: write versions are comparable within one node only.

    Each feed may report the same versions; a content that comes back (A, B, A) is a version of its own, unless a feed
    merely repeats the version that it reported last.
    """

    def __init__(self, slots_max: int = SLOTS_MAX, versions_max: int = ACCOUNT_VERSIONS_MAX) -> None:
        self._window = _Window[_Versions](slots_max, versions_max)

    def admit(self, slot: int, pubkey: str, feed: Hashable, content: Hashable) -> int | None:
        """Return the version of the account in this slot, counted from 0; None for one that was seen."""
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
        """Forget a slot that died: should it happen anew, all of it is new."""
        self._window.forget(slot)

    def __len__(self) -> int:
        return len(self._window)
