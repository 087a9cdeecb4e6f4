"""The topic of each user: what is waiting is sent with every new connection, then what comes, until acknowledged."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
import structlog

from headrace.fanout.groups import Client
from headrace.fanout.replays import INTERNAL, UNAVAILABLE
from headrace.inbox import Box, Inbox, Kept, Letter, Lost
from headrace.model.errors import InvariantError, RequestError, TransientError
from headrace.model.events import Message, Position, Publication
from headrace.model.topics import USER_PREFIX
from headrace.protocol import frames
from headrace.protocol.codes import CloseCode, ErrorCode
from headrace.protocol.frames import FrameId
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics
from headrace.runtime.once import start_once
from headrace.runtime.supervise import Supervisor

PAGE: Final = 16
"""Letters read and sent at a time; one has at most 32 KiB."""

TIDY_S: Final = 60.0
NOTHING: Final = Box(Position("0", 0), None, 0)
AWAY: Final = (TransientError, InvariantError)
"""What a database can do to us; a broken one must not take the stream with it."""

_log = structlog.get_logger("gateway")


class _Told(msgspec.Struct, frozen=True, gc=False):
    """A letter on the bus: its place in the user's own log goes with it, as the bus counts by itself."""

    epoch: str
    offset: int
    event_id: str
    ack: bool
    letter: msgspec.Raw


_told = msgspec.json.Decoder(_Told)


def announcement(letter: Letter, at: Position) -> Publication:
    """What tells every server that the letter is there."""
    told = _Told(at.epoch, at.offset, letter.event_id, letter.ack, msgspec.Raw(letter.data.encode()))
    return Publication(USER_PREFIX + letter.user_id, "event", msgspec.json.encode(told)[1:-1])


class Mailboxes:
    """Every connection of this server that belongs to a user, by user. A sink of the bus brings what is new."""

    def __init__(self, inbox: Inbox, supervisor: Supervisor, clock: Clock, metrics: Metrics) -> None:
        self.inbox, self.supervisor, self.clock = inbox, supervisor, clock
        self._open: dict[str, dict[Mailbox, None]] = {}
        self._lost = metrics.counter("inbox_lost", "Messages that grew too old before their user acknowledged them")

    def sink(self, messages: Sequence[Message]) -> None:
        """Take live messages; see `bus.Sink`."""
        for message in messages:
            if not message.topic.startswith(USER_PREFIX):
                continue
            mailboxes = self._open.get(message.topic[len(USER_PREFIX) :])
            if mailboxes:
                told = _told.decode(b"{%b}" % message.body)
                kept = Kept(told.offset, told.event_id, bytes(told.letter).decode(), told.ack)
                for mailbox in list(mailboxes):
                    mailbox.hear(told.epoch, kept)

    def open(self, client: Client, user_id: str) -> "Mailbox":
        """The client belongs to this user from now on."""
        mailbox = Mailbox(self, client, user_id)
        self._open.setdefault(user_id, {})[mailbox] = None
        mailbox.begin()
        return mailbox

    def remove(self, mailbox: "Mailbox") -> None:
        mailboxes = self._open[mailbox.user_id]
        del mailboxes[mailbox]
        if not mailboxes:
            del self._open[mailbox.user_id]

    async def run(self) -> None:
        """Forget what is too old, for ever."""
        while True:
            try:
                self._lost.inc(await self.inbox.tidy())
            except AWAY as error:
                _log.warning("inbox_away", error=str(error))
            await self.clock.sleep(TIDY_S)


