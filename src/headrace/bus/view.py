"""The view that a process has of the logs: positions, history, bounds, and delivery to the sinks that subscribed."""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Final

from headrace.bus import Batch, BusSettings, Change, ChangeSink, History, Lane, Sink, Subscription
from headrace.bus.lanes import LANES, lane_of
from headrace.model.errors import InvariantError, TransientError
from headrace.model.events import Message, Position, Publication
from headrace.runtime.clock import Clock

MESSAGE_BYTES: Final = 200
"""Bytes that a kept message takes besides its body."""


class _Log:
    """One topic: its position, and the messages that are kept, `size` bytes. `times[i]` is when `messages[i]` came.

    `wanted` are the lists that collect this topic's messages for the sinks.
    """

    __slots__ = ("epoch", "lane", "messages", "offset", "size", "times", "touched", "wanted")

    def __init__(self, lane: Lane, epoch: str, size: int, wanted: tuple[list[Message], ...]) -> None:
        self.lane, self.epoch = lane, epoch
        self.offset = self.size = 0
        self.touched = float("-inf")
        self.messages: deque[Message] = deque(maxlen=size)
        self.times: deque[float] = deque(maxlen=size)
        self.wanted = wanted

    def append(self, message: Message, now: float) -> int:
        """Keep a message, in place of the oldest if the log is full; return by how many bytes the log grew."""
        messages, before = self.messages, self.size
        if len(messages) == messages.maxlen:
            if not messages:
                return 0
            self.drop_oldest()
        messages.append(message)
        self.times.append(now)
        self.size += len(message.body) + MESSAGE_BYTES
        return self.size - before

    def expire(self, cutoff: float) -> int:
        """Drop what was appended at or before `cutoff`; return how many bytes became free."""
        before, times = self.size, self.times
        while times and times[0] <= cutoff:
            self.drop_oldest()
        return before - self.size

    def drop_oldest(self) -> None:
        """Drop the oldest message."""
        self.times.popleft()
        self.size -= len(self.messages.popleft().body) + MESSAGE_BYTES

    def clear(self) -> int:
        """Keep the position only; return how many bytes became free."""
        freed, self.size = self.size, 0
        self.messages.clear()
        self.times.clear()
        return freed


class ViewSubscription:
    """The `Subscription` of one sink. `pending` collects the messages of the batch that is being appended."""

    def __init__(self, view: "View", sink: Sink, kinds: Collection[str] | None, changed: ChangeSink | None) -> None:
        self.sink, self.changed = sink, changed
        self.pending: list[Message] = []
        self._view, self._topics = view, set[str]()
        self._kinds = None if kinds is None else frozenset(kinds)

    def wants(self, topic: str) -> bool:
        """Return whether messages of this topic go to the sink."""
        return topic in self._topics or self.wants_kind(topic.partition(":")[0])

    def wants_kind(self, kind: str) -> bool:
        """Return whether messages of all topics of this kind go to the sink."""
        return self._kinds is None or kind in self._kinds

    def add(self, topic: str) -> None:
        if topic not in self._topics:
            self._topics.add(topic)
            self._view.refresh(topic, 1)

    def remove(self, topic: str) -> None:
        if topic in self._topics:
            self._topics.remove(topic)
            self._view.refresh(topic, -1)

    def close(self) -> None:
        for topic in list(self._topics):
            self.remove(topic)
        self._view.unsubscribe(self)


