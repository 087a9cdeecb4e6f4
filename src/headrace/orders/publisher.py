"""Puts committed order events on the bus: `order:<id>` for whoever watches one, `orders:<user>` for its owner."""

from collections.abc import Sequence

from headrace.bus import Bus
from headrace.model.events import Publication
from headrace.model.orders import OrderEvent
from headrace.protocol.orders import event_frame, notification, transaction_update
from headrace.runtime.channel import Channel, ChannelClosed
from headrace.runtime.metrics import Metrics

CAPACITY = 65_536


class Publisher:
    """Publish the store's events on the bus. Under pressure the oldest are dropped: the orders' logs have all."""

    def __init__(self, bus: Bus, metrics: Metrics) -> None:
        self._bus = bus
        self._dropped = metrics.counter("orders_news_dropped", "Order events that the bus was too slow for")
        self._news: Channel[OrderEvent] = Channel(CAPACITY, "drop_oldest", name="orders")

    def hear(self, events: Sequence[OrderEvent]) -> None:
        """Take committed events of the store."""
        before = self._news.dropped
        for event in events:
            self._news.put_nowait(event)
        self._dropped.inc(self._news.dropped - before)

    async def run(self) -> None:
        """Publish until `close`."""
        while True:
            try:
                batch = await self._news.get_batch()
            except ChannelClosed:
                return
            await self._bus.publish([publication for event in batch for publication in _publications(event)])

    def close(self) -> None:
        """End `run` once what waits is published."""
        self._news.close()


def _publications(event: OrderEvent) -> list[Publication]:
    """Return the update for both topics, and for the owner also the messages that applications know."""
    key = b'"event_id":"%b:%d' % (event.order_id.encode(), event.seq)
    update = b'%b","data":%b' % (key, event_frame(event))
    owner = f"orders:{event.user_id}"
    publications = [
        Publication(f"order:{event.order_id}", "event", update),
        Publication(owner, "event", update),
        Publication(owner, "event", b'%b:status","data":%b' % (key, transaction_update(event))),
    ]
    notice = notification(event)
    if notice is not None:
        publications.append(Publication(owner, "event", b'%b:notice","data":%b' % (key, notice)))
    return publications
