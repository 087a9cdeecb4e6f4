"""The view that a process has of the logs: positions, history, bounds, and what each batch adds to them."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from typing import Final

from headrace.bus import Batch, BusSettings, Change, History, Lane
from headrace.bus.interest import Interest
from headrace.bus.lanes import LANES, lane_of
from headrace.bus.log import MESSAGE_BYTES, Log
from headrace.model.errors import InvariantError
from headrace.model.events import Message, Position, Publication
from headrace.runtime.clock import Clock

NO_POSITIONS: Final[Sequence[Position]] = ()


class View:
    """All logs as one process sees them: the batches in the order in which they were appended.

    Epochs are `generation`, then `generation-1`, `generation-2`, …: the number grows whenever topics are forgotten or
    start again, and a topic takes the epoch of the moment in which it begins. Expired messages are dropped when their
    topic is next used, or, on silent topics, with the next batch on any topic. If all kept messages together exceed
    `history_bytes`, the topic whose last message is oldest is the first to lose its messages; it keeps its position and
    its epoch. Topics beyond `topics_max` are forgotten after the batch in which they began, beginning with the topic
    whose last message is oldest. A handle leads to its log without a look-up by name, as long as the log has the mark
    of its lane in this view.
    """

    def __init__(self, settings: BusSettings, clock: Clock, generation: str) -> None:
        self._settings, self._clock = settings, clock
        self._generation = generation
        self._epochs: dict[Lane, str] = dict.fromkeys(LANES, generation)
        self._epochs_over = 0
        self._logs: OrderedDict[str, Log] = OrderedDict()  # least recently published first
        self._silent: OrderedDict[str, Log] = OrderedDict()  # without messages, only the position; oldest first
        self._marks: Mapping[Lane, object] = {lane: object() for lane in LANES}
        self._bytes = 0
        self.interest = Interest(self._wanted_otherwise)

    # Writing.

    def append(self, lane: Lane, batch: Batch) -> Sequence[Position]:
        """Append at the next offset of each topic; return the positions, if the batch asks. `deliver` must follow.

        Raises InvariantError, with nothing appended, for a topic of another lane.
        """
        now, cutoff = self._expire()
        mark, logs, history_size = self._marks[lane], self._logs, self._settings.history_size
        self._check_lane(lane, batch.publications)
        if batch.new_epoch:
            self._next_epoch()
            self._begin_epoch(lane, self._epochs[lane])
        positions: list[Position] = []
        grown = 0
        for publication in batch.publications:
            kind, body, label = publication.kind, publication.body, publication.label
            weight = len(body) + MESSAGE_BYTES
            for handle in publication.topics:
                log: Log | None = handle.log
                if log is None or log.active is not mark:
                    log = handle.log = logs.get(handle.name) or self._begin(handle.name, lane)
                if log.touched != now:
                    log.touched = now
                    logs.move_to_end(handle.name)
                    if log.messages and log.messages[0].at_s <= cutoff:
                        grown -= log.expire(cutoff)
                log.offset = offset = log.offset + 1
                message = Message(log.within, kind, offset, body, label, now)
                if history_size:
                    if len(log.messages) >= history_size:
                        grown -= log.drop_oldest()
                    log.messages.append(message)
                    log.size += weight
                    grown += weight
                for pending in log.wanted:
                    pending.append(message)
                if batch.positions:
                    positions.append(message.position)
        self._bytes += grown
        if self._bytes > self._settings.history_bytes:
            self._make_room()
        return positions if batch.positions else NO_POSITIONS

    def lost(self, tops: Mapping[str, Position]) -> None:
        """Continue after these positions: messages up to there were lost on their way here."""
        for topic, top in tops.items():
            if topic in self._logs:
                self._silence(topic)
            former = self._silent.pop(topic, None)
            log = self._silent[topic] = former or self._new_log(topic, lane_of(topic))
            log.move_to(top)
        self.interest.report(Change("incomplete", list(tops)))

    def deliver(self) -> None:
        """Give every sink its messages, in the order of subscription; then forget topics beyond `topics_max`."""
        try:
            self.interest.deliver()
        finally:
            if len(self._logs) + len(self._silent) > self._settings.topics_max:
                self._forget_surplus()

    # Reading.

    def history(self, topic: str, since: Position | None, limit: int, *, reverse: bool = False) -> History:
        """Return a page; see `Bus.history`."""
        log = self._find(topic)
        if log is None:
            log = self._new_log(topic, lane_of(topic))
        self._bytes -= log.expire(self._clock.monotonic() - self._settings.history_ttl_s)
        top, kept = log.position, log.messages
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
        return Position(self._epochs[lane_of(topic)], 0) if log is None else log.position

    def topics(self) -> Mapping[str, Position]:
        """Return the topics that have messages, with their newest positions."""
        return {topic: log.position for logs in (self._silent, self._logs) for topic, log in logs.items()}

    def clear(self) -> None:
        """Forget all topics and subscriptions."""
        self.interest.clear()
        for log in self._logs.values():
            log.sleep()
        self._logs.clear()
        self._silent.clear()
        self._bytes = 0

    # Topics that begin, have no messages for long, and are forgotten.

    def _find(self, topic: str) -> Log | None:
        return self._logs.get(topic) or self._silent.get(topic)

    def _begin(self, topic: str, lane: Lane) -> Log:
        """Wake a silent topic, or begin a new one."""
        log = self._silent.pop(topic, None) or self._new_log(topic, lane)
        log.wake(self._marks[lane])
        self._logs[topic] = log
        return log

    def _new_log(self, topic: str, lane: Lane) -> Log:
        return Log(lane, topic, self._epochs[lane], self.interest.wanted(topic))

    def _check_lane(self, lane: Lane, publications: Sequence[Publication]) -> None:
        """Raise InvariantError for a topic of another lane. An active log with this lane's mark needs no check."""
        mark = self._marks[lane]
        for publication in publications:
            for handle in publication.topics:
                log: Log | None = handle.log
                if (log is None or log.active is not mark) and lane_of(handle.name) != lane:
                    raise InvariantError(f"{handle.name} was published on lane {lane}, which is not its own")

    def _begin_epoch(self, lane: Lane, epoch: str) -> None:
        """Begin this epoch on every topic of a lane; their history is dropped."""
        begun: list[str] = []
        for logs in (self._silent, self._logs):
            topics = [topic for topic, log in logs.items() if log.lane == lane]
            for topic in topics:
                self._bytes -= logs.pop(topic).sleep()
            begun += topics
        self._epochs[lane] = epoch
        self.interest.report(Change("new_epoch", begun))

    def _expire(self) -> tuple[float, float]:
        """Free the messages of topics whose newest message has expired; return the time, and the time of expiry."""
        now = self._clock.monotonic()
        cutoff = now - self._settings.history_ttl_s
        while self._logs:
            topic = next(iter(self._logs))
            if self._logs[topic].touched > cutoff:
                break
            self._silence(topic)
        return now, cutoff

    def _make_room(self) -> None:
        """Free messages, beginning with the topic whose last message is oldest, until `history_bytes` is kept."""
        bytes_max = self._settings.history_bytes
        while self._bytes > bytes_max and len(self._logs) > 1:
            self._silence(next(iter(self._logs)))
        while self._bytes > bytes_max:  # only one topic is left
            (log,) = self._logs.values()
            self._bytes -= log.drop_oldest()

    def _forget_surplus(self) -> None:
        """Forget the topics whose last messages are oldest."""
        surplus = len(self._logs) + len(self._silent) - self._settings.topics_max
        oldest = list(islice(chain(self._silent, self._logs), surplus))
        self._next_epoch()
        self._forget(oldest)

    def _forget(self, topics: Sequence[str]) -> None:
        for topic in topics:
            self._bytes -= (self._silent if topic in self._silent else self._logs).pop(topic).sleep()
        self.interest.report(Change("new_epoch", topics))

    def _silence(self, topic: str) -> None:
        log = self._silent[topic] = self._logs.pop(topic)
        self._bytes -= log.sleep()

    def _next_epoch(self) -> None:
        self._epochs_over += 1
        self._epochs = dict.fromkeys(LANES, f"{self._generation}-{self._epochs_over}")

    def _wanted_otherwise(self, topic: str | None) -> None:
        """Look up again which sinks want the topic (None: every topic)."""
        if topic is None:
            for logs in (self._silent, self._logs):
                for name, log in logs.items():
                    log.wanted = self.interest.wanted(name)
        elif (found := self._find(topic)) is not None:
            found.wanted = self.interest.wanted(topic)