class View:
    """All logs as one process sees them: the batches that were appended, in the order of their appending.

    Epochs are `generation`, then `generation-1`, `generation-2`, …: the number grows whenever topics are forgotten or
    begin anew, and a topic takes the epoch of the moment in which it begins.

    Expired messages go when their topic is next used, or, on topics that fell silent, with the next batch on any topic.
    When all kept messages together weigh more than `history_bytes`, the topic that was published on longest ago loses
    its messages first; it keeps its position and its epoch. Topics beyond `topics_max` are forgotten after the batch in
    which they began, those published on longest ago first.
    """

    def __init__(self, settings: BusSettings, clock: Clock, generation: str) -> None:
        self._settings, self._clock = settings, clock
        self._generation = self._epoch = generation
        self._epochs_over = 0
        self._logs: OrderedDict[str, _Log] = OrderedDict()  # least recently published first
        self._silent: OrderedDict[str, _Log] = OrderedDict()  # without messages, only the position; oldest first
        self._active: Mapping[Lane, dict[str, _Log]] = {lane: {} for lane in LANES}  # the same as in _logs
        self._bytes = 0
        self._subscriptions: tuple[ViewSubscription, ...] = ()
        self._added: Counter[str] = Counter()  # topics that subscriptions added by name
        self._wanted_kinds: dict[str, tuple[list[Message], ...]] = {}

    # Writing.

    def append(self, lane: Lane, batch: Batch) -> list[Position]:
        """Append at the next offset of each topic; return the positions. `deliver` must follow.

        Raises InvariantError, having appended nothing, for a topic of another lane.
        """
        now, cutoff = self._expire()
        logs, active, publications = self._logs, self._active[lane], batch.publications
        known = [active.get(publication.topic) for publication in publications]
        if None in known:
            _check_lane(lane, publications, known)
        if batch.new_epoch:
            self._begin_epoch(lane)
            known = [None] * len(publications)
        positions: list[Position] = []
        grown = 0
        for publication, log in zip(publications, known, strict=True):
            topic = publication.topic
            if log is None:
                log = active.get(topic) or self._begin(topic, lane)
            if log.touched != now:
                log.touched = now
                logs.move_to_end(topic)
                grown -= log.expire(cutoff)
            log.offset = offset = log.offset + 1
            message = Message(topic, publication.kind, log.epoch, offset, publication.body, publication.label)
            grown += log.append(message, now)
            for pending in log.wanted:
                pending.append(message)
            positions.append(Position(log.epoch, offset))
        self._bytes += grown
        self._make_room()
        return positions

    def lost(self, tops: Mapping[str, Position]) -> None:
        """Go on after these positions: messages up to there were lost on their way here."""
        for topic, top in tops.items():
            log = self._logs.get(topic) or self._silent.pop(topic, None) or self._new_log(topic, lane_of(topic))
            if topic in self._logs:
                self._silence(topic)
            self._silent[topic] = log
            self._bytes -= log.clear()
            log.epoch, log.offset = top
        self._report(Change("incomplete", list(tops)))

    def deliver(self) -> None:
        """Give every sink its messages, in the order of subscription; then forget topics beyond `topics_max`."""
        with ExitStack() as stack:
            if len(self._logs) + len(self._silent) > self._settings.topics_max:
                stack.callback(self._forget_surplus)
            for subscription in reversed(self._subscriptions):
                if subscription.pending:
                    stack.callback(_hand_over, subscription.sink, subscription.pending)

    # Reading.

    def history(self, topic: str, since: Position | None, limit: int, *, reverse: bool = False) -> History:
        """Return a page; see `Bus.history`."""
        log = self._find(topic)
        if log is None:
            top, kept = Position(self._epoch, 0), deque[Message]()
        else:
            self._bytes -= log.expire(self._clock.monotonic() - self._settings.history_ttl_s)
            top, kept = Position(log.epoch, log.offset), log.messages
        oldest = top.offset - len(kept) + 1
        if since is None:
            skip = 0
        elif since.epoch != top.epoch:
            return History([], top, complete=False)
        elif reverse:
            last = since.offset - 1
            if last > top.offset or (last != 0 and last < oldest):
                return History([], top, complete=False)
            skip = top.offset - last
        else:
            skip = since.offset + 1 - oldest
            if not 0 <= skip <= len(kept):
                return History([], top, complete=False)
        page = islice(reversed(kept) if reverse else kept, skip, skip + limit)
        return History(list(page), top, complete=True)

    def top(self, topic: str) -> Position:
        """Return the newest position; offset 0 for a topic without messages."""
        log = self._find(topic)
        return Position(self._epoch, 0) if log is None else Position(log.epoch, log.offset)

    def topics(self) -> Mapping[str, Position]:
        """Return the topics that have messages, with their newest positions."""
        return {
            topic: Position(log.epoch, log.offset) for logs in (self._silent, self._logs) for topic, log in logs.items()
        }

    def clear(self) -> None:
        """Forget all topics and subscriptions."""
        self._subscriptions = ()
        self._logs.clear()
        self._silent.clear()
        for active in self._active.values():
            active.clear()
        self._bytes = 0

    # Interest.

    def subscribe(self, sink: Sink, kinds: Collection[str] | None, changed: ChangeSink | None) -> ViewSubscription:
        """Deliver to a sink what it wants from now on."""
        subscription = ViewSubscription(self, sink, kinds, changed)
        self._subscriptions = (*self._subscriptions, subscription)
        self._refresh_all()
        return subscription

    def unsubscribe(self, subscription: ViewSubscription) -> None:
        """Deliver nothing more to this sink."""
        self._subscriptions = tuple(other for other in self._subscriptions if other is not subscription)
        self._refresh_all()

    def refresh(self, topic: str, added: int) -> None:
        """Look up which sinks want a topic, after a subscription added (1) or removed (-1) the topic."""
        self._added[topic] += added
        if not self._added[topic]:
            del self._added[topic]
        log = self._find(topic)
        if log is not None:
            log.wanted = self._wanted(topic)

    def _refresh_all(self) -> None:
        self._wanted_kinds.clear()
        for logs in (self._silent, self._logs):
            for topic, log in logs.items():
                log.wanted = self._wanted(topic)

    def _wanted(self, topic: str) -> tuple[list[Message], ...]:
        if topic in self._added:
            return tuple([each.pending for each in self._subscriptions if each.wants(topic)])
        kind = topic.partition(":")[0]
        wanted = self._wanted_kinds.get(kind)
        if wanted is None:
            wanted = tuple([each.pending for each in self._subscriptions if each.wants_kind(kind)])
            self._wanted_kinds[kind] = wanted
        return wanted

    def _report(self, change: Change) -> None:
        """Give a change to the sinks that want its topics."""
        with ExitStack() as stack:
            for subscription in reversed(self._subscriptions):
                if subscription.changed is not None:
                    wanted = [topic for topic in change.topics if subscription.wants(topic)]
                    if wanted:
                        stack.callback(subscription.changed, change._replace(topics=wanted))

    # Bounds.

    def _expire(self) -> tuple[float, float]:
        """Free the messages of topics whose newest one expired; return the time, and when what expires now came."""
        now = self._clock.monotonic()
        cutoff = now - self._settings.history_ttl_s
        while self._logs:
            topic = next(iter(self._logs))
            if self._logs[topic].touched > cutoff:
                break
            self._silence(topic)
        return now, cutoff

    def _find(self, topic: str) -> _Log | None:
        return self._logs.get(topic) or self._silent.get(topic)

    def _begin(self, topic: str, lane: Lane) -> _Log:
        """Wake a silent topic, or begin a new one."""
        log = self._silent.pop(topic, None) or self._new_log(topic, lane)
        self._logs[topic] = self._active[lane][topic] = log
        return log

    def _new_log(self, topic: str, lane: Lane) -> _Log:
        return _Log(lane, self._epoch, self._settings.history_size, self._wanted(topic))

    def _begin_epoch(self, lane: Lane) -> None:
        """Begin a new epoch on every topic of a lane; its history is dropped."""
        begun: list[str] = []
        for logs in (self._silent, self._logs):
            topics = [topic for topic, log in logs.items() if log.lane == lane]
            for topic in topics:
                self._bytes -= logs.pop(topic).size
            begun += topics
        self._active[lane].clear()
        self._next_epoch()
        self._report(Change("new_epoch", begun))

    def _make_room(self) -> None:
        """Free messages, of the topics published on longest ago first, until the rest is within `history_bytes`."""
        bytes_max = self._settings.history_bytes
        while self._bytes > bytes_max and len(self._logs) > 1:
            self._silence(next(iter(self._logs)))
        while self._bytes > bytes_max:  # one topic alone
            (log,) = self._logs.values()
            before = log.size
            log.drop_oldest()
            self._bytes += log.size - before

    def _forget_surplus(self) -> None:
        """Forget the topics that were published on longest ago."""
        forgotten: list[str] = []
        for _ in range(len(self._logs) + len(self._silent) - self._settings.topics_max):
            topic, log = (self._silent or self._logs).popitem(last=False)
            self._active[log.lane].pop(topic, None)
            self._bytes -= log.size
            forgotten.append(topic)
        self._next_epoch()
        self._report(Change("new_epoch", forgotten))

    def _silence(self, topic: str) -> None:
        log = self._silent[topic] = self._logs.pop(topic)
        del self._active[log.lane][topic]
        self._bytes -= log.clear()

    def _next_epoch(self) -> None:
        self._epochs_over += 1
        self._epoch = f"{self._generation}-{self._epochs_over}"


