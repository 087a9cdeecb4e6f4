"""Rolling price, 24 h change, 24 h volume and market cap of every mint that trades: `apply(trade)` → messages. Pure."""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Final

from headrace.market import MarketSettings
from headrace.market.messages import market_data, price_data
from headrace.market.series import Entry, Key, Series, View
from headrace.model.facts import Decision
from headrace.model.trades import Derived, SeenTrade, token_id_of
from headrace.model.undecided import Undecided

PENDING_SLOTS_MAX: Final = 512
PENDING_TRADES_MAX: Final = 200_000

_KINDS: Final = {
    "market": ("MarketData", "market-data", "market-data:"),
    "price": ("TokenPriceUpdate", "token_updates", "token:"),
}
"""Kind → type of the message, topic of all mints, and prefix of the mint's own topic."""


class Stats:
    """Counts trades and creates the messages of their mints.

    The first message of a mint is sent at once, later ones at most every `interval_slots` slots. Messages that are held
    back are sent with the first update of a later slot (`advance`). The interval is measured from the highest slot
    known, so late trades don't change it.
    A trade is counted as soon as it is applied. Until the trade is final, a decision can take it back; messages of its
    mint then follow at once. Above PENDING_SLOTS_MAX slots or PENDING_TRADES_MAX trades, the trades of the slot that
    was added first are treated as final.
    A mint has a series for each quote. Above the limits of the settings, the series with the oldest last trade is
    dropped. If that mint trades again, a new series begins, and `since` in its messages is the time of its first trade.
    """

    def __init__(self, settings: MarketSettings) -> None:
        self.trades: Counter[str] = Counter()
        """Number of trades by outcome: `applied`, `retracted` later, or `empty` (an amount is zero; not applied)."""
        self.messages: Counter[str] = Counter()
        self.forgotten = 0
        """Number of series dropped to make room."""
        self._settings = settings
        self.reset()

    def reset(self) -> None:
        """Drop all series. The counters keep their values."""
        self.minutes = 0
        """Number of minutes kept, of all series together."""
        self._series: OrderedDict[Key, Series] = OrderedDict()  # ordered by last trade, oldest first
        self._undecided = Undecided[Entry](PENDING_SLOTS_MAX, PENDING_TRADES_MAX)
        self._due: dict[int, dict[Key, Series]] = {}  # slot → series with messages held back until that slot
        self._head = 0
        self._applied = self._made = 0

    @property
    def held(self) -> int:
        """The number of series kept."""
        return len(self._series)

    def apply(self, trade: SeenTrade) -> list[Derived]:
        """Count a trade. Return all messages that are due, of every mint."""
        derived = self.advance(trade.place.slot)
        if not trade.base_amount or not trade.quote_amount:
            self.trades["empty"] += 1
            return derived
        self.trades["applied"] += 1
        self._applied += 1
        series = self._series_of(trade)
        held = len(series)
        entry = series.add(trade, self._applied)
        self.minutes += len(series) - held
        if trade.final:
            self._settle_one(entry)
        else:
            unproven = trade.place.signature if trade.unproven else ""
            for given_up in self._undecided.add(trade.place.slot, (entry,), unproven):
                self._settle_one(given_up)
        self._make_room()
        if series.sent_slot is None or self._head >= series.sent_slot + self._settings.interval_slots:
            derived += self._messages_of(series)
        elif series.due is None:
            series.due = series.sent_slot + self._settings.interval_slots
            self._due.setdefault(series.due, {})[series.key] = series
        return derived

    def advance(self, slot: int) -> list[Derived]:
        """Record the newest slot. Return the messages that were held back until this slot."""
        if slot <= self._head:
            return []
        self._head = slot
        return [
            derived
            for due in sorted(due for due in self._due if due <= slot)
            for series in [*self._due[due].values()]
            for derived in self._messages_of(series)
        ]

    def decide(self, decision: Decision) -> list[Derived]:
        """Make trades final, or take back those that did not happen.

        Return the new messages of mints whose trades were removed.
        """
        outcome = self._undecided.decide(decision)
        for entry in outcome.final:
            self._settle_one(entry)
        return [derived for entries in outcome.retracted for derived in self._take_back(entries)]

    def _take_back(self, entries: Sequence[Entry]) -> list[Derived]:
        touched: dict[Key, Series] = {}
        for entry in entries:
            series = entry.series
            held = len(series)
            series.take_back(entry)
            self.trades["retracted"] += 1
            if self._is_held(series):
                self.minutes += len(series) - held
                touched[series.key] = series
        return [derived for series in touched.values() for derived in self._messages_of(series)]

    def _settle_one(self, entry: Entry) -> None:
        series = entry.series
        held = len(series)
        series.settle(entry)
        if self._is_held(series):
            self.minutes += len(series) - held

    def _messages_of(self, series: Series) -> list[Derived]:
        self._not_due(series)
        series.sent_slot = self._head
        view = series.view()
        if view is None:
            return []
        trade = series.trade
        series.token_id = series.token_id or token_id_of(trade.mint)
        made = [self._derived("market", trade, market_data(series.token_id, view, trade), view)]
        price = price_data(series.token_id, view, trade)
        if price is not None:
            made.append(self._derived("price", trade, price, view))
        return made

    def _not_due(self, series: Series) -> None:
        if series.due is not None:
            waiting = self._due[series.due]
            del waiting[series.key]
            if not waiting:
                del self._due[series.due]
            series.due = None

    def _derived(self, kind: str, trade: SeenTrade, data: bytes, view: View) -> Derived:
        self._made += 1
        type_name, topic, single = _KINDS[kind]
        self.messages[type_name] += 1
        mint, key = trade.mint, f"{type_name} {trade.mint} {trade.quote_mint}"
        return Derived(topic, single + mint, key, f"{mint}:{kind}:{self._made}", data, view.place, view.final)

    def _series_of(self, trade: SeenTrade) -> Series:
        key = (trade.mint, trade.quote_mint)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = Series(trade)
        else:
            self._series.move_to_end(key)
        return series

    def _is_held(self, series: Series) -> bool:
        return self._series.get(series.key) is series

    def _make_room(self) -> None:
        bounds = self._settings
        while len(self._series) > 1 and (len(self._series) > bounds.mints_max or self.minutes > bounds.minutes_max):
            _, series = self._series.popitem(last=False)
            self.minutes -= len(series)
            self._not_due(series)
            self.forgotten += 1
