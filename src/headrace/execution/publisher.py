"""Puts committed order events on the bus: `order:<id>` for whoever watches one, `orders:<user>` for its owner."""

from collections.abc import Sequence

from headrace.bus import Bus
from headrace.model.events import Publication
from headrace.model.orders import OrderEvent
from headrace.protocol.orders import event_frame
from headrace.runtime.channel import Channel, ChannelClosed
from headrace.runtime.metrics import Metrics

CAPACITY = 65_536


class Publisher:
    """Hears the store, tells the bus. Under pressure the oldest news is dropped: the order's own log has it all."""

    def __init__(self, bus: Bus, metrics: Metrics) -> None:
        self._bus = bus
        self._dropped = metrics.counter("orders_news_dropped", "Order events that the bus was too slow for")
        self._news: Channel[OrderEvent] = Channel(CAPACITY, "drop_oldest", name="orders")

    def hear(self, events: Sequence[OrderEvent]) -> None:
        """A sink for the store."""
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
        self._news.close()


def _publications(event: OrderEvent) -> list[Publication]:
    body = b'"event_id":"%b:%d","data":%b' % (event.order_id.encode(), event.seq, event_frame(event))
    return [
        Publication(f"order:{event.order_id}", "event", body),
        Publication(f"orders:{event.user_id}", "event", body),
    ]
