"""The logs of orders that were taken in here a moment ago: who follows a new one need not wait for the database."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from headrace.model.orders import Order, OrderEvent, OrderRequest

ORDERS_MAX: Final = 1024
EVENTS_MAX: Final = 100


class Recent(NamedTuple):
    """What was asked, and all that was told of it since, `seq` 1 first."""

    request: OrderRequest
    events: list[OrderEvent]


class RecentOrders:
    """Hears a store, so what it shows is committed. An order whose log would have a hole, or is long, is forgotten."""

    def __init__(self) -> None:
        self._orders: OrderedDict[str, Recent] = OrderedDict()

    def expect(self, order: Order) -> None:
        """It is about to be accepted here."""
        self._orders[order.id] = Recent(order.request, [])
        if len(self._orders) > ORDERS_MAX:
            self._orders.popitem(last=False)

    def hear(self, events: Sequence[OrderEvent]) -> None:
        """A sink for the store."""
        for event in events:
            known = self._orders.get(event.order_id)
            if known is None or event.seq <= len(known.events):
                continue
            if event.seq == len(known.events) + 1 <= EVENTS_MAX:
                known.events.append(event)
            else:
                del self._orders[event.order_id]

    def get(self, order_id: str) -> Recent | None:
        """None for an order of which nothing is known here; the store may have it."""
        known = self._orders.get(order_id)
        return known if known is not None and known.events else None
