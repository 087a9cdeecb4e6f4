"""Waiting orders by pair and rate. A trade finds the orders that it reaches without examining any other order. Pure."""

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Literal, NamedTuple, TypeAlias

from headrace.model.orders import Order, Trigger

_Queue: TypeAlias = tuple[str, str, Literal["at_least", "at_most"]]
"""Mint in, mint out, and the side of the trigger's rate on which the market must be."""


class _Place(NamedTuple):
    rate: Fraction
    order_id: str


class Waiting:
    """Each pair's orders, sorted by the rate that `rate_of` returns. An order without a rate is not kept.

    `take` returns exactly the orders for which `Trigger.is_met` is true.
    """

    def __init__(self, rate_of: Callable[[Order], Trigger | None] = lambda order: order.trigger) -> None:
        self._rate_of = rate_of
        self._orders: dict[str, Order] = {}
        self._queues: dict[_Queue, list[_Place]] = {}
        self._mints: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._orders)

    def has(self, mint: str) -> bool:
        """Return whether any order gives or wants this mint."""
        return mint in self._mints

    def get(self, order_id: str) -> Order | None:
        """Return the order as it was added."""
        return self._orders.get(order_id)

    def add(self, order: Order) -> None:
        """Add an order, unless it was added before or has no rate."""
        if order.id in self._orders or (rate := self._rate_of(order)) is None:
            return
        self._orders[order.id] = order
        mint_in, mint_out = order.request.token_in.mint, order.request.token_out.mint
        self._mints.update((mint_in, mint_out))
        queue = self._queues.setdefault((mint_in, mint_out, rate.when), [])
        insort(queue, _Place(Fraction(rate.out, rate.per), order.id))

    def remove(self, order_id: str) -> None:
        """Remove an order, if it was added."""
        order = self._orders.get(order_id)
        if order is None or (rate := self._rate_of(order)) is None:
            return
        which: _Queue = (order.request.token_in.mint, order.request.token_out.mint, rate.when)
        at = bisect_left(self._queues[which], _Place(Fraction(rate.out, rate.per), order_id))
        self._cut(which, at, at + 1)

    def take(self, mint_in: str, mint_out: str, out: int, per: int) -> list[Order]:
        """Remove and return the orders whose rate the market reaches at `out` for `per`, both more than 0."""
        rate, taken = Fraction(out, per), list[Order]()
        if queue := self._queues.get((mint_in, mint_out, "at_least")):
            taken += self._cut((mint_in, mint_out, "at_least"), 0, bisect_right(queue, rate, key=_rate_of))
        if queue := self._queues.get((mint_in, mint_out, "at_most")):
            at = bisect_left(queue, rate, key=_rate_of)
            taken += self._cut((mint_in, mint_out, "at_most"), at, len(queue))
        return taken

    def _cut(self, which: _Queue, start: int, end: int) -> list[Order]:
        queue = self._queues[which]
        cut = [self._orders.pop(place.order_id) for place in queue[start:end]]
        del queue[start:end]
        if not queue:
            del self._queues[which]
        for mint in which[:2] if cut else ():
            self._mints[mint] -= len(cut)
            if not self._mints[mint]:
                del self._mints[mint]
        return cut


def _rate_of(place: _Place) -> Fraction:
    return place.rate
