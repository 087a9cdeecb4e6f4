"""Fans messages out: framed once per group, joined, and one write per client per tick."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from headrace.bus import Bus
from headrace.gateway.catch_up import CatchUp, catch_up
from headrace.gateway.groups import CUT_BYTES, Client, Group, Subscription
from headrace.gateway.limits import Doorkeeper
from headrace.model.errors import RequestError, TransientError
from headrace.model.events import Message, Position
from headrace.protocol import frames
from headrace.protocol.codes import CloseCode, ErrorCode
from headrace.protocol.frames import FrameId, Framer
from headrace.protocol.session import History, Subscribe
from headrace.runtime.backoff import Backoff
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor

WRITES_PER_TURN: Final = 512
"""Clients written to before the event loop gets a turn for everything else."""

PUMP_BYTES: Final = 1_048_576
"""What one tick sends to clients that are catching up, all together, so that they don't slow the live ones."""

HISTORY_BYTES: Final = 524_288
"""Frames in one history answer; a page that would be longer has fewer messages."""

_INTERNAL: Final = RequestError(ErrorCode.INTERNAL, "internal error")
_UNAVAILABLE: Final = RequestError(ErrorCode.UNAVAILABLE, "temporarily unavailable", temporary=True)

_log = structlog.get_logger("gateway")


