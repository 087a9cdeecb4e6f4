"""The topic of each user. A new connection gets unacknowledged inbox messages, then new ones as they arrive."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
import structlog

from headrace.fanout.client import Client
from headrace.fanout.log_reader import Arrival, LogReader
from headrace.inbox import Box, Inbox, Kept, Letter, Lost
from headrace.model.errors import InvariantError, RequestError, TransientError
from headrace.model.events import Message, Position, Publication
from headrace.model.topics import USER_PREFIX
from headrace.protocol import frames
from headrace.protocol.codes import INTERNAL, UNAVAILABLE, CloseCode, ErrorCode
from headrace.protocol.frames import FrameId
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor

PAGE: Final = 16
"""Number of inbox messages read and sent at a time; each has at most 32 KiB."""

TIDY_S: Final = 60.0
NO_LETTERS: Final = Box(Position("0", 0), None, 0)
AWAY: Final = (TransientError, InvariantError)
"""Database errors. A broken database must not end the stream."""

_log = structlog.get_logger("gateway")


class _Announced(msgspec.Struct, frozen=True, gc=False):
    """An inbox message as the bus carries it.

    `offset` is its position in the user's own log, not an offset of the bus.
    """

    epoch: str
    offset: int
    event_id: str
    ack: bool
    letter: msgspec.Raw


_announced = msgspec.json.Decoder(_Announced)


def announcement(letter: Letter, at: Position) -> Publication:
    """Return the publication that carries an inbox message, stored at `at`, to all connections of its user."""
    announced = _Announced(at.epoch, at.offset, letter.event_id, letter.ack, msgspec.Raw(letter.data.encode()))
    return Publication.on(USER_PREFIX + letter.user_id, "event", msgspec.json.encode(announced)[1:-1])


class UserTopics:
    """Connections of this server to each user. New inbox messages reach them through a sink of the bus."""

    def __init__(self, inbox: Inbox, supervisor: Supervisor, clock: Clock, metrics: Metrics) -> None:
        self.inbox, self.supervisor, self.clock = inbox, supervisor, clock
        self._open: dict[str, dict[UserTopic, None]] = {}
        self._lost = metrics.counter("inbox_lost", "Messages that grew too old before their user acknowledged them")

    def sink(self, messages: Sequence[Message]) -> None:
        """Handle live messages; see `bus.Sink`."""
        for message in messages:
            if not message.topic.startswith(USER_PREFIX):
                continue
            topics = self._open.get(message.topic[len(USER_PREFIX) :])
            if topics:
                announced = _announced.decode(b"{%b}" % message.body)
                letter = bytes(announced.letter).decode()
                kept = Kept(announced.offset, announced.event_id, letter, announced.ack)
                for topic in list(topics):
                    topic.hear(announced.epoch, kept)

    def open(self, client: Client, user_id: str) -> "UserTopic":
        """Send the client its user's inbox messages from now on."""
        topic = UserTopic(self, client, user_id)
        self._open.setdefault(user_id, {})[topic] = None
        topic.begin()
        return topic

    def remove(self, topic: "UserTopic") -> None:
        """Forget a connection."""
        topics = self._open[topic.user_id]
        del topics[topic]
        if not topics:
            del self._open[topic.user_id]

    async def run(self) -> None:
        """Drop inbox messages that are too old, until cancelled."""
        while True:
            try:
                self._lost.inc(await self.inbox.tidy())
            except AWAY as error:
                _log.warning("inbox_away", error=str(error))
            await self.clock.sleep(TIDY_S)


