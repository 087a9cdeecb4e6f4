"""The logs of orders that were accepted here a moment ago: a client that follows one need not wait for the database."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from headrace.model.orders import Order, OrderEvent, OrderRequest

ORDERS_MAX: Final = 1024
EVENTS_MAX: Final = 100


class Recent(NamedTuple):
    """A new order's request, and all its events since, `seq` 1 first."""

    request: OrderRequest
    events: list[OrderEvent]


class RecentOrders:
    """Keep committed events of a store. An order whose log would have a hole, or is long, is forgotten."""

    def __init__(self) -> None:
        self._orders: OrderedDict[str, Recent] = OrderedDict()

    def expect(self, order: Order) -> None:
        """Keep the events of an order that is about to be accepted here."""
        self._orders[order.id] = Recent(order.request, [])
        if len(self._orders) > ORDERS_MAX:
            self._orders.popitem(last=False)

    def hear(self, events: Sequence[OrderEvent]) -> None:
        """Take committed events."""
        for event in events:
            known = self._orders.get(event.order_id)
            if known is None or event.seq <= len(known.events):
                continue
            if event.seq == len(known.events) + 1 <= EVENTS_MAX:
                known.events.append(event)
            else:
                del self._orders[event.order_id]

    def get(self, order_id: str) -> Recent | None:
        """Return the order's log; None for an order that is not known here, although the store may have it."""
        known = self._orders.get(order_id)
        return known if known is not None and known.events else None
