"""Passes trades and decisions about slots to the market statistics, and returns what follows from them."""

from collections.abc import Sequence
from typing import Protocol

from headrace.model.facts import DECISIONS, Dead, Decision, News, SlotChanged, Traded
from headrace.model.trades import Derived, Place, SeenTrade


class Market(Protocol):
    """The port to the statistics of trades: `headrace.market.stats`, which this package may not import, or `NoMarket`.

    Each call returns the messages that are due. They are published in this order, directly after the messages of the
    update that led to the call. Trades that are not final are settled by the rule in `model.facts.FactConsumer`.
    """

    def apply(self, trade: SeenTrade) -> list[Derived]:
        """Count a trade; each trade is passed only once."""

    def advance(self, slot: int) -> list[Derived]:
        """Note that the chain has reached this slot."""

    def decide(self, decision: Decision) -> list[Derived]:
        """Make trades of the slot final, or take them back."""

    def reset(self) -> None:
        """Forget everything: the same trades may come again."""


class NoMarket:
    """Counts nothing."""

    def apply(self, trade: SeenTrade) -> list[Derived]:
        return []

    def advance(self, slot: int) -> list[Derived]:
        return []

    def decide(self, decision: Decision) -> list[Derived]:
        return []

    def reset(self) -> None:
        pass


class MarketFeed:
    """A consumer of facts for the market, whose results become messages."""

    def __init__(self, market: Market) -> None:
        market.reset()
        self._market = market

    def hear(self, news: Sequence[News]) -> list[Derived]:
        """Return the market's results. If several slots are decided together, final slots come before dead ones."""
        derived: list[Derived] = []
        decisions: list[Decision] = []
        head = -1
        for each in news:
            kind = type(each)
            if kind is Traded:
                if (trade := _seen_trade(each)) is not None:  # type: ignore[arg-type]
                    derived += self._market.apply(trade)
            elif kind is SlotChanged:
                head = max(head, each.slot)  # type: ignore[union-attr]
            elif isinstance(each, DECISIONS):
                decisions.append(each)
        for decision in sorted(decisions, key=_dead_last):
            derived += self._market.decide(decision)
        return derived if head < 0 else derived + self._market.advance(head)


def _dead_last(decision: Decision) -> bool:
    return isinstance(decision, Dead)


def _seen_trade(fact: Traded) -> SeenTrade | None:
    """Return the trade in the form that the market counts; None if its mints are not known."""
    trade, origin = fact.trade, fact.seen.origin
    if trade.mint is None or trade.quote_mint is None:
        return None
    return SeenTrade(
        mint=trade.mint,
        quote_mint=trade.quote_mint,
        base_amount=trade.base_amount,
        quote_amount=trade.quote_amount,
        time_s=fact.time_s,
        place=Place(origin.slot, origin.signature or "", origin.source, origin.feed),
        final=origin.certain,
        unproven=origin.unproven,
        decimals=fact.base.decimals,
        quote_decimals=fact.quote.decimals,
        supply=fact.base.supply,
    )
