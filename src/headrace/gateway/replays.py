"""Brings subscriptions up to date: their past is read, sent in pieces, and joined to what is live."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from headrace.bus import Bus
from headrace.cache import Cache, Snapshot
from headrace.gateway.catch_up import CatchUp, catch_up
from headrace.gateway.groups import CUT_BYTES, Group, Subscription
from headrace.gateway.limits import Doorkeeper
from headrace.gateway.snapshots import Pages, read_state
from headrace.model.errors import RequestError, TransientError
from headrace.model.events import Message, Position
from headrace.protocol import frames
from headrace.protocol.codes import CloseCode, ErrorCode
from headrace.protocol.frames import Framer
from headrace.runtime.backoff import Backoff
from headrace.runtime.metrics import Metrics
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
        cache: Cache | None,
        keeper: Doorkeeper,
        metrics: Metrics,
        supervisor: Supervisor,
        framer: Framer,
        *,
        wake: Callable[[], None],
        refuse: Callable[[Subscription, RequestError], None],
    ) -> None:
        self._bus, self._cache, self._keeper = bus, cache, keeper
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

    def hold(self, group: Group, message: Message) -> None:
        """Keep a live message for those whose past is still being read, or whose snapshot is on its way.

        A snapshot may take longer to send than the log reaches back. Who takes even longer must do with the log.
        """
        held_max = self._keeper.settings.recover_max
        for subscription in list(group.holding):
            if subscription.task is None:
                if len(subscription.replay) < held_max:
                    subscription.follow_up((message,))
                else:
                    group.holding.pop(subscription)
                continue
            subscription.held.append(message)
            if len(subscription.held) > held_max:
                subscription.client.cut_off(CloseCode.INSUFFICIENT_STATE)

    def begin(self, subscription: Subscription, since: Position | None) -> None:
        """Read what came after `since` in a task, while live messages are held."""
        subscription.held = []
        subscription.group.holding[subscription] = None
        work = Once(lambda: self._catch_up(subscription, since), lambda: self._give_up(subscription, INTERNAL))
        subscription.task = self._supervisor.start("gateway", "catch_up", work, restart=Backoff(0.05, 0.1))

    async def _catch_up(self, subscription: Subscription, since: Position | None) -> None:
        group, client = subscription.group, subscription.client
        try:
            found, snapshot = await self._read(subscription, since)
        except TransientError:
            self._give_up(subscription, UNAVAILABLE)
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
            self.acknowledge(subscription, found, recovering=since is not None)
        subscription.follow_up([*found.replay, *found.tail])
        if snapshot is not None:
            subscription.pages = Pages(group.topic, snapshot)
            group.holding[subscription] = None
        if not subscription.behind:
            subscription.position = found.top
        elif client.paused:
            return
        elif client.wire.get_write_buffer_size() < CUT_BYTES:
            self._write_replay(subscription)
        if subscription.behind:
            self.go_on(subscription)
        elif not client.paused and client.open:
            group.holding.pop(subscription, None)
            group.join(subscription, subscription.position or found.top)

    async def _read(self, subscription: Subscription, since: Position | None) -> tuple[CatchUp, Snapshot | None]:
        """What the client lacks: the messages after `since`, or, if it wants that and they can't be had, the state."""
        topic, held, replay_max = subscription.group.topic, subscription.held, self._keeper.settings.recover_max
        wanted = subscription.snapshot and not subscription.acknowledged
        if since is not None or not wanted:
            found = await catch_up(self._bus, topic, since, held, replay_max)
            if found.recovered or not wanted:
                return found, None
        if self._cache is None:
            raise TransientError("there is no cache")
        snapshot, found = await read_state(self._bus, self._cache, topic, held, replay_max)
        return found._replace(recovered=False), snapshot

    def acknowledge(self, subscription: Subscription, found: CatchUp, *, recovering: bool) -> None:
        """Answer with `subscribed`; what follows is in order after it."""
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

    def go_on(self, subscription: Subscription) -> None:
        """Send what is left to replay, then join the others if nothing came meanwhile, else read that."""
        if subscription.client.paused:
            return
        if subscription.behind:
            self._pumping[subscription] = None
            self._wake()
            return
        subscription.group.holding.pop(subscription, None)
        if subscription.position is not None and subscription.position == subscription.group.top:
            subscription.group.join(subscription, subscription.position)
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
            if subscription.client.wire.get_write_buffer_size() < CUT_BYTES:
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
        subscription.task = None
        if subscription.acknowledged:
            subscription.client.cut_off(CloseCode.INSUFFICIENT_STATE)
        else:
            self._refuse(subscription, failure)


class Once:
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
