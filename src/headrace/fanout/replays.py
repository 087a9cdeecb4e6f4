"""Brings subscriptions up to date: reads their past, sends it piece by piece, and joins it to live messages."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from headrace.bus import Bus
from headrace.cache import Snapshot, Snapshots
from headrace.fanout.catch_up import CatchUp, Select, catch_up, read_state
from headrace.fanout.client import Limits
from headrace.fanout.groups import CUT_BYTES, ClientSubscription, Topic
from headrace.fanout.pages import Pages
from headrace.model.errors import RequestError, TransientError
from headrace.model.events import Message, Position
from headrace.protocol import frames
from headrace.protocol.codes import INTERNAL, UNAVAILABLE, CloseCode
from headrace.protocol.frames import Framer
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor

PUMP_BYTES: Final = 1_048_576
"""Maximum number of bytes that a tick sends to all catching-up subscriptions, so that they don't slow live ones."""

_log = structlog.get_logger("gateway")


class Replays:
    """Subscriptions that are not live yet, or no longer live. Serving them does not slow the live ones.

    1. In `begin`, a task reads a subscription's past while live messages are held.
    2. In `pump`, the messages that were read are sent, one piece per tick, a snapshot's pages first.
    3. The subscription joins its group. If more messages arrived meanwhile, `begin` is repeated.

    `wake` asks for a tick. `refuse` undoes a subscription whose past can't be read.
    """

    def __init__(
        self,
        bus: Bus,
        cache: Snapshots | None,
        clock: Clock,
        limits: Limits,
        metrics: Metrics,
        supervisor: Supervisor,
        framer: Framer,
        *,
        wake: Callable[[], None],
        refuse: Callable[[ClientSubscription, RequestError], None],
    ) -> None:
        self._bus, self._cache, self._clock, self._limits = bus, cache, clock, limits
        self._supervisor, self._framer = supervisor, framer
        self._wake, self._refuse = wake, refuse
        self._pumping: OrderedDict[ClientSubscription, None] = OrderedDict()
        self.dropped = metrics.counter("gateway_dropped_messages", "Messages that slow clients were told they missed")

    @property
    def busy(self) -> bool:
        """Return whether a tick would send something if sockets have room."""
        return bool(self._pumping)

    def rest(self, subscription: ClientSubscription) -> None:
        """Send nothing to the subscription for now."""
        self._pumping.pop(subscription, None)

    def end(self, subscription: ClientSubscription) -> None:
        """Forget a subscription that ended."""
        if subscription.task is not None:
            subscription.task.cancel()
        self._pumping.pop(subscription, None)

    def hold(self, topic: Topic, message: Message) -> None:
        """Keep a live message for subscriptions whose past is being read or whose snapshot is being sent.

        Sending a snapshot may take longer than the log reaches back, so live messages are held meanwhile. A
        subscription with more than `recover_max` held messages continues from the log.
        """
        held_max = self._limits().recover_max
        for subscription in list(topic.holding):
            if subscription.task is None:
                if len(subscription.held) < held_max:
                    subscription.held += subscription.group.selection.passed([message])
                    subscription.is_at(_position(message))
                else:
                    topic.holding.pop(subscription)
                continue
            subscription.held.append(message)
            if len(subscription.held) > held_max:
                subscription.client.cut_off(CloseCode.INSUFFICIENT_STATE)

    def begin(self, subscription: ClientSubscription, since: Position | None) -> None:
        """Read the messages after `since` in a task, while live messages are held."""
        subscription.held = []
        subscription.group.topic.holding[subscription] = None
        work, failed = partial(self._catch_up, subscription, since), partial(self._give_up, subscription, INTERNAL)
        subscription.task = self._supervisor.start("gateway", "catch_up", work, on_failure=failed)

    async def _catch_up(self, subscription: ClientSubscription, since: Position | None) -> None:
        group, client, selection = subscription.group, subscription.client, subscription.group.selection

        async def select(page: list[Message]) -> list[Message]:
            if selection.filter is None:
                return page
            await self._clock.sleep(0)
            return selection.passed(page)

        try:
            found, snapshot = await self._read(subscription, since, select)
        except TransientError:
            self._give_up(subscription, UNAVAILABLE)
            return
        # From this line to the join, nothing may yield to the loop, or a message could be missed.
        subscription.task = None
        subscription.held = []
        group.topic.holding.pop(subscription, None)
        if subscription.acknowledged and not found.recovered:
            self._fall_behind(subscription, found.top)
            return
        now = _position(found.tail[-1]) if found.tail else found.top
        if subscription.acknowledged and subscription.on_slow == "conflate" and now.epoch != found.top.epoch:
            client.cut_off(CloseCode.INSUFFICIENT_STATE)  # a `lag` can only name messages of one epoch
            return
        subscription.follow_up(self._replay(subscription, found, now, recovering=since is not None))
        subscription.is_at(now)
        if snapshot is not None:
            subscription.pages = Pages(group.topic.name, snapshot)
            group.topic.holding[subscription] = None
        if subscription.behind and not client.paused and client.wire.get_write_buffer_size() < CUT_BYTES:
            self._write_replay(subscription)
        if subscription.behind:
            self.go_on(subscription)
        elif not client.paused and client.open:
            group.topic.holding.pop(subscription, None)
            group.join(subscription, now)

    def _replay(
        self, subscription: ClientSubscription, found: CatchUp, now: Position, *, recovering: bool
    ) -> list[Message]:
        """Return the found messages to send. Before that, send how many they are, or how many are left out."""
        selection = subscription.group.selection
        tail = selection.passed(found.tail)
        if not subscription.acknowledged:
            replay = selection.conflated(found.replay)
            self.acknowledge(subscription, found._replace(replay=replay), recovering=recovering)
            return replay + selection.conflated(tail)
        missed = found.replay + tail
        replay = selection.conflated(missed)
        if subscription.on_slow == "conflate":
            self._send_lag(subscription, now, len(missed) - len(replay))
        return replay

    async def _read(
        self, subscription: ClientSubscription, since: Position | None, select: Select
    ) -> tuple[CatchUp, Snapshot | None]:
        """Return the messages after `since`, which the client is missing.

        If they can't be recovered and the client wants a snapshot, return the topic's state.
        """
        topic, held, replay_max = subscription.group.topic.name, subscription.held, self._limits().recover_max
        wanted = subscription.snapshot and not subscription.acknowledged
        if since is not None or not wanted:
            found = await catch_up(self._bus, topic, since, held, replay_max, select)
            if found.recovered or not wanted:
                return found, None
        if self._cache is None:
            raise TransientError("there is no cache")
        snapshot, found = await read_state(self._bus, self._cache, topic, held, replay_max, select)
        return found._replace(recovered=False), snapshot

    def acknowledge(self, subscription: ClientSubscription, found: CatchUp, *, recovering: bool) -> None:
        """Answer with `subscribed`. All frames after this answer are in order."""
        subscription.acknowledged = True
        answer = frames.subscribed(
            subscription.group.topic.name,
            subscription.request_id,
            found.top,
            was_recovering=recovering,
            recovered=found.recovered,
            replayed=len(found.replay),
        )
        subscription.client.send(answer)

    def resume(self, subscription: ClientSubscription) -> None:
        """Continue for a client that accepts data again.

        With `drop_oldest`, a subscription continues with the live members' next messages, and a `lag` reports what it
        missed. Any other subscription is brought up to date from the topic's log, and so is one whose snapshot or
        replay had begun. If the log no longer reaches back far enough, a `lag` reports the loss, and by default the
        connection is then closed with 4008.
        """
        topic = subscription.group.topic
        # the replay filled the socket, and no message has arrived since
        missed_none = subscription in topic.holding or topic.top is None
        if subscription.on_slow == "drop_oldest" and not (subscription.behind or missed_none):
            # Not at once: the caller is inside the socket's write, where asyncio can't handle another failing write.
            self._pumping[subscription] = None
            self._wake()
        else:
            self.go_on(subscription)

    def place(self, subscription: ClientSubscription) -> Position | None:
        """Return the position up to which the client has received everything; None while it is unknown."""
        if subscription.group.is_live(subscription):
            return subscription.group.delivered[0]
        if subscription.pages is not None:
            return None
        if subscription.behind:
            return _before((subscription.replay or subscription.held)[0])
        return subscription.position if subscription.acknowledged else None

    def go_on(self, subscription: ClientSubscription) -> None:
        """Send the remaining replay.

        When all is sent, join the group if nothing arrived meanwhile; otherwise read what arrived.
        """
        if subscription.client.paused:
            return
        if subscription.behind:
            self._pumping[subscription] = None
            self._wake()
            return
        subscription.group.topic.holding.pop(subscription, None)
        if (top := subscription.group.present(subscription)) is not None:
            subscription.group.join(subscription, top)
        else:
            self.begin(subscription, subscription.position)

    def pump(self) -> None:
        """Send catching-up subscriptions their next frames, in turn, as far as sockets and this tick allow."""
        room = PUMP_BYTES
        for subscription in list(self._pumping):
            if room <= 0:
                return
            if subscription not in self._pumping:
                continue
            self._pumping.move_to_end(subscription)
            skips = not subscription.behind
            if skips:
                self._pumping.pop(subscription)
                self._skip(subscription)
            elif subscription.client.wire.get_write_buffer_size() < CUT_BYTES:
                room -= self._write_replay(subscription)
                if not subscription.behind:
                    self._pumping.pop(subscription, None)
                    self.go_on(subscription)

    def _write_replay(self, subscription: ClientSubscription) -> int:
        client = subscription.client
        data = subscription.next_frames(self._framer)
        client.flush()
        client.wire.write(data)
        return len(data)

    def _fall_behind(self, subscription: ClientSubscription, top: Position) -> None:
        """Report a loss to a client whose position is no longer in the log; then continue or close the connection."""
        client, at, group = subscription.client, subscription.position, subscription.group
        top, dropped = group.topic.top or top, group.passed - subscription.seen
        if at is None or at.epoch != top.epoch or at.offset >= top.offset:
            client.cut_off(CloseCode.INSUFFICIENT_STATE)
        elif dropped and subscription.on_slow == "disconnect":
            _log.info("client_too_slow", topic=group.topic.name, dropped=dropped)
            self._send_lag(subscription, top, dropped)
            client.cut_off(CloseCode.SLOW)
        elif not client.paused:
            self._skip(subscription)

    def _skip(self, subscription: ClientSubscription) -> None:
        """Leave out the messages that arrived meanwhile, report how many, and continue with the group's next ones."""
        group, client, at = subscription.group, subscription.client, subscription.position
        to, count = group.delivered
        ahead = at is not None and to is not None and to.offset < at.offset
        if ahead:  # ahead of the live members: the client already has their next messages
            to, count = group.topic.top, group.passed
        if at is None or to is None or to.epoch != at.epoch:
            client.cut_off(CloseCode.INSUFFICIENT_STATE)
            return
        self._send_lag(subscription, to, count - subscription.seen)
        subscription.position, subscription.seen = to, count
        if client.paused or not client.open:
            return
        if ahead:
            group.join(subscription, to)
        else:
            group.rejoin(subscription)

    def _send_lag(self, subscription: ClientSubscription, to: Position, dropped: int) -> None:
        at, topic = subscription.position, subscription.group.topic.name
        if dropped and at is not None:
            self.dropped.inc(dropped)
            subscription.client.send(frames.lag(topic, to.epoch, at.offset + 1, to.offset, dropped))

    def _give_up(self, subscription: ClientSubscription, failure: RequestError) -> None:
        """Refuse a subscription whose past can't be read. If it was acknowledged before, close its connection."""
        subscription.task = None
        if subscription.acknowledged:
            subscription.client.cut_off(CloseCode.INSUFFICIENT_STATE)
        else:
            self._refuse(subscription, failure)


def _position(message: Message) -> Position:
    return Position(message.epoch, message.offset)


def _before(message: Message) -> Position:
    return Position(message.epoch, message.offset - 1)
