"""Publishes committed order events on the bus: on `order:<id>`, and on `orders:<user>` for the owner."""

from collections.abc import Sequence

from headrace.bus import Writer
from headrace.bus.lanes import publish_until_answered
from headrace.model.events import Publication, TopicHandle
from headrace.model.orders import OrderEvent
from headrace.protocol.orders import event_frame, notification, transaction_update
from headrace.runtime.channel import Channel, ChannelClosed
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics

CAPACITY = 65_536


class Publisher:
    """Publish the store's events on the bus.

    If the bus is too slow, the oldest unpublished events are dropped. They are still in the orders' logs.
    """

    def __init__(self, writer: Writer, clock: Clock, metrics: Metrics) -> None:
        self._writer, self._clock = writer, clock
        self._dropped = metrics.counter("orders_news_dropped", "Order events that the bus was too slow for")
        self._news: Channel[OrderEvent] = Channel(CAPACITY, "drop_oldest", name="orders")

    def hear(self, events: Sequence[OrderEvent]) -> None:
        """Queue committed events for publication."""
        before = self._news.dropped
        for event in events:
            self._news.put_nowait(event)
        self._dropped.inc(self._news.dropped - before)

    async def run(self) -> None:
        """Publish until `close` is called."""
        while True:
            try:
                batch = await self._news.get_batch()
            except ChannelClosed:
                return
            publications = [publication for event in batch for publication in _publications(event)]
            await publish_until_answered(self._writer, publications, self._clock)

    def close(self) -> None:
        """End `run` once the queued events are published."""
        self._news.close()


def _publications(event: OrderEvent) -> list[Publication]:
    """Return the event for both topics and, for the owner, also the messages in the form that applications know."""
    key = b'"event_id":"%b:%d' % (event.order_id.encode(), event.seq)
    update = b'%b","data":%b' % (key, event_frame(event))
    order, owner = TopicHandle(f"order:{event.order_id}"), TopicHandle(f"orders:{event.user_id}")
    publications = [
        Publication((order, owner), "event", update),
        Publication((owner,), "event", b'%b:status","data":%b' % (key, transaction_update(event))),
    ]
    notice = notification(event)
    if notice is not None:
        publications.append(Publication((owner,), "event", b'%b:notice","data":%b' % (key, notice)))
    return publications
