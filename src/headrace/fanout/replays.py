"""Brings subscriptions up to date: their past is read, sent in pieces, and joined to what is live."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from headrace.bus import Bus
from headrace.cache import Snapshot, Snapshots
from headrace.fanout.catch_up import CatchUp, Sift, catch_up
from headrace.fanout.feeds import Feed
from headrace.fanout.groups import CUT_BYTES, Subscription
from headrace.fanout.limits import Limits
from headrace.fanout.snapshots import Pages, read_state
from headrace.model.errors import RequestError, TransientError
from headrace.model.events import Message, Position
from headrace.protocol import frames
from headrace.protocol.codes import CloseCode, ErrorCode
from headrace.protocol.frames import Framer
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics
from headrace.runtime.once import start_once
from headrace.runtime.supervise import Supervisor

PUMP_BYTES: Final = 1_048_576
"""What one tick sends to clients that are catching up, all together, so that they don't slow the live ones."""

INTERNAL: Final = RequestError(ErrorCode.INTERNAL, "internal error")
UNAVAILABLE: Final = RequestError(ErrorCode.UNAVAILABLE, "temporarily unavailable", temporary=True)

_log = structlog.get_logger("gateway")


class Replays:
    """Those who are not yet, or no longer, where everyone is; none of them at the cost of those who are live.

    A subscription goes from `begin` (its past is read in a task, live messages are held) through `pump` (what was read
    is sent, a piece a tick, a snapshot's pages first) to its group, or back to `begin` when more came meanwhile. `wake`
    asks for a tick; `refuse` undoes a subscription whose past can't be read.
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
        refuse: Callable[[Subscription, RequestError], None],
    ) -> None:
        self._bus, self._cache, self._clock, self._limits = bus, cache, clock, limits
        self._supervisor, self._framer = supervisor, framer
        self._wake, self._refuse = wake, refuse
        self._pumping: OrderedDict[Subscription, None] = OrderedDict()
        self._dropped = metrics.counter("gateway_dropped_messages", "Messages that slow clients were told they missed")

    @property
    def busy(self) -> bool:
        """Whether a tick would send something, sockets permitting."""
        return bool(self._pumping)

    def rest(self, subscription: Subscription) -> None:
        """Send it nothing for now."""
        self._pumping.pop(subscription, None)

    def end(self, subscription: Subscription) -> None:
        """It is no more."""
        if subscription.task is not None:
            subscription.task.cancel()
        self._pumping.pop(subscription, None)

    def hold(self, feed: Feed, message: Message) -> None:
        """Keep a live message for those whose past is still being read, or whose snapshot is on its way.

        A snapshot may take longer to send than the log reaches back. Who takes even longer must do with the log.
        """
        held_max = self._limits().recover_max
        for subscription in list(feed.holding):
            if subscription.task is None:
                if len(subscription.held) < held_max:
                    subscription.held += subscription.group.sieve.passed([message])
                    subscription.is_at(_position(message))
                else:
                    feed.holding.pop(subscription)
                continue
            subscription.held.append(message)
            if len(subscription.held) > held_max:
                subscription.client.cut_off(CloseCode.INSUFFICIENT_STATE)

    def begin(self, subscription: Subscription, since: Position | None) -> None:
        """Read what came after `since` in a task, while live messages are held."""
        subscription.held = []
        subscription.group.feed.holding[subscription] = None
        work, failed = partial(self._catch_up, subscription, since), partial(self._give_up, subscription, INTERNAL)
        subscription.task = start_once(self._supervisor, "gateway", "catch_up", work, failed)

    async def _catch_up(self, subscription: Subscription, since: Position | None) -> None:
        group, client, sieve = subscription.group, subscription.client, subscription.group.sieve

        async def sift(page: list[Message]) -> list[Message]:
            if sieve.filter is None:
                return page
            await self._clock.sleep(0)
            return sieve.passed(page)

        try:
            found, snapshot = await self._read(subscription, since, sift)
        except TransientError:
            self._give_up(subscription, UNAVAILABLE)
            return
        # From here to the join nothing may yield to the loop, or a message could fall between.
        subscription.task = None
        subscription.held = []
        group.feed.holding.pop(subscription, None)
        if subscription.acknowledged and not found.recovered:
            self._fall_behind(subscription, found.top)
            return
        now = _position(found.tail[-1]) if found.tail else found.top
        if subscription.acknowledged and subscription.on_slow == "conflate" and now.epoch != found.top.epoch:
            client.cut_off(CloseCode.INSUFFICIENT_STATE)  # a lag is of one epoch
            return
        subscription.follow_up(self._replay(subscription, found, now, recovering=since is not None))
        subscription.is_at(now)
        if snapshot is not None:
            subscription.pages = Pages(group.topic, snapshot)
            group.feed.holding[subscription] = None
        if subscription.behind and not client.paused and client.wire.get_write_buffer_size() < CUT_BYTES:
            self._write_replay(subscription)
        if subscription.behind:
            self.go_on(subscription)
        elif not client.paused and client.open:
            group.feed.holding.pop(subscription, None)
            group.join(subscription, now)

    def _replay(self, subscription: Subscription, found: CatchUp, now: Position, *, recovering: bool) -> list[Message]:
        """What of the found messages is to be sent; says before how many those are, or how many are left out."""
        sieve = subscription.group.sieve
        tail = sieve.passed(found.tail)
        if not subscription.acknowledged:
            replay = sieve.thinned(found.replay)
            self.acknowledge(subscription, found._replace(replay=replay), recovering=recovering)
            return replay + sieve.thinned(tail)
        missed = found.replay + tail
        replay = sieve.thinned(missed)
        if subscription.on_slow == "conflate":
            self._tell_lag(subscription, now, len(missed) - len(replay))
        return replay

    async def _read(
        self, subscription: Subscription, since: Position | None, sift: Sift
    ) -> tuple[CatchUp, Snapshot | None]:
        """What the client lacks: the messages after `since`, or, if it wants that and they can't be had, the state."""
        topic, held, replay_max = subscription.group.topic, subscription.held, self._limits().recover_max
        wanted = subscription.snapshot and not subscription.acknowledged
        if since is not None or not wanted:
            found = await catch_up(self._bus, topic, since, held, replay_max, sift)
            if found.recovered or not wanted:
                return found, None
        if self._cache is None:
            raise TransientError("there is no cache")
        snapshot, found = await read_state(self._bus, self._cache, topic, held, replay_max, sift)
        return found._replace(recovered=False), snapshot

    def acknowledge(self, subscription: Subscription, found: CatchUp, *, recovering: bool) -> None:
        """Answer with `subscribed`; what follows is in order after it."""
        subscription.acknowledged = True
        answer = frames.subscribed(
            subscription.group.topic,
            subscription.request_id,
            found.top,
            was_recovering=recovering,
            recovered=found.recovered,
            replayed=len(found.replay),
        )
        subscription.client.send(answer)

    def resume(self, subscription: Subscription) -> None:
        """Its client takes data again. One that drops the oldest goes on with what is next for those who kept up, and
        is told by `lag` what it missed. All others are brought up to date from the topic's log (a snapshot or replay
        that had begun goes on in any case). Where that no longer reaches back far enough, `lag` tells the loss, and
        then the default is to close the connection with 4008.
        """
        feed = subscription.group.feed
        missed_none = (
            subscription in feed.holding or feed.top is None
        )  # its past filled the socket, and none came since
        if subscription.on_slow == "drop_oldest" and not (subscription.behind or missed_none):
            # Not at once: this comes from within the socket's write, and asyncio trips over another that fails there.
            self._pumping[subscription] = None
            self._wake()
        else:
            self.go_on(subscription)

    def place(self, subscription: Subscription) -> Position | None:
        """Up to where its client has got everything that it gets; None before that is known."""
        if subscription.group.is_live(subscription):
            return subscription.group.delivered[0]
        if subscription.pages is not None:
            return None
        if subscription.behind:
            return _before((subscription.replay or subscription.held)[0])
        return subscription.position if subscription.acknowledged else None

    def go_on(self, subscription: Subscription) -> None:
        """Send what is left to replay, then join the others if nothing came meanwhile, else read that."""
        if subscription.client.paused:
            return
        if subscription.behind:
            self._pumping[subscription] = None
            self._wake()
            return
        subscription.group.feed.holding.pop(subscription, None)
        if (top := subscription.group.present(subscription)) is not None:
            subscription.group.join(subscription, top)
        else:
            self.begin(subscription, subscription.position)

    def pump(self) -> None:
        """Give those who catch up their next frames, in turn, as far as their sockets and this tick allow."""
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

    def _write_replay(self, subscription: Subscription) -> int:
        client = subscription.client
        data = subscription.next_frames(self._framer)
        client.flush()
        client.wire.write(data)
        return len(data)

    def _fall_behind(self, subscription: Subscription, top: Position) -> None:
        """The log no longer reaches back to where this client is: say what it lost, and end it unless it may go on."""
        client, at, group = subscription.client, subscription.position, subscription.group
        top, dropped = group.top or top, group.passed - subscription.seen
        if at is None or at.epoch != top.epoch or at.offset >= top.offset:
            client.cut_off(CloseCode.INSUFFICIENT_STATE)
        elif dropped and subscription.on_slow == "disconnect":
            _log.info("client_too_slow", topic=group.topic, dropped=dropped)
            self._tell_lag(subscription, top, dropped)
            client.cut_off(CloseCode.SLOW)
        elif not client.paused:
            self._skip(subscription)

    def _skip(self, subscription: Subscription) -> None:
        """Leave out what came meanwhile, say so, and let it get what its group gets next."""
        group, client, at = subscription.group, subscription.client, subscription.position
        to, count = group.delivered
        ahead = at is not None and to is not None and to.offset < at.offset
        if ahead:  # of those who are live: what comes next for them it has already
            to, count = group.top, group.passed
        if at is None or to is None or to.epoch != at.epoch:
            client.cut_off(CloseCode.INSUFFICIENT_STATE)
            return
        self._tell_lag(subscription, to, count - subscription.seen)
        subscription.position, subscription.seen = to, count
        if client.paused or not client.open:
            return
        if ahead:
            group.join(subscription, to)
        else:
            group.rejoin(subscription)

    def _tell_lag(self, subscription: Subscription, to: Position, dropped: int) -> None:
        at = subscription.position
        if dropped and at is not None:
            self._dropped.inc(dropped)
            subscription.client.send(frames.lag(subscription.group.topic, to.epoch, at.offset + 1, to.offset, dropped))

    def _give_up(self, subscription: Subscription, failure: RequestError) -> None:
        """The past can't be read now: the request fails, or, if it was granted before, the connection ends."""
        subscription.task = None
        if subscription.acknowledged:
            subscription.client.cut_off(CloseCode.INSUFFICIENT_STATE)
        else:
            self._refuse(subscription, failure)


def _position(message: Message) -> Position:
    return Position(message.epoch, message.offset)


def _before(message: Message) -> Position:
    return Position(message.epoch, message.offset - 1)
