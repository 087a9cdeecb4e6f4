"""The in-process bus: topics in memory, delivery by plain calls on the event loop."""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Final

from headrace.bus import BusSettings, History, Sink
from headrace.model.errors import TransientError
from headrace.model.events import Message, Position, Publication
from headrace.runtime.clock import Clock
from headrace.runtime.sinks import Sinks

MESSAGE_BYTES: Final = 200
"""What a kept message weighs besides its body."""


class _Log:
    """One topic: its place and what is kept of it, `size` bytes. `times[i]` is when `messages[i]` was appended."""

    __slots__ = ("epoch", "messages", "offset", "size", "times", "touched")

    def __init__(self, epoch: str, size: int) -> None:
        self.epoch = epoch
        self.offset = self.size = 0
        self.touched = float("-inf")
        self.messages: deque[Message] = deque(maxlen=size)
        self.times: deque[float] = deque(maxlen=size)

    def append(self, message: Message, now: float) -> int:
        """Keep it, in place of the oldest if the log is full; returns by how many bytes the log grew."""
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
        """Drop what was appended at or before `cutoff`; returns how many bytes that freed."""
        before, times = self.size, self.times
        while times and times[0] <= cutoff:
            self.drop_oldest()
        return before - self.size

    def drop_oldest(self) -> None:
        self.times.popleft()
        self.size -= len(self.messages.popleft().body) + MESSAGE_BYTES

    def clear(self) -> int:
        """Keep the position only; returns how many bytes that freed."""
        freed, self.size = self.size, 0
        self.messages.clear()
        self.times.clear()
        return freed


class MemoryBus:
    """The `Bus` of a single process; its past ends with the process.

    Epochs are `generation`, then `generation-1`, `generation-2`, …: the number grows whenever a topic is forgotten or
    the bus is renewed, and a topic takes the epoch of the moment in which it begins. So a topic that comes back never
    has an epoch that it had before. `generation` is the caller's: random for a live service, the recording's id for a
    replay that must be the same each time.

    Expired messages go when their topic is next used, or, on topics that fell silent, with the next batch on any topic.
    When all kept messages together weigh more than `history_bytes`, the topic that was published on longest ago loses
    its messages first; it keeps its position and its epoch.

    Measured with CPython 3.11 on one core: a million publications a second on 100 topics; where each goes to a topic of
    its own, a million of them, 210,000 a second within 140 MB (the newest 50,000 topics are kept).
    """

    def __init__(self, settings: BusSettings, clock: Clock, generation: str) -> None:
        self._settings = settings
        self._clock = clock
        self._generation = self._epoch = generation
        self._epochs_over = 0
        self._logs: OrderedDict[str, _Log] = OrderedDict()  # least recently published first
        self._silent: OrderedDict[str, _Log] = OrderedDict()  # without messages, only the position; oldest first
        self._bytes = 0
        self._sinks = Sinks[Message]()
        self._closed = False

    async def publish(self, batch: Sequence[Publication]) -> list[Position]:
        self._check_open()
        now = self._clock.monotonic()
        cutoff = now - self._settings.history_ttl_s
        self._lay_silent(cutoff)
        logs = self._logs
        messages: list[Message] = []
        positions: list[Position] = []
        for publication in batch:
            topic = publication.topic
            log = logs.get(topic)
            if log is None:
                log = self._begin(topic)
            if log.touched != now:
                log.touched = now
                logs.move_to_end(topic)
                self._bytes -= log.expire(cutoff)
            log.offset = offset = log.offset + 1
            message = Message(topic, publication.kind, log.epoch, offset, publication.body, publication.label)
            self._bytes += log.append(message, now)
            messages.append(message)
            positions.append(Position(log.epoch, offset))
        self._make_room()
        self._sinks.deliver(messages)
        return positions

    async def history(self, topic: str, since: Position | None, limit: int, *, reverse: bool = False) -> History:
        self._check_open()
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

    async def top(self, topic: str) -> Position:
        self._check_open()
        log = self._find(topic)
        return Position(self._epoch, 0) if log is None else Position(log.epoch, log.offset)

    def attach(self, sink: Sink) -> Callable[[], None]:
        self._check_open()
        return self._sinks.attach(sink)

    def topics(self) -> Mapping[str, Position]:
        self._check_open()
        return {
            topic: Position(log.epoch, log.offset) for logs in (self._silent, self._logs) for topic, log in logs.items()
        }

    async def renew(self) -> None:
        self._check_open()
        self._forget_all()
        self._next_epoch()

    async def close(self) -> None:
        self._closed = True
        self._sinks.detach_all()
        self._forget_all()

    def _forget_all(self) -> None:
        self._logs.clear()
        self._silent.clear()
        self._bytes = 0

    def _check_open(self) -> None:
        if self._closed:
            raise TransientError("the bus is closed")

    def _find(self, topic: str) -> _Log | None:
        return self._logs.get(topic) or self._silent.get(topic)

    def _begin(self, topic: str) -> _Log:
        """Wake a silent topic, or begin a new one, forgetting the least recently used to make room."""
        log = self._silent.pop(topic, None)
        if log is None:
            log = _Log(self._epoch, self._settings.history_size)
            if len(self._logs) + len(self._silent) >= self._settings.topics_max:
                _, forgotten = (self._silent or self._logs).popitem(last=False)
                self._bytes -= forgotten.size
                self._next_epoch()
        self._logs[topic] = log
        return log

    def _lay_silent(self, cutoff: float) -> None:
        """Free the messages of topics whose newest one expired."""
        while self._logs:
            topic = next(iter(self._logs))
            if self._logs[topic].touched > cutoff:
                return
            self._silence(topic)

    def _make_room(self) -> None:
        """Free messages, of the least recently used topics first, until the rest is within `history_bytes`."""
        bytes_max = self._settings.history_bytes
        while self._bytes > bytes_max and len(self._logs) > 1:
            self._silence(next(iter(self._logs)))
        while self._bytes > bytes_max:  # one topic alone
            (log,) = self._logs.values()
            before = log.size
            log.drop_oldest()
            self._bytes += log.size - before

    def _silence(self, topic: str) -> None:
        log = self._silent[topic] = self._logs.pop(topic)
        self._bytes -= log.clear()

    def _next_epoch(self) -> None:
        self._epochs_over += 1
        self._epoch = f"{self._generation}-{self._epochs_over}"
