"""The writer of a lane's log on Redis: keeps what it appended, and repeats what a server lost."""

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import count, islice
from typing import Any, Final, NamedTuple, Protocol

import structlog

from headrace.bus import REPEATS, Batch, Lane
from headrace.bus.entries import EntryId, encode
from headrace.bus.ledger import Ledger, Planned, words_of
from headrace.bus.redis_lane import LaneLog, new_epoch
from headrace.bus.redis_scripts import APPEND, APPENDED, FOLLOWED, KNOWN, RECLAIM, RESTART, SETTLE
from headrace.model.errors import FencedError, InvariantError, TransientError
from headrace.model.events import Position, Publication
from headrace.redis.connection import Redis
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock

_SENT_AT_ONCE: Final = 64
"""Maximum number of entries that are sent before their answers are awaited."""

_LOOK_S: Final = 1.0

_UNSENT_MAX: Final = 4_096
"""Maximum number of batches that wait to be in the log; `publish` refuses more."""

_log = structlog.get_logger("bus")


class Identity(NamedTuple):
    """Identity of a writer: the name of its claim, and the token of its lease."""

    name: str
    token: int


class _Item:
    """An entry of this writer. `positions` is answered once the entry is in the view."""

    __slots__ = ("batch", "data", "in_view", "planned", "positions")

    def __init__(self, batch: Batch, planned: Planned) -> None:
        self.batch = batch
        self.positions: asyncio.Future[Sequence[Position]] = asyncio.get_running_loop().create_future()
        self.positions.add_done_callback(_retrieve)
        self.in_view = False
        self.plan(planned)

    def plan(self, planned: Planned) -> None:
        """Set the entry's place in the log, and encode the entry for it."""
        self.planned, self.data = planned, encode(planned.entry)


class Owner(Protocol):
    """The bus, as its writers need it."""

    def lost(self, log: LaneLog, *, reread: bool) -> None:
        """Hand the lane back to the reader; `reread`: the view has entries that are not in the log."""

    async def run_id(self) -> str:
        """Return the run id of the server."""


