"""Logs of orders that this process accepted recently, so that a client can follow a new order without a query."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from headrace.model.orders import Order, OrderEvent, OrderRequest

ORDERS_MAX: Final = 1024
EVENTS_MAX: Final = 100


class Recent(NamedTuple):
    """A new order's request, and all its events so far, starting at `seq` 1."""

    request: OrderRequest
    events: list[OrderEvent]


class RecentOrders:
    """Keep the committed events of recent orders.

    An order is forgotten if an event is missing from its log, or if the log exceeds `EVENTS_MAX` events.
    """

    def __init__(self) -> None:
        self._orders: OrderedDict[str, Recent] = OrderedDict()

    def expect(self, order: Order) -> None:
        """Keep the events of an order that this process is about to accept."""
        self._orders[order.id] = Recent(order.request, [])
        if len(self._orders) > ORDERS_MAX:
            self._orders.popitem(last=False)

    def hear(self, events: Sequence[OrderEvent]) -> None:
        """Keep committed events of expected orders."""
        for event in events:
            known = self._orders.get(event.order_id)
            if known is None or event.seq <= len(known.events):
                continue
            if event.seq == len(known.events) + 1 <= EVENTS_MAX:
                known.events.append(event)
            else:
                del self._orders[event.order_id]

    def get(self, order_id: str) -> Recent | None:
        """Return the order's request and log. None: the order is not kept in memory, but may be in the store."""
        known = self._orders.get(order_id)
        return known if known is not None and known.events else None
