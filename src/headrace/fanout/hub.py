"""Fans messages out: framed once per group, joined, and one write per client per tick."""

import asyncio
from collections.abc import Sequence
from typing import Final

from headrace.bus import Bus, Change
from headrace.cache import Snapshots
from headrace.fanout.catch_up import CatchUp
from headrace.fanout.feeds import Feed
from headrace.fanout.groups import Client, Group, Subscription
from headrace.fanout.histories import Histories
from headrace.fanout.limits import Limits
from headrace.fanout.replays import Replays
from headrace.fanout.windows import Windows
from headrace.model.errors import RequestError
from headrace.model.events import Message
from headrace.protocol import frames
from headrace.protocol.codes import CloseCode
from headrace.protocol.frames import FrameId, Framer
from headrace.protocol.session import History, Subscribe
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor

WRITES_PER_TURN: Final = 512
"""Clients written to before the event loop gets a turn for everything else."""


class Hub:
    """Delivers the bus to clients.

    Order: a client gets each topic in offset order; after an ack come replay, then live, without a hole or a repeat.
    A client whose socket is full leaves its groups, and nothing is queued for it. What becomes of each subscription
    when it takes data again is told in `Replays.resume`.
    """

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        limits: Limits,
        metrics: Metrics,
        supervisor: Supervisor,
        framer: Framer | None = None,
        cache: Snapshots | None = None,
    ) -> None:
        self._clock, self._limits = clock, limits
        self._framer: Framer = framer or frames.EventFramer()
        self.clients: dict[Client, None] = {}
        self.subscriptions = 0
        """Topics of all connections. Counted as they come and go: metrics are read in a thread."""
        self._feeds: dict[str, Feed] = {}
        self._interest = bus.subscribe(self.sink, changed=self.changed)
        self._dirty: list[Group] = []
        self._histories = Histories(bus, supervisor, self._framer)
        self._wake = asyncio.Event()
        self.windows = Windows(clock, self._soon)
        self._replays = Replays(
            bus, cache, clock, limits, metrics, supervisor, self._framer, wake=self._wake.set, refuse=self._refuse
        )
        self._frames = metrics.counter("gateway_frames", "Event frames sent to clients")
        self._bytes = metrics.counter("gateway_bytes", "Bytes of event frames sent to clients")
        self._paused = metrics.counter("gateway_paused", "Times a client's socket was full")
        self._flush_s = metrics.histogram("gateway_flush_seconds", "Time to frame and write one tick")
        metrics.gauge("gateway_connections", "Open WebSocket connections").set_function(lambda: len(self.clients))
        metrics.gauge("gateway_subscriptions", "Topics of all connections").set_function(lambda: self.subscriptions)

    @property
    def busy(self) -> bool:
        """Whether a tick would send something."""
        return bool(self._dirty)

    @property
    def owing(self) -> bool:
        """Whether somebody waits for an answer that the bus has yet to give."""
        return self._histories.reading or any(feed.holding for feed in self._feeds.values())

    def topics(self) -> dict[str, int]:
        """Topics that someone listens to, with how many do."""
        return {topic: feed.subscriptions for topic, feed in self._feeds.items()}

    def sink(self, messages: Sequence[Message]) -> None:
        """Take live messages; see `bus.Sink`."""
        feeds, dirty = self._feeds, self._dirty
        for message in messages:
            feed = feeds.get(message.topic)
            if feed is not None:
                feed.take(message, dirty)
                if feed.holding:
                    self._replays.hold(feed, message)
        if self._dirty:
            self._wake.set()

    def changed(self, change: Change) -> None:
        """End the connections of clients whose topic lost messages on its way here: they recover, or learn the loss.

        A new epoch needs no answer: clients see it in the next message.
        """
        if change.kind == "incomplete":
            topics = set(change.topics)
            for client in [client for client in self.clients if not topics.isdisjoint(client.subscriptions)]:
                client.cut_off(CloseCode.INSUFFICIENT_STATE)

    def close(self) -> None:
        """Take no more from the bus."""
        self._interest.close()

    async def run(self) -> None:
        """Write, rest, write, for ever.

        It rests at least as long as it wrote, which leaves the loop half of its time and joins more the busier it is;
        only while a burst waits to be sent in pieces it goes on after a tick.
        """
        clock = self._clock
        while True:
            await self._wake.wait()
            self._wake.clear()
            began_s = clock.monotonic()
            more = await self.flush()
            took_s = clock.monotonic() - began_s
            self._flush_s.observe(took_s)
            tick_s = self._limits().tick_ms / 1000
            await clock.sleep(tick_s if more else max(tick_s, took_s))

    async def flush(self) -> bool:
        """One tick; returns whether it left something for the next."""
        dirty, self._dirty = self._dirty, []
        touched: list[Client] = []
        sent_frames = sent_bytes = 0
        for group in dirty:
            sent = group.cut(self._framer, touched)
            sent_frames += sent.frames
            sent_bytes += sent.bytes
            if group.pending:
                self._dirty.append(group)
        self._frames.inc(sent_frames)
        self._bytes.inc(sent_bytes)
        more = self.busy
        for start in range(0, len(touched), WRITES_PER_TURN):
            for client in touched[start : start + WRITES_PER_TURN]:
                client.flush()
            await self._clock.sleep(0)
        self._replays.pump()
        if self._dirty or self._replays.busy:
            self._wake.set()
        return more

    def add(self, client: Client) -> None:
        self.clients[client] = None

    def remove(self, client: Client) -> None:
        """Forget a client and all it had; idempotent."""
        if self.clients.pop(client, self) is self:
            return
        client.open = False
        client.out.clear()
        self._histories.forget(client)
        for topic in list(client.subscriptions):
            self.unsubscribe(client, topic)

    def subscribe(self, client: Client, wanted: Subscribe) -> None:
        """Begin delivery, answer with `subscribed` or an error, replay first if asked to."""
        feed = self._feeds.get(wanted.topic) or Feed(wanted.topic, self.windows)
        try:
            group = feed.add(wanted.filter, wanted.conflate, self._limits().filter_nodes_max)
        except RequestError as failure:
            client.not_subscribed(wanted.topic)
            self._fail(client, wanted.request_id, failure)
            return
        if wanted.topic not in self._feeds:
            self._feeds[wanted.topic] = feed
            self._interest.add(wanted.topic)
        self.subscriptions += 1
        subscription = Subscription(client, group, wanted.request_id, wanted.on_slow, snapshot=wanted.snapshot)
        client.subscriptions[wanted.topic] = subscription
        top = group.top
        if wanted.recover is None and top is not None and not wanted.snapshot:
            subscription.is_at(top)
            self._replays.acknowledge(subscription, CatchUp(top, [], [], recovered=False), recovering=False)
            self._replays.go_on(subscription)
        else:
            self._replays.begin(subscription, wanted.recover)

    def unsubscribe(self, client: Client, topic: str) -> Subscription | None:
        """End delivery at once; returns what there was."""
        subscription = client.subscriptions.pop(topic, None)
        if subscription is None:
            return None
        self.subscriptions -= 1
        self._replays.end(subscription)
        group = subscription.group
        group.leave(subscription)
        group.feed.holding.pop(subscription, None)
        group.feed.remove(group)
        if not group.feed.subscriptions:
            del self._feeds[topic]
            self._interest.remove(topic)
        return subscription

    def history(self, client: Client, wanted: History) -> None:
        """Answer with a page of a topic's log."""
        self._histories.ask(client, wanted)

    def pause(self, client: Client) -> None:
        """Its socket is full: it leaves its groups until `resume`."""
        self._paused.inc()
        client.paused = True
        for subscription in client.subscriptions.values():
            self._replays.rest(subscription)
            subscription.group.leave(subscription)

    def resume(self, client: Client) -> None:
        """It takes data again."""
        client.paused = False
        for subscription in list(client.subscriptions.values()):
            if client.open and subscription.task is None:
                self._replays.resume(subscription)
        self._histories.go_on(client)

    def tops(self, client: Client) -> dict[str, int]:
        """For each of its topics the offset up to which it has got everything that it gets."""
        tops = {topic: self._replays.place(subscription) for topic, subscription in client.subscriptions.items()}
        return {topic: top.offset for topic, top in tops.items() if top is not None}

    def _soon(self, group: Group) -> None:
        """It has something to send now."""
        self._dirty.append(group)
        self._wake.set()

    def _refuse(self, subscription: Subscription, failure: RequestError) -> None:
        """What was asked for can't be had."""
        client, topic = subscription.client, subscription.group.topic
        self.unsubscribe(client, topic)
        client.not_subscribed(topic)
        self._fail(client, subscription.request_id, failure)

    @staticmethod
    def _fail(client: Client, request_id: FrameId, failure: RequestError) -> None:
        client.send(frames.error(failure, request_id))