class RedisWriter:
    """The `Writer` of a lane. `run` must run while the writer is used.

    Entries are appended in the order of the first calls of `publish`, and are in the view of this process once they are
    in the log. While the server is away, the writer waits for `local_after_s`. Then it begins a new epoch, in which
    entries are in the view of this process at once and in the log later. So no position ever means two messages: if
    another writer has claimed the lane meanwhile, nobody else has seen that epoch.
    """

    def __init__(
        self,
        owner: Owner,
        log: LaneLog,
        redis: Redis,
        clock: Clock,
        identity: Identity,
        ledger: Ledger,
        local_after_s: float,
    ) -> None:
        self.lane: Lane = log.lane
        self.identity, self.local = identity, False
        self.trouble: TransientError | None = None
        """Reason why the newest entries are not in the log yet."""
        self._owner, self._log, self._redis, self._clock = owner, log, redis, clock
        self._ledger, self._local_after_s = ledger, local_after_s
        self._backoff = Backoff(initial_s=0.02, max_s=1.0)
        self._away_since_s: float | None = None
        self._epoch_in_log = ledger.at.epoch
        self._ids = count()
        self._answers: dict[int, _Item] = {}
        self._forgotten = -1
        self._ring: deque[_Item] = deque()
        """Entries of this writer that the log should have, oldest first."""
        self._unsent: deque[_Item] = deque()
        """The last entries of the ring: the log may lack them."""
        self._unsettled: str | None = None
        """The run of the server whose log lacks entries that processes know; None if no entry is lacking."""
        self._wake, self._to_look = asyncio.Event(), False
        self._ended: FencedError | TransientError | None = None

    def batch(self, publications: Sequence[Publication], *, new_epoch: bool = False, positions: bool = False) -> Batch:
        return Batch(next(self._ids), publications, new_epoch, positions)

    async def publish(self, batch: Batch) -> Sequence[Position]:
        if self._ended is not None:
            raise self._ended
        item = self._answers.get(batch.id)
        if item is None:
            if batch.id <= self._forgotten:
                raise InvariantError(f"lane {self.lane}: whether batch {batch.id} was appended is no longer known")
            item = self._put(batch)
        return await asyncio.shield(item.positions)

    async def run(self) -> None:
        """Send entries until another writer has the lane."""
        while self._ended is None:
            await self._wake.wait()
            sent = list(islice(self._unsent, _SENT_AT_ONCE))
            if not sent:
                self.local = False
                self._recovered()
                self._wake.clear()
                await self._look()
                continue
            try:
                answers = await self._redis.run_all(APPEND, self._log.keys, [self._words(item) for item in sent])
                self._answered(sent, answers)
                await self._settle()
            except TransientError as error:
                await self._reconnect(error)

    async def look(self) -> None:
        """Look each second, while nothing is published, whether the server still has the log, and this writer."""
        while self._ended is None:
            await self._clock.sleep(_LOOK_S)
            if not self._unsent:
                self._to_look = True
                self._wake.set()

    async def _look(self) -> None:
        if not self._to_look:
            return
        self._to_look = False
        try:
            name = await self._redis.command("HGET", self._log.keys[0], "w")
        except TransientError as error:
            await self._reconnect(error)
            return
        if name != self.identity.name.encode():
            await self._reconnect(TransientError("Redis: the log is gone, or has another writer"))

    def end(self, error: FencedError | TransientError) -> None:
        """Refuse all that was not answered, and all that follows."""
        if self._ended is None:
            self._ended, self.trouble = error, None
            self._wake.set()
            for item in self._unsent:
                if not item.positions.done():
                    item.positions.set_exception(error)

    # Planning.

    def _put(self, batch: Batch) -> _Item:
        self._log.view.check_lane(self.lane, batch.publications)
        if len(self._unsent) >= _UNSENT_MAX and not self.local:
            raise TransientError(f"Redis: {_UNSENT_MAX} batches of lane {self.lane} wait already")
        item = self._answers[batch.id] = _Item(batch, self._ledger.plan(batch))
        if len(self._answers) > REPEATS:
            oldest = next(iter(self._answers))
            if self._answers[oldest].in_view:
                self._forgotten = max(self._forgotten, oldest)
                del self._answers[oldest]
        self._ring.append(item)
        self._unsent.append(item)
        if self.local:
            self._show(item)
        self._wake.set()
        return item

    def _words(self, item: _Item) -> list[str | bytes | int]:
        at, entry, tops, _ = item.planned
        head: list[str | bytes | int] = [self.identity.name, *at, entry.next_part, str(self._log.least), item.data]
        return [*head, int(entry.restart), len(tops), *words_of(tops.items()), *entry.forgotten]

    # Answers.

    def _answered(self, sent: Sequence[_Item], answers: Sequence[Any]) -> None:
        for item, answer in zip(sent, answers, strict=True):
            if isinstance(answer, TransientError):
                raise answer
            if answer[0] not in (APPENDED, KNOWN):
                raise TransientError("Redis: the log lacks entries that it had, or has another writer")
            self._epoch_in_log = item.planned.id.epoch
            if self._unsent and self._unsent[0] is item:
                self._unsent.popleft()
            if not item.in_view:
                self._show(item)
        self._recovered()

    def _show(self, item: _Item) -> None:
        """Put an entry into the view of this process; an error of a sink is the answer to the caller."""
        at, entry, _, positions = item.planned
        item.in_view = True
        try:
            self._log.take(at, entry, item.batch.publications, len(item.data), self._clock.monotonic())
        except Exception as error:  # noqa: BLE001  (whatever a sink raises belongs to the caller of publish)
            if not item.positions.done():
                item.positions.set_exception(error)
            item.positions = asyncio.get_running_loop().create_future()
        if not item.positions.done():
            item.positions.set_result(positions)
        ring, least = self._ring, self._log.least
        while ring and ring[0].in_view and ring[0].planned.id < least:
            gone = ring.popleft()
            if self._unsent and self._unsent[0] is gone:
                self._unsent.popleft()

    def _fence(self, token: int) -> None:
        self.end(
            FencedError(
                f"lane {self.lane}: the writer with token {self.identity.token} was followed by one with {token}"
            )
        )
        self._owner.lost(self._log, reread=self.local)

    # Servers that are away, or come back with less than they had.

    async def _reconnect(self, error: TransientError) -> None:
        """Claim the lane again, and find what the server lacks; go on without the server if that takes long."""
        if self._away_since_s is None:
            _log.warning("bus_away", lane=self.lane, error=str(error))
            self._away_since_s = self._clock.monotonic()
        else:
            await self._clock.sleep(self._backoff.next_s())
        while self._ended is None:
            self.trouble = error
            try:
                run_id = await self._owner.run_id()
                words: list[str | bytes | int] = [*self.identity, self._epoch_in_log, run_id]
                answer = await self._redis.run(RECLAIM, self._log.keys, *words)
                if answer[0] == FOLLOWED:
                    self._fence(answer[1])
                else:
                    await self._repair(answer, run_id)
                return
            except TransientError as again:
                error = again
            if not self.local and self._clock.monotonic() - self._away_since_s >= self._local_after_s:
                self._go_local()
            await self._clock.sleep(self._backoff.next_s())

    def _recovered(self) -> None:
        self.trouble = self._away_since_s = None
        self._backoff.reset()

    async def _repair(self, answer: Sequence[Any], run_id: str) -> None:
        """Find the entries that the server lacks; let the log begin anew if it lacks more than the ring has."""
        ring = self._ring
        self._unsettled = run_id
        if answer[1] is not None:
            has = EntryId(int(answer[1]), int(answer[2]))
            for item in list(self._unsent):  # some may be in the log although the answer was lost
                if not item.in_view and item.planned.id <= has:
                    self._show(item)
            lacks = [item for item in ring if item.planned.id > has]
            if not lacks or _follows(lacks[0].planned.id, has):
                self._unsent = deque(lacks)
                self._wake.set()
                return
        first = ring[0].planned.id if ring else None
        before = self._ledger.at if first is None else EntryId(first.epoch, first.seq - 1)
        tops = words_of(self._ledger.tops.items())
        words: list[str | bytes | int] = [*self.identity, self._epoch_in_log, *before, self._ledger.part, *tops]
        answer = await self._redis.run(RESTART, self._log.keys, *words)
        if answer[0] == FOLLOWED:
            self._fence(answer[1])
            return
        self._unsent = deque(ring)
        self._wake.set()

    async def _settle(self) -> None:
        """Let the next writer continue this log, once the server has all that any process knows.

        Until then a new writer would give positions again that are in use; so it begins a new epoch.
        """
        if self._unsettled is not None and not (self._unsent and self._unsent[0].in_view):
            await self._redis.run(SETTLE, self._log.keys, self.identity.name, self._unsettled)
            self._unsettled = None

    def _go_local(self) -> None:
        """Begin an epoch that this process sees at once; entries whose fate is unknown are planned again in it."""
        _log.warning("bus_local", lane=self.lane, meaning="a new epoch; others get its messages once Redis is back")
        self.local = True
        self._ledger.restart(new_epoch(self._clock, self._ledger.at))
        again = [item for item in self._unsent if not item.in_view]  # the last ones
        for _ in again:
            self._ring.pop()
            self._unsent.pop()
        for item in again:
            item.plan(self._ledger.plan(item.batch))
            self._ring.append(item)
            self._unsent.append(item)
            self._show(item)


def _follows(at: EntryId, has: EntryId) -> bool:
    return at.seq == (has.seq + 1 if at.epoch == has.epoch else 1)


def _retrieve(answered: "asyncio.Future[Sequence[Position]]") -> None:
    """Mark the error of an answer as seen, which nobody may wait for any more."""
    if not answered.cancelled():
        answered.exception()
