"""Resting orders by what they wait for: a trade finds those that it concerns without a look at the others. Pure."""

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from fractions import Fraction
from typing import Literal, NamedTuple, TypeAlias

from headrace.model.orders import Order

_Queue: TypeAlias = tuple[str, str, Literal["at_least", "at_most"]]
"""Mint in, mint out, and from which side the rate must come."""


class _Place(NamedTuple):
    rate: Fraction
    order_id: str


class Waiting:
    """Each pair's orders, sorted by rate. What `take` gives are those of which `Trigger.is_met` is true."""

    def __init__(self) -> None:
        self._orders: dict[str, Order] = {}
        self._queues: dict[_Queue, list[_Place]] = {}
        self._mints: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._orders)

    def has(self, mint: str) -> bool:
        """Whether an order gives or wants this mint."""
        return mint in self._mints

    def add(self, order: Order) -> None:
        """An order with a trigger; nothing if it is here."""
        trigger = order.request.trigger
        if trigger is None or order.id in self._orders:
            return
        self._orders[order.id] = order
        mint_in, mint_out = order.request.token_in.mint, order.request.token_out.mint
        self._mints.update((mint_in, mint_out))
        queue = self._queues.setdefault((mint_in, mint_out, trigger.when), [])
        insort(queue, _Place(Fraction(trigger.out, trigger.per), order.id))

    def remove(self, order_id: str) -> None:
        """Nothing if it is not here."""
        order = self._orders.get(order_id)
        if order is None or order.request.trigger is None:
            return
        trigger = order.request.trigger
        which: _Queue = (order.request.token_in.mint, order.request.token_out.mint, trigger.when)
        at = bisect_left(self._queues[which], _Place(Fraction(trigger.out, trigger.per), order_id))
        self._cut(which, at, at + 1)

    def take(self, mint_in: str, mint_out: str, out: int, per: int) -> list[Order]:
        """Remove and return the orders that a market is enough for that gives `out` for `per`, both more than 0."""
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
