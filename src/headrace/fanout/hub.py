"""The fan-out: each message is framed once per group, and each client gets at most one write per tick."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from headrace.bus import Bus, Change
from headrace.cache import Snapshots
from headrace.fanout.catch_up import CatchUp
from headrace.fanout.client import Client, Limits
from headrace.fanout.feeds import Feed
from headrace.fanout.groups import ClientSubscription, Group
from headrace.fanout.pages import HistoryPages
from headrace.fanout.replays import Replays
from headrace.fanout.windows import Windows
from headrace.model.errors import RequestError
from headrace.model.events import Message
from headrace.model.topics import QUOTES_PREFIX
from headrace.protocol import frames
from headrace.protocol.codes import CloseCode, ErrorCode
from headrace.protocol.frames import FrameId, Framer
from headrace.protocol.session import History, Subscribe
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor

WRITES_PER_TURN: Final = 256
"""Number of clients written to, in about a millisecond, before other tasks on the event loop may run."""

_NONE_YET: Final[dict[str, ClientSubscription]] = {}
"""Subscriptions of every client that has none. Never written to. A dict for each such client would take 64 bytes."""


class Demand(Protocol):
    """Publishes on topics only while they have subscribers."""

    def begin(self, topic: str) -> None:
        """Begin: the topic has its first subscriber. Raises RequestError if nothing can be published there now."""

    def end(self, topic: str) -> None:
        """End: the topic lost its last subscriber."""


class Hub:
    """Delivers messages from the bus to clients.

    Order: a client gets each topic in offset order. The answer to `subscribe` is followed by the replay, then by live
    messages. None is missing or repeated.
    Slow clients: a client whose socket is full leaves its groups, and nothing is queued for it. `Replays.resume`
    describes what each subscription gets once the client accepts data again.
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
        self._framer: Framer = framer or frames.event_frame
        self.clients: dict[Client, dict[str, ClientSubscription]] = {}
        """Every client with its subscriptions by topic."""
        self.subscriptions = 0
        """Number of topics of all connections. Counted at every change, because metrics are read in a thread."""
        self.quotes: Demand | None = None
        """Publishes on topics of quotes. None: subscriptions to these topics are refused."""
        self._feeds: dict[str, Feed] = {}
        self._interest = bus.subscribe(self.sink, changed=self.changed)
        self._dirty: list[Group] = []
        self._histories = HistoryPages(bus, supervisor, self._framer)
        self._wake = asyncio.Event()
        self.windows: Windows[Group] = Windows(clock, self._schedule)
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
        """Return whether a tick would send something."""
        return bool(self._dirty)

    @property
    def owing(self) -> bool:
        """Return whether a client waits for an answer from the bus."""
        return self._histories.reading or any(feed.holding for feed in self._feeds.values())

    def topics(self) -> dict[str, int]:
        """Return the topics that have subscriptions on this server, with the number of subscriptions."""
        return {topic: feed.subscriptions for topic, feed in self._feeds.items()}

    def sink(self, messages: Sequence[Message]) -> None:
        """Handle live messages; see `bus.Sink`."""
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
        """Close the connections that subscribe to topics of which this server missed messages.

        The clients then recover.
        A new epoch needs no action: clients see the epoch in the next message.
        """
        if change.kind == "incomplete":
            topics = set(change.topics)
            for client in [client for client, has in self.clients.items() if not topics.isdisjoint(has)]:
                client.cut_off(CloseCode.INSUFFICIENT_STATE)

    def close(self) -> None:
        """Take no more messages from the bus."""
        self._interest.close()

    async def run(self) -> None:
        """Write and pause in turn, until cancelled."""
        clock = self._clock
        while True:
            await self._wake.wait()
            self._wake.clear()
            began_s = clock.monotonic()
            more = await self.flush()
            now_s = clock.monotonic()
            self._flush_s.observe(now_s - began_s)
            await clock.sleep(self._rest_s(now_s, more=more))

    def _rest_s(self, now_s: float, *, more: bool) -> float:
        """Return the pause in seconds before the next write: until the oldest waiting message is one tick old.

        Messages that arrive during the pause share the write. A busy hub does not pause: messages that arrived during a
        write share the next write, and other tasks on the loop run during the write. If there is `more` of a burst to
        send, the pause is one tick, so that clients can accept the part just written.
        """
        tick_s = self._limits().tick_ms / 1000
        if more or not self._dirty:
            return tick_s
        return max(0.0, self._dirty[0].oldest_s + tick_s - now_s)

    async def flush(self) -> bool:
        """Execute one tick. Return whether something is left for the next tick."""
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
        """Deliver to the client until `remove` is called."""
        self.clients[client] = _NONE_YET

    def remove(self, client: Client) -> None:
        """End all deliveries to the client. Idempotent."""
        if client not in self.clients:
            return
        client.open = False
        client.out = b""
        self._histories.forget(client)
        for topic in list(self.clients[client]):
            self.unsubscribe(client, topic)
        del self.clients[client]

    def subscribe(self, client: Client, wanted: Subscribe) -> None:
        """Start delivery and answer with `subscribed` or an error. If the command asks for it, replay first."""
        feed = self._feeds.get(wanted.topic) or Feed(wanted.topic, self.windows)
        try:
            group = feed.add(wanted.filter, wanted.conflate, self._limits().filter_nodes_max)
            if wanted.topic.startswith(QUOTES_PREFIX) and wanted.topic not in self._feeds:
                self._begin_quotes(wanted.topic)
        except RequestError as failure:
            client.not_subscribed(wanted.topic)
            self._fail(client, wanted.request_id, failure)
            return
        if wanted.topic not in self._feeds:
            self._feeds[wanted.topic] = feed
            self._interest.add(wanted.topic)
        self.subscriptions += 1
        subscription = ClientSubscription(client, group, wanted.request_id, wanted.on_slow, snapshot=wanted.snapshot)
        if not self.clients[client]:
            self.clients[client] = {}
        self.clients[client][wanted.topic] = subscription
        top = feed.top
        if wanted.recover is None and top is not None and not wanted.snapshot:
            subscription.is_at(top)
            self._replays.acknowledge(subscription, CatchUp(top, [], [], recovered=False), recovering=False)
            self._replays.go_on(subscription)
        else:
            self._replays.begin(subscription, wanted.recover)

    def unsubscribe(self, client: Client, topic: str) -> ClientSubscription | None:
        """End delivery at once. Return the subscription that was removed."""
        subscription = self.clients.get(client, {}).pop(topic, None)
        if subscription is None:
            return None
        self.subscriptions -= 1
        self._replays.end(subscription)
        feed, group = self._feeds[topic], subscription.group
        group.leave(subscription)
        feed.holding.pop(subscription, None)
        feed.remove(group)
        if not feed.subscriptions:
            del self._feeds[topic]
            self._interest.remove(topic)
            if self.quotes is not None and topic.startswith(QUOTES_PREFIX):
                self.quotes.end(topic)
        return subscription

    def history(self, client: Client, wanted: History) -> None:
        """Answer with a page of a topic's log."""
        self._histories.ask(client, wanted)

    def pause(self, client: Client) -> None:
        """Remove a client whose socket is full from its groups, until `resume`."""
        self._paused.inc()
        client.paused = True
        for subscription in self.clients.get(client, {}).values():
            self._replays.rest(subscription)
            subscription.group.leave(subscription)

    def resume(self, client: Client) -> None:
        """Deliver again to a client that accepts data again."""
        client.paused = False
        for subscription in list(self.clients.get(client, {}).values()):
            if client.open and subscription.task is None:
                self._replays.resume(subscription)
        self._histories.go_on(client)

    def tops(self, client: Client) -> dict[str, int]:
        """Return, for each topic of the client, the offset up to which the client has received everything."""
        subscriptions = self.clients.get(client, {})
        tops = {topic: self._replays.place(subscription) for topic, subscription in subscriptions.items()}
        return {topic: top.offset for topic, top in tops.items() if top is not None}

    def _begin_quotes(self, topic: str) -> None:
        if self.quotes is None:
            raise RequestError(ErrorCode.BAD_REQUEST, "this server publishes no quotes")
        self.quotes.begin(topic)

    def _schedule(self, group: Group) -> None:
        """Send the group's messages in the next tick."""
        self._dirty.append(group)
        self._wake.set()

    def _refuse(self, subscription: ClientSubscription, failure: RequestError) -> None:
        client, topic = subscription.client, subscription.group.topic.name
        self.unsubscribe(client, topic)
        client.not_subscribed(topic)
        self._fail(client, subscription.request_id, failure)

    @staticmethod
    def _fail(client: Client, request_id: FrameId, failure: RequestError) -> None:
        client.send(frames.error(failure, request_id))
