"""Feeds the market statistics with trades and the fates of slots, and makes messages of what follows from them."""

from collections.abc import Iterable
from typing import Protocol

from headrace.ingest.bodies import derived_body
from headrace.ingest.chain_time import ChainTime
from headrace.ingest.forks import Forks, Settlement
from headrace.ingest.gaps import FeedTopics
from headrace.ingest.mints import Mints
from headrace.model.events import DecodedEvent, Label, Publication
from headrace.model.trades import Derived, Place, SeenTrade, Trade
from headrace.model.updates import Commitment, LandingUpdate, LogsUpdate, TransactionUpdate


class Market(Protocol):
    """The port to what counts trades: `headrace.market.stats`, which this room may not import, or `NoMarket`.

    Each call returns the messages that are due. They are published in this order, right after the messages of the
    update that led to the call. Every trade that is not final is named later by its slot: in `retract` if the slot
    died, else in `settle`, unless the slot is never decided.
    """

    def apply(self, trade: SeenTrade) -> list[Derived]:
        """A trade happened, for the first and only time."""

    def advance(self, slot: int) -> list[Derived]:
        """The chain has come to this slot."""

    def retract(self, slot: int) -> list[Derived]:
        """The slot died: its trades did not happen."""

    def withdraw(self, slot: int, signature: str) -> list[Derived]:
        """The transaction is not in the slot's block: its trades did not happen."""

    def settle(self, slot: int) -> None:
        """The slot's trades are final."""

    def reset(self) -> None:
        """What comes next is a new telling of the same."""


class NoMarket:
    """Counts nothing."""

    def apply(self, trade: SeenTrade) -> list[Derived]:
        return []

    def advance(self, slot: int) -> list[Derived]:
        return []

    def retract(self, slot: int) -> list[Derived]:
        return []

    def withdraw(self, slot: int, signature: str) -> list[Derived]:
        return []

    def settle(self, slot: int) -> None:
        pass

    def reset(self) -> None:
        pass


class MarketFeed:
    """One telling. What the market says is an event of the newest trade's slot, so a fork takes it back like others."""

    def __init__(self, market: Market, mints: Mints, forks: Forks, feeds: FeedTopics) -> None:
        market.reset()
        self._market, self._mints, self._forks, self._feeds = market, mints, forks, feeds
        self._times = ChainTime()

    def trades(
        self,
        update: LogsUpdate | TransactionUpdate,
        trades: Iterable[tuple[Trade, DecodedEvent]],
        commitment: Commitment,
    ) -> list[Publication]:
        """The messages that follow from the trades of a transaction."""
        place = Place(update.slot, update.signature, update.source, update.feed)
        derived: list[Derived] = []
        for trade, event in trades:
            if trade.mint is None or trade.quote_mint is None:
                continue
            base = self._mints.of(trade.mint)
            seen = SeenTrade(
                mint=trade.mint,
                quote_mint=trade.quote_mint,
                base_amount=trade.base_amount,
                quote_amount=trade.quote_amount,
                time_s=self._times.of(update, event.data),
                place=place,
                final=commitment != "processed",
                decimals=base.decimals,
                quote_decimals=self._mints.of(trade.quote_mint).decimals,
                supply=base.supply,
            )
            derived += self._market.apply(seen)
        return self._told(derived)

    def slot(self, slot: int, settled: Settlement) -> list[Publication]:
        """The messages that follow from news of a slot."""
        derived: list[Derived] = []
        for final in settled.final:
            self._market.settle(final)
        for void in settled.void:
            derived += self._market.retract(void)
        return self._told(derived + self._market.advance(slot))

    def landing(self, update: LandingUpdate, settled: Settlement) -> list[Publication]:
        """The messages that follow from news of signatures."""
        derived = [each for signature in update.absent for each in self._market.withdraw(update.slot, signature)]
        for final in settled.final:
            self._market.settle(final)
        return self._told(derived)

    def _told(self, derived: Iterable[Derived]) -> list[Publication]:
        publications = []
        for each in derived:
            place = each.place
            commitment = self._forks.commitment(place.slot, "processed") or "processed"
            if each.final and commitment == "processed":
                commitment = "confirmed"
            event_id = f"{place.slot}:{each.name}"
            body = derived_body(each, event_id, commitment)
            label = Label(each.key, event_id, place.slot, commitment != "processed")
            topics = (each.topic, each.single)
            publications += [Publication(topic, "event", body, label) for topic in topics]
            if commitment == "processed":
                unproven = self._forks.provisional.is_unproven(place.slot, place.signature)
                signature = place.signature if unproven else ""
                self._forks.note(place.slot, [(topic, event_id) for topic in topics], signature)
            for topic in topics:
                self._feeds.note(place.feed, topic)
        return publications