class Mailbox:
    """A user's log on one connection.

    `sent` is the offset up to which the client has what there was, `known` the newest. Up to `floor`, the newest when
    the client came, it gets only what waits to be acknowledged; from there on everything. A letter that follows on what
    was sent is written at once; for anything else the log is read. What the log no longer has is told by a `lag`.
    """

    __slots__ = ("_client", "_epoch", "_floor", "_known", "_lost", "_mailboxes", "_sent", "_task", "topic", "user_id")

    def __init__(self, mailboxes: Mailboxes, client: Client, user_id: str) -> None:
        self.user_id = user_id
        self._mailboxes, self._client, self.topic = mailboxes, client, USER_PREFIX + user_id
        self._epoch, self._sent, self._floor, self._known = "", 0, 0, 0
        self._lost: Lost | None = None
        self._task: object | None = None

    def begin(self) -> None:
        """Send what waits to be acknowledged."""
        self._read(first=True)

    def close(self) -> None:
        """The client is gone; a task that reads for it ends by itself."""
        self._mailboxes.remove(self)

    def hear(self, epoch: str, kept: Kept) -> None:
        """A letter was put into the user's log."""
        if epoch != self._epoch:
            self._epoch, self._sent, self._floor, self._known = epoch, 0, 0, 0
        self._known = max(self._known, kept.offset)
        if self._task is not None or self._client.paused:
            return
        if kept.offset == self._sent + 1:
            self._send(kept)
        else:
            self.resume()

    def resume(self) -> None:
        """The client takes data again."""
        if self._known > self._sent and self._task is None:
            self._read(first=False)

    def acknowledge(self, offset: int, request_id: FrameId) -> None:
        """The client has everything up to `offset`, which must have been sent here; answered when it is on disk."""
        if offset > self._sent:
            failure = RequestError(ErrorCode.BAD_REQUEST, "this offset was not sent on this connection")
            self._client.send(frames.error(failure, request_id, self.topic))
            return
        failed = partial(self._client.send, frames.error(INTERNAL, request_id, self.topic))
        work = partial(self._acknowledge, offset, request_id)
        start_once(self._mailboxes.supervisor, "gateway", "ack", work, failed)

    async def _acknowledge(self, offset: int, request_id: FrameId) -> None:
        try:
            await self._mailboxes.inbox.acknowledge(self.user_id, offset)
        except AWAY:
            self._client.send(frames.error(UNAVAILABLE, request_id, self.topic))
        else:
            if request_id is not None:
                self._client.send(frames.acknowledged(self.topic, request_id, offset))

    def _read(self, *, first: bool) -> None:
        work, failed = partial(self._catch_up, first), partial(self._client.cut_off, CloseCode.INTERNAL)
        self._task = start_once(self._mailboxes.supervisor, "gateway", "mailbox", work, failed)

    async def _catch_up(self, first: bool) -> None:
        """Read until nothing is behind. While the database is away, try again."""
        backoff = Backoff(0.1, 5.0)
        try:
            while self._client.open:
                try:
                    if first:
                        await self._greet()
                        first = False
                    if not await self._read_page():
                        return
                except AWAY as error:
                    if not backoff.tries:
                        _log.warning("inbox_away", error=str(error))
                    await self._mailboxes.clock.sleep(backoff.next_s())
        finally:
            self._task = None

    async def _greet(self) -> None:
        """Say where the log is and how much waits."""
        box = await self._mailboxes.inbox.box(self.user_id) or NOTHING
        if self._epoch not in ("", box.top.epoch):  # a letter of a new epoch came meanwhile
            box = Box(Position(self._epoch, 0), None, 0)
        self._epoch, self._floor = box.top
        self._known = max(self._known, self._floor)
        answer = frames.subscribed(
            self.topic, None, box.top, was_recovering=False, recovered=False, replayed=box.waiting
        )
        self._client.send(answer)
        self._tell_lost(box)
        if not box.waiting:
            self._sent = self._floor

    async def _read_page(self) -> bool:
        """Send the next letters of the log; whether there may be more to send."""
        if self._sent >= self._known or self._client.paused:
            return False
        waiting = self._sent < self._floor
        page = await self._mailboxes.inbox.after(self.user_id, self._sent, PAGE, unacknowledged=waiting)
        for kept in page:
            if waiting and kept.offset > self._floor:
                break
            if not waiting and kept.offset > self._sent + 1:
                self._tell_gone(kept.offset - 1)
            self._send(kept)
        else:
            if len(page) == PAGE:
                return True
        if waiting:
            self._sent = self._floor
            box = await self._mailboxes.inbox.box(self.user_id) or NOTHING
            self._tell_lost(box)  # what was dropped while it was being read
        elif self._sent < self._known:
            self._tell_gone(self._known)
        return True

    def _tell_lost(self, box: Box) -> None:
        lost = box.lost
        if lost is not None and lost != self._lost:
            self._client.send(frames.lag(self.topic, box.top.epoch, lost.first, lost.last, lost.letters))
        self._lost = lost

    def _tell_gone(self, last: int) -> None:
        self._client.send(frames.lag(self.topic, self._epoch, self._sent + 1, last, last - self._sent))
        self._sent = last

    def _send(self, kept: Kept) -> None:
        self._sent = kept.offset
        self._client.send(frames.letter(self.topic, self._epoch, kept.offset, kept.event_id, kept.data, ack=kept.ack))