class Hub:
    """Delivers the bus to clients.

    Order: a client gets each topic in offset order; after an ack come replay, then live, without a hole or a repeat.
    A client whose socket is full leaves its groups. When it takes data again it is brought up to date from the topic's
    log; if that no longer reaches back to it, it is told its `lag` and closed with 4008. Nothing is queued for it.
    """

    def __init__(
        self, bus: Bus, keeper: Doorkeeper, metrics: Metrics, supervisor: Supervisor, framer: Framer | None = None
    ) -> None:
        self._bus, self._keeper, self._supervisor = bus, keeper, supervisor
        self._framer: Framer = framer or frames.EventFramer()
        self.clients: dict[Client, None] = {}
        self.users: Counter[str] = Counter()
        self._groups: dict[str, Group] = {}
        self._dirty: list[Group] = []
        self._pumping: OrderedDict[Subscription, None] = OrderedDict()
        self._wake = asyncio.Event()
        self._frames = metrics.counter("gateway_frames", "Event frames sent to clients")
        self._bytes = metrics.counter("gateway_bytes", "Bytes of event frames sent to clients")
        self._dropped = metrics.counter("gateway_dropped_messages", "Messages that slow clients were told they missed")
        self._paused = metrics.counter("gateway_paused", "Times a client's socket was full")
        self._flush_s = metrics.histogram("gateway_flush_seconds", "Time to frame and write one tick")
        metrics.gauge("gateway_connections", "Open WebSocket connections").set_function(lambda: len(self.clients))
        metrics.gauge("gateway_subscriptions", "Topics of all connections").set_function(lambda: self.subscriptions)

    @property
    def subscriptions(self) -> int:
        return sum(group.subscriptions for group in self._groups.values())

    @property
    def busy(self) -> bool:
        """Whether a tick would send something."""
        return bool(self._dirty)

    def topics(self) -> dict[str, int]:
        """Topics that someone listens to, with how many do."""
        return {topic: group.subscriptions for topic, group in self._groups.items()}

    def sink(self, messages: Sequence[Message]) -> None:
        """Take live messages; see `bus.Sink`."""
        groups = self._groups
        for message in messages:
            group = groups.get(message.topic)
            if group is not None:
                if not group.pending:
                    self._dirty.append(group)
                group.pending.append(message)
                if group.holding:
                    self._hold(group, message)
        if self._dirty:
            self._wake.set()

    async def run(self) -> None:
        """Write, rest, write, for ever.

        It rests at least as long as it wrote, which leaves the loop half of its time and joins more the busier it is;
        only while a burst waits to be sent in pieces it goes on after a tick.
        """
        clock = self._keeper.clock
        while True:
            await self._wake.wait()
            self._wake.clear()
            began_s = clock.monotonic()
            more = await self.flush()
            took_s = clock.monotonic() - began_s
            self._flush_s.observe(took_s)
            tick_s = self._keeper.settings.tick_ms / 1000
            await clock.sleep(tick_s if more else max(tick_s, took_s))

    async def flush(self) -> bool:
        """One tick; returns whether it left something for the next."""
        dirty, self._dirty = self._dirty, []
        touched: list[Client] = []
        for group in dirty:
            sent = group.cut(self._framer, touched)
            self._frames.inc(sent.frames)
            self._bytes.inc(sent.bytes)
            if group.pending:
                self._dirty.append(group)
        more = self.busy
        for start in range(0, len(touched), WRITES_PER_TURN):
            for client in touched[start : start + WRITES_PER_TURN]:
                client.flush()
            await self._keeper.clock.sleep(0)
        self._pump()
        if self._dirty or self._pumping:
            self._wake.set()
        return more

    def add(self, client: Client, user_id: str | None) -> None:
        self.clients[client] = None
        if user_id is not None:
            self.users[user_id] += 1

    def remove(self, client: Client, user_id: str | None) -> None:
        """Forget a client and all it had; idempotent."""
        if self.clients.pop(client, self) is self:
            return
        client.open = False
        client.out.clear()
        for topic in list(client.subscriptions):
            self.unsubscribe(client, topic)
        if user_id is not None:
            self.users[user_id] -= 1
            if not self.users[user_id]:
                del self.users[user_id]

    def subscribe(self, client: Client, wanted: Subscribe) -> None:
        """Begin delivery, answer with `subscribed` or an error, replay first if asked to."""
        group = self._groups.get(wanted.topic)
        if group is None:
            group = self._groups[wanted.topic] = Group(wanted.topic)
        subscription = client.subscriptions[wanted.topic] = Subscription(client, group, wanted.request_id)
        group.subscriptions += 1
        top = group.top
        if wanted.recover is None and top is not None:
            self._acknowledge(subscription, CatchUp(top, [], [], recovered=False), recovering=False)
            self._go_on(subscription)
        else:
            self._read_past(subscription, wanted.recover)

    def unsubscribe(self, client: Client, topic: str) -> Subscription | None:
        """End delivery at once; returns what there was."""
        subscription = client.subscriptions.pop(topic, None)
        if subscription is None:
            return None
        if subscription.task is not None:
            subscription.task.cancel()
        self._pumping.pop(subscription, None)
        group = subscription.group
        group.leave(subscription)
        group.subscriptions -= 1
        if not group.subscriptions:
            del self._groups[topic]
        return subscription

    def history(self, client: Client, wanted: History) -> None:
        """Answer with a page of a topic's log, as soon as the bus has it."""
        answer = _Once(lambda: self._history(client, wanted), lambda: self._fail(client, wanted.request_id, _INTERNAL))
        self._supervisor.start("gateway", "history", answer, restart=Backoff(0.05, 0.1))

    def pause(self, client: Client) -> None:
        """Its socket is full: it leaves its groups until `resume`."""
        self._paused.inc()
        client.paused = True
        for subscription in client.subscriptions.values():
            self._pumping.pop(subscription, None)
            if subscription not in subscription.group.holding:
                subscription.group.leave(subscription)

    def resume(self, client: Client) -> None:
        """It takes data again: everything it missed is read from the log."""
        client.paused = False
        for subscription in client.subscriptions.values():
            if subscription not in subscription.group.holding:
                self._go_on(subscription)

    def tops(self, client: Client) -> dict[str, int]:
        """The newest offset of each of its topics."""
        tops = {topic: subscription.group.top for topic, subscription in client.subscriptions.items()}
        return {topic: top.offset for topic, top in tops.items() if top is not None}

    def _hold(self, group: Group, message: Message) -> None:
        held_max = self._keeper.settings.recover_max
        for subscription in list(group.holding):
            subscription.held.append(message)
            if len(subscription.held) > held_max:
                subscription.client.cut_off(CloseCode.INSUFFICIENT_STATE)

    def _read_past(self, subscription: Subscription, since: Position | None) -> None:
        """Read what came after `since` in a task, while live messages are held."""
        subscription.held = []
        subscription.group.holding[subscription] = None
        work = _Once(lambda: self._catch_up(subscription, since), lambda: self._give_up(subscription, _INTERNAL))
        subscription.task = self._supervisor.start("gateway", "catch_up", work, restart=Backoff(0.05, 0.1))

    async def _catch_up(self, subscription: Subscription, since: Position | None) -> None:
        group, client = subscription.group, subscription.client
        try:
            found = await catch_up(self._bus, group.topic, since, subscription.held, self._keeper.settings.recover_max)
        except TransientError:
            self._give_up(subscription, _UNAVAILABLE)
            return
        # From here to the join nothing may yield to the loop, or a message could fall between.
        subscription.task = None
        subscription.held = []
        group.holding.pop(subscription, None)
        if subscription.acknowledged:
            if not found.recovered:
                self._too_slow(subscription, found.top)
                return
        else:
            self._acknowledge(subscription, found, recovering=since is not None)
        subscription.replay.extend(found.replay)
        subscription.replay.extend(found.tail)
        if not subscription.replay:
            subscription.position = found.top
        elif client.paused:
            return
        elif client.wire.get_write_buffer_size() < CUT_BYTES:
            self._write_replay(subscription)
        if subscription.replay:
            self._go_on(subscription)
        elif not client.paused and client.open:
            group.join(subscription, subscription.position or found.top)

    def _acknowledge(self, subscription: Subscription, found: CatchUp, *, recovering: bool) -> None:
        subscription.acknowledged = True
        subscription.position = found.top
        answer = frames.subscribed(
            subscription.group.topic,
            subscription.request_id,
            found.top,
            was_recovering=recovering,
            recovered=found.recovered,
            replayed=len(found.replay),
        )
        subscription.client.send(answer)

    def _go_on(self, subscription: Subscription) -> None:
        """Send what is left to replay, then join the others if nothing came meanwhile, else read that."""
        if subscription.client.paused:
            return
        if subscription.replay:
            self._pumping[subscription] = None
            self._wake.set()
        elif subscription.position is not None and subscription.position == subscription.group.top:
            subscription.group.join(subscription, subscription.position)
        else:
            self._read_past(subscription, subscription.position)

    def _pump(self) -> None:
        """Give those who catch up their next frames, in turn, as far as their sockets and this tick allow."""
        room = PUMP_BYTES
        for subscription in list(self._pumping):
            if room <= 0:
                return
            if subscription not in self._pumping:
                continue
            self._pumping.move_to_end(subscription)
            if subscription.client.wire.get_write_buffer_size() < CUT_BYTES:
                room -= self._write_replay(subscription)
                if not subscription.replay:
                    self._pumping.pop(subscription, None)
                    self._go_on(subscription)

    def _write_replay(self, subscription: Subscription) -> int:
        client = subscription.client
        data = subscription.next_frames(self._framer)
        client.flush()
        client.wire.write(data)
        return len(data)

    def _too_slow(self, subscription: Subscription, top: Position) -> None:
        """The log no longer reaches back to where this client is: say what it lost, and end it."""
        client, at = subscription.client, subscription.position
        if at is None or at.epoch != top.epoch or at.offset >= top.offset:
            client.cut_off(CloseCode.INSUFFICIENT_STATE)
            return
        dropped = top.offset - at.offset
        self._dropped.inc(dropped)
        _log.info("client_too_slow", topic=subscription.group.topic, dropped=dropped)
        client.send(frames.lag(subscription.group.topic, at.offset + 1, top.offset, dropped))
        client.cut_off(CloseCode.SLOW)

    def _give_up(self, subscription: Subscription, failure: RequestError) -> None:
        """The past can't be read now: the request fails, or, if it was granted before, the connection ends."""
        client, topic = subscription.client, subscription.group.topic
        subscription.task = None
        if subscription.acknowledged:
            client.cut_off(CloseCode.INSUFFICIENT_STATE)
            return
        self.unsubscribe(client, topic)
        client.not_subscribed(topic)
        self._fail(client, subscription.request_id, failure)

    async def _history(self, client: Client, wanted: History) -> None:
        try:
            page = await self._bus.history(wanted.topic, wanted.since, wanted.limit, reverse=wanted.reverse)
        except TransientError:
            self._fail(client, wanted.request_id, _UNAVAILABLE)
            return
        if not page.complete:
            failure = RequestError(ErrorCode.UNRECOVERABLE, "unrecoverable position")
            self._fail(client, wanted.request_id, failure)
            return
        items = frames.items_within(page.messages, self._framer, HISTORY_BYTES)
        client.send(frames.history(wanted.topic, wanted.request_id, page.top, items))

    @staticmethod
    def _fail(client: Client, request_id: FrameId, failure: RequestError) -> None:
        client.send(frames.error(failure, request_id))


class _Once:
    """Work that is not repeated when it fails in a way that nobody foresaw: the second call says so instead.

    The supervisor logs the failure and starts the work again; so a defect that one client meets stays with it.
    """

    def __init__(self, work: Callable[[], Awaitable[None]], failed: Callable[[], None]) -> None:
        self._work, self._failed, self._called = work, failed, False

    async def __call__(self) -> None:
        if self._called:
            self._failed()
            return
        self._called = True
        await self._work()