class UserTopic:
    """A user's log on one connection, followed as in `log_reader`.

    Up to `floor`, the newest offset when the client connected, the client gets only unacknowledged messages. After that
    it gets all. Messages that the log no longer has are reported with `lag`.
    """

    __slots__ = ("_client", "_floor", "_log", "_lost", "_topics", "topic", "user_id")

    def __init__(self, topics: UserTopics, client: Client, user_id: str) -> None:
        self.user_id = user_id
        self._topics, self._client, self.topic = topics, client, USER_PREFIX + user_id
        self._log = LogReader()
        self._floor = 0
        self._lost: Lost | None = None

    @property
    def reading(self) -> bool:
        """Return whether the log is being read."""
        return self._log.reading

    def begin(self) -> None:
        """Send the unacknowledged messages."""
        self._read(first=True)

    def close(self) -> None:
        """Forget the client. A task that reads for the client ends by itself."""
        self._topics.remove(self)

    def hear(self, epoch: str, kept: Kept) -> None:
        """Handle a new message of the user's log."""
        if epoch != self._log.at.epoch:
            self._floor = 0
        arrival = self._log.arrive(Position(epoch, kept.offset), able=not self._client.paused)
        if arrival is Arrival.NEXT:
            self._send(kept)
        elif arrival is Arrival.BEYOND:
            self.resume()

    def resume(self) -> None:
        """Continue for a client that accepts data again."""
        if self._log.behind and not self._log.reading:
            self._read(first=False)

    def acknowledge(self, offset: int, request_id: FrameId) -> None:
        """Record the client's acknowledgement of everything up to `offset`, then reply.

        `offset` must have been sent on this connection.
        """
        if offset > self._log.at.offset:
            failure = RequestError(ErrorCode.BAD_REQUEST, "this offset was not sent on this connection")
            self._client.send(frames.error(failure, request_id, self.topic))
            return
        failed = partial(self._client.send, frames.error(INTERNAL, request_id, self.topic))
        work = partial(self._acknowledge, offset, request_id)
        self._topics.supervisor.start("gateway", "ack", work, on_failure=failed)

    async def _acknowledge(self, offset: int, request_id: FrameId) -> None:
        try:
            await self._topics.inbox.acknowledge(self.user_id, offset)
        except AWAY:
            self._client.send(frames.error(UNAVAILABLE, request_id, self.topic))
        else:
            if request_id is not None:
                self._client.send(frames.acknowledged(self.topic, request_id, offset))

    def _read(self, *, first: bool) -> None:
        self._log.reading = True
        work, failed = partial(self._catch_up, first), partial(self._client.cut_off, CloseCode.INTERNAL)
        self._topics.supervisor.start("gateway", "user_topic", work, on_failure=failed)

    async def _catch_up(self, first: bool) -> None:
        """Read until nothing is behind. While the database is unavailable, retry."""
        backoff = Backoff(0.1, 5.0)
        try:
            while self._client.open:
                try:
                    if first:
                        await self._send_place()
                        first = False
                    if not await self._read_page():
                        return
                except AWAY as error:
                    if not backoff.tries:
                        _log.warning("inbox_away", error=str(error))
                    await self._topics.clock.sleep(backoff.next_s())
        finally:
            self._log.reading = False

    async def _send_place(self) -> None:
        """Send the log's position and the number of unacknowledged messages."""
        box, log = await self._topics.inbox.box(self.user_id) or NO_LETTERS, self._log
        if log.at.epoch not in ("", box.top.epoch):  # a message of a new epoch arrived meanwhile
            box = Box(Position(log.at.epoch, 0), None, 0)
        self._floor = box.top.offset
        log.at = Position(box.top.epoch, log.at.offset)
        log.know(self._floor)
        answer = frames.subscribed(
            self.topic, None, box.top, was_recovering=False, recovered=False, replayed=box.waiting
        )
        self._client.send(answer)
        self._report_lost(box)
        if not box.waiting:
            log.take(self._floor)

    async def _read_page(self) -> bool:
        """Send the log's next messages. Return whether there may be more to send."""
        log = self._log
        if not log.behind or self._client.paused:
            return False
        waiting = log.at.offset < self._floor
        page = await self._topics.inbox.after(self.user_id, log.at.offset, PAGE, unacknowledged=waiting)
        for kept in page:
            if waiting and kept.offset > self._floor:
                break
            if not waiting and kept.offset > log.at.offset + 1:
                self._report_gone(kept.offset - 1)
            log.take(kept.offset)
            self._send(kept)
        else:
            if len(page) == PAGE:
                return True
        if waiting:
            log.take(self._floor)
            box = await self._topics.inbox.box(self.user_id) or NO_LETTERS
            self._report_lost(box)  # messages that were dropped while the log was read
        elif log.behind:
            self._report_gone(log.newest)
        return True

    def _report_lost(self, box: Box) -> None:
        lost = box.lost
        if lost is not None and lost != self._lost:
            self._client.send(frames.lag(self.topic, box.top.epoch, lost.first, lost.last, lost.letters))
        self._lost = lost

    def _report_gone(self, last: int) -> None:
        at = self._log.at
        self._client.send(frames.lag(self.topic, at.epoch, at.offset + 1, last, last - at.offset))
        self._log.take(last)

    def _send(self, kept: Kept) -> None:
        epoch = self._log.at.epoch
        self._client.send(frames.letter(self.topic, epoch, kept.offset, kept.event_id, kept.data, ack=kept.ack))