def _hand_over(sink: Callable[[Sequence[Message]], None], pending: list[Message]) -> None:
    try:
        sink(pending)
    finally:
        pending.clear()


class ViewedBus:
    """The half of every `Bus` that answers from this process's view."""

    shared = True

    def __init__(self, settings: BusSettings, clock: Clock, generation: str) -> None:
        self._view = View(settings, clock, generation)
        self._closed = False

    def subscribe(
        self, sink: Sink, *, kinds: Collection[str] | None = (), changed: ChangeSink | None = None
    ) -> Subscription:
        self._check_open()
        return self._view.subscribe(sink, kinds, changed)

    async def history(self, topic: str, since: Position | None, limit: int, *, reverse: bool = False) -> History:
        self._check_open()
        return self._view.history(topic, since, limit, reverse=reverse)

    async def top(self, topic: str) -> Position:
        self._check_open()
        return self._view.top(topic)

    def topics(self) -> Mapping[str, Position]:
        self._check_open()
        return self._view.topics()

    async def close(self) -> None:
        self._closed = True
        self._view.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise TransientError("the bus is closed")


def _check_lane(lane: Lane, publications: Sequence[Publication], known: Sequence[_Log | None]) -> None:
    """Raise InvariantError for a topic of another lane; topics that are `known` are of this one."""
    for publication, log in zip(publications, known, strict=True):
        if log is None and lane_of(publication.topic) != lane:
            raise InvariantError(f"{publication.topic} was published on lane {lane}, which is not its own")
