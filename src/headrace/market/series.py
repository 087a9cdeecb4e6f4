"""Trades of one mint against one quote in the last 24 hours, by minute: exact, in any order, and revocable. Pure."""

from bisect import insort
from typing import Final, NamedTuple, TypeAlias

from headrace.model.trades import PRICED_UNITS_MIN, Place, SeenTrade

MINUTE_S: Final = 60
WINDOW_MINUTES: Final = 24 * 60
"""Number of minutes in the window: the newest trade's minute and the 1,439 minutes before it."""

Key: TypeAlias = tuple[str, str]
"""Mint and quote mint of a series."""


class Point(NamedTuple):
    """Time and amounts of a trade, in base units. Points are compared by minute, then slot, then arrival."""

    minute: int
    slot: int
    nth: int
    base: int
    quote: int
    time_s: int

    @property
    def priced(self) -> bool:
        return self.base >= PRICED_UNITS_MIN and self.quote >= PRICED_UNITS_MIN


class Entry:
    """A trade that may still be taken back."""

    __slots__ = ("place", "point", "series")

    def __init__(self, series: "Series", point: Point, place: Place) -> None:
        self.series, self.point, self.place = series, point, place

    def __lt__(self, other: "Entry") -> bool:
        return self.point < other.point


class View(NamedTuple):
    """The numbers of a series at one moment.

    The price is `quote / base` of `last`. The change is measured from `reference`: the last trade before the window, or
    the first trade known. `volume` is in base units of the quote. Trades before `since_s` are unknown and not included.
    `place` is the place of the newest trade.
    """

    last: Point
    reference: Point
    volume: int
    since_s: int
    place: Place
    final: bool


class _Minute:
    """Trades of one minute.

    Final trades are kept as sums; trades that may be taken back are kept one by one and in order.
    `first` and `last` are the first and last final trades that have a price.
    """

    __slots__ = ("first", "last", "pending", "volume")

    def __init__(self) -> None:
        self.volume = 0
        self.first: Point | None = None
        self.last: Point | None = None
        self.pending: list[Entry] = []

    def open(self) -> Point | None:
        """Return the first trade with a price."""
        for entry in self.pending:
            if entry.point.priced:
                return entry.point if self.first is None else min(self.first, entry.point)
        return self.first

    def close(self) -> Point | None:
        """Return the last trade with a price."""
        for entry in reversed(self.pending):
            if entry.point.priced:
                return entry.point if self.last is None else max(self.last, entry.point)
        return self.last


class Series:
    """Trades of one mint against one quote, by minute.

    Minutes are kept as far back as a retraction could bring them into the window again.
    """

    __slots__ = (
        "_before",
        "_final",
        "_keys",
        "_minutes",
        "_place",
        "_volume",
        "due",
        "key",
        "sent_slot",
        "token_id",
        "trade",
    )

    def __init__(self, trade: SeenTrade) -> None:
        self.trade = trade
        """The trade that arrived last, with the known facts about the mints."""
        self.sent_slot: int | None = None
        self.key: Key = (trade.mint, trade.quote_mint)
        self.due: int | None = None  # the slot until which a message is held back
        self.token_id = ""  # created with the first message
        self._minutes: dict[int, _Minute] = {}
        self._keys: list[int] = []  # the keys of _minutes, ascending
        self._before: Point | None = None  # the last trade with a price in minutes no longer kept
        self._final: Point | None = None  # the newest trade that is final, and its place
        self._place = trade.place
        self._volume = 0  # of all minutes that are kept

    def __len__(self) -> int:
        """Return the number of minutes kept."""
        return len(self._minutes)

    def add(self, trade: SeenTrade, nth: int) -> Entry:
        """Count a trade, the `nth` to arrive. The returned entry may be taken back until it is settled."""
        self.trade = trade
        number = trade.time_s // MINUTE_S
        point = Point(number, trade.place.slot, nth, trade.base_amount, trade.quote_amount, trade.time_s)
        minute = self._minutes.get(number)
        if minute is None:
            minute = self._minutes[number] = _Minute()
            insort(self._keys, number)
        entry = Entry(self, point, trade.place)
        minute.volume += point.quote
        self._volume += point.quote
        if minute.pending and entry < minute.pending[-1]:
            insort(minute.pending, entry)
        else:
            minute.pending.append(entry)
        return entry

    def settle(self, entry: Entry) -> None:
        """Make a trade final."""
        point = entry.point
        minute = self._minutes[point.minute]
        minute.pending.remove(entry)
        if point.priced:
            minute.first = point if minute.first is None else min(minute.first, point)
            minute.last = point if minute.last is None else max(minute.last, point)
        if self._final is None or self._final < point:
            self._final, self._place = point, entry.place
        self._let_go(self._final.minute - WINDOW_MINUTES)

    def take_back(self, entry: Entry) -> None:
        """Remove a trade that did not happen."""
        number = entry.point.minute
        minute = self._minutes[number]
        minute.pending.remove(entry)
        minute.volume -= entry.point.quote
        self._volume -= entry.point.quote
        if not minute.volume:  # empty trades are not counted, so a minute without volume has no trades
            del self._minutes[number]
            self._keys.remove(number)

    def view(self) -> View | None:
        """Return the current numbers. None if no trade with a price is left."""
        if not self._keys:
            return None
        final, place, newest = True, self._place, self._minutes[self._keys[-1]]
        if newest.pending and (self._final is None or self._final < newest.pending[-1].point):
            final, place = False, newest.pending[-1].place
        over = self._keys[-1] - WINDOW_MINUTES
        begin, before, volume = 0, self._before, self._volume
        while self._keys[begin] <= over:
            minute = self._minutes[self._keys[begin]]
            before, volume = _later(before, minute.close()), volume - minute.volume
            begin += 1
        inside = range(begin, len(self._keys))
        last = next((p for at in reversed(inside) if (p := self._minutes[self._keys[at]].close())), before)
        if last is None:
            return None
        if before is not None:
            return View(last, before, volume, (over + 1) * MINUTE_S, place, final)
        reference = next(p for at in inside if (p := self._minutes[self._keys[at]].open()))
        return View(last, reference, volume, reference.time_s, place, final)

    def _let_go(self, over: int) -> None:
        """Drop minutes that no retraction can bring back into the window. Keep only their last price."""
        while self._keys[0] <= over and not self._minutes[self._keys[0]].pending:
            minute = self._minutes.pop(self._keys.pop(0))
            self._before = _later(self._before, minute.last)
            self._volume -= minute.volume


def _later(one: Point | None, other: Point | None) -> Point | None:
    return one if other is None or (one is not None and other < one) else other
