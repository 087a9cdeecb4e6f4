"""Orders in PostgreSQL (14 or newer): for any number of servers and workers, on any number of machines."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ClassVar, Final, Self

import asyncpg

from headrace.adapters import Context, Patience
from headrace.database import migrations
from headrace.database.observed import ObservedTime
from headrace.database.postgres_group_commit import AWAY, Db, Lane, away
from headrace.database.postgres_session import PATIENT_S, SESSION, TIMEOUT_S, connect, reconnect
from headrace.model.errors import InvariantError, TransientError
from headrace.model.orders import (
    Attempt,
    AttemptEvent,
    Change,
    Claimed,
    Order,
    OrderEvent,
    OrderRefused,
    OrderStatus,
    Outcome,
    Watch,
)
from headrace.orders import machine, verbs
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store import (
    ANY_ROOM,
    TICK_S,
    Accepted,
    Cancelled,
    Depth,
    EventSink,
    Fills,
    Page,
    Rate,
    Renewal,
    SavedPortfolio,
)
from headrace.orders.store.postgres import ages, batch, claims, reads, tail
from headrace.orders.store.postgres.batch import Job
from headrace.orders.store.postgres.claims import Claim
from headrace.orders.store.postgres.reads import Look
from headrace.orders.store.postgres.sql import CHANNEL
from headrace.orders.store.postgres.writes import transact
from headrace.orders.store.unreadable import Unreadable, UnreadableOrders
from headrace.orders.verbs import Room
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.runtime.sinks import Sinks
from headrace.runtime.supervise import Supervisor

_OCCUPY: Final = """insert into room (id, data) values (1, $1)
    on conflict (id) do update set data = excluded.data"""
READERS: Final = 2
FOLLOW_S: Final = 0.5
ROOM_BYTES: Final = 262_144
"""Number of bytes that a database must be able to store before it is reported as usable again after a failure."""


class PostgresStore:
    """The `Store` on PostgreSQL.

    One connection writes, one claims and one reads, each for groups of calls. A fourth listens for other processes'
    events. Leases are measured by the database's clock. A claim skips rows that other transactions have locked.
    NOTIFY is only a hint: a lost NOTIFY delays events but loses none. A process that runs alone sends none, because
    NOTIFY takes an eighth of the CPU of a commit.
    """

    Settings: ClassVar = ExecutionSettings

    def __init__(self, url: str, clock: Clock) -> None:
        self._url, self._clock = url, clock
        self._sinks = Sinks[OrderEvent]()
        self.unreadable = UnreadableOrders()
        self.on_trouble: Callable[[TransientError], None] = lambda _: None
        self._time = ObservedTime(clock)
        self._tasks = Supervisor(clock)
        self._lane = Lane[Job](self._connect, self._transact, self._deliver_committed, self._trouble)
        self._claims = Lane[Claim](self._connect, self._claim, self._deliver_committed, self._trouble)
        self._looks = Lane[Look](self._connect, reads.look, _nothing, self._trouble)
        self._prepared, self._preparing = False, asyncio.Lock()
        self._readers: asyncpg.Pool[Any] | None = None
        self._mark, self._delivered = "", tail.Delivered()
        self._committed: Sequence[OrderEvent] = ()
        self._others_follow = True
        self._reading = asyncio.Lock()
        self._hint: asyncio.Event | None = None
        self._closed = False

    @classmethod
    async def open(cls, settings: ExecutionSettings, context: Context) -> Self:
        """Open the database that the settings name. Raises the same errors as `at`."""
        return await cls.at(settings.place.where, context.clock, patient=context.patience)

    @classmethod
    async def at(cls, url: str, clock: Clock, *, patient: Patience = None) -> Self:
        """Connect, and create or migrate the tables.

        Raises ConfigError for a database that can never be used, and TransientError for a database that is unavailable.
        If `patient` is given, it is called with the TransientError instead, and the first connection that succeeds
        prepares the tables.
        """
        store = cls(url, clock)
        try:
            db = await connect(url, TIMEOUT_S if patient is None else PATIENT_S)
            try:
                await store._prepare(db)
            finally:
                db.terminate()
        except TransientError as error:
            if patient is None:
                raise
            patient(error)
        store._readers = asyncpg.create_pool(
            url, min_size=0, max_size=READERS, command_timeout=TIMEOUT_S, server_settings=SESSION, reset=_keep
        )
        await store._readers
        await store._tasks.__aenter__()
        store._tasks.start("store", "commits", store._lane.run, restart=Backoff(0.1, 5.0))
        store._tasks.start("store", "claims", store._claims.run, restart=Backoff(0.1, 5.0))
        store._tasks.start("store", "looks", store._looks.run, restart=Backoff(0.1, 5.0))
        return store

    async def accept(
        self,
        order: Order,
        keys: Sequence[str],
        fingerprint: str,
        room: Room = ANY_ROOM,
        lease_ms: int = 0,
        refusal: OrderRefused | None = None,
        steps: Sequence[Change] = (),
    ) -> Accepted:
        user_id = order.request.user_id
        counted = user_id if order.awaits_trigger and any(room) else None
        now_ms = self._now_ms()
        decide = partial(batch.accept, order, keys, fingerprint, room, lease_ms, refusal, steps, now_ms)
        job = Job(decide, keys=[(user_id, key) for key in keys], counts_resting_of=counted)
        accepted: Accepted = await self._lane.ask(job)
        return accepted

    async def claim(self, limit: int, lease_ms: int, rate: Rate) -> list[Claimed]:
        asked = Claim(limit, lease_ms, rate)
        claimed: list[Claimed | Unreadable] = await self._claims.ask(asked)
        return self.unreadable.leave_out(claimed)

    async def resting(self, after_id: str, limit: int) -> Sequence[Order]:
        async with self._reader() as db:
            return self.unreadable.leave_out(await reads.resting(db, after_id, limit))

    async def trigger(self, order_id: str, data: Mapping[str, Any]) -> bool:
        decide = partial(batch.trigger, order_id, data, self._now_ms())
        triggered: bool = await self._lane.ask(Job(decide, [order_id]))
        return triggered

    async def keep_watch(self, order_id: str, watch: Watch) -> bool:
        kept: bool = await self._lane.ask(Job(partial(batch.keep_watch, order_id, watch), [order_id]))
        return kept

    async def apply(self, order: Order, change: Change) -> Order:
        job, _ = self._step(order, change)
        after: Order = await self._lane.ask(job)
        return after

    def apply_later(self, order: Order, change: Change) -> Order:
        job, expected = self._step(order, change)
        self._lane.send(job)
        return expected

    def note(self, order: Order, attempt: Attempt, event: AttemptEvent) -> Attempt:
        if not machine.attempt_may(attempt.status, event):
            return attempt
        learnt = verbs.learn(attempt, event)
        self._lane.send(Job(partial(batch.note, order, learnt), [order.id], moves_attempt=True, held=order))
        return learnt

    async def unfinal(self, limit: int) -> Sequence[Claimed]:
        async with self._reader() as db:
            return self.unreadable.leave_out(await reads.unfinal(db, limit))

    async def finalize(self, order: Order, outcome: Outcome) -> bool:
        decide = partial(batch.finalize, order.id, outcome, self._now_ms())
        finalized: bool = await self._lane.ask(Job(decide, [order.id], held=order))
        return finalized

    async def renew(self, held: Sequence[Order], lease_ms: int) -> Renewal:
        decide = partial(batch.renew, held, lease_ms)
        renewal: Renewal = await self._lane.ask(Job(decide, [order.id for order in held]))
        return renewal

    async def release(self, held: Sequence[Order]) -> None:
        await self.renew(held, batch.ENDED)

    async def cancel(self, order_id: str, user_id: str | None) -> Cancelled | None:
        if not _storable(order_id):
            return None
        decide = partial(batch.cancel, order_id, user_id, self._now_ms())
        cancelled: Cancelled | None = await self._lane.ask(Job(decide, [order_id]))
        if cancelled is None:
            verbs.cancel(await self.get(order_id), user_id, self._now_ms())  # a retired order has ended: raises
        return cancelled

    async def get(self, order_id: str) -> Order | None:
        if not _storable(order_id):
            return None
        order, _ = await self._look(order_id, 0, 0)
        return order

    async def read(self, order_id: str, after_seq: int, limit: int) -> tuple[Order, Sequence[OrderEvent]] | None:
        if not _storable(order_id):
            return None
        order, events = await self._look(order_id, after_seq, limit)
        return None if order is None else (order, events)

    async def list(
        self, *, user_id: str | None, status: OrderStatus | None, mint: str | None, cursor: str | None, limit: int
    ) -> Page:
        async with self._reader() as db:
            if not _storable(user_id, mint, cursor):
                return Page([], None)
            return Page.of(*await reads.page(db, user_id, status, mint, cursor, limit), self.unreadable)

    async def events(self, order_id: str, after_seq: int, limit: int) -> Sequence[OrderEvent]:
        if not _storable(order_id):
            return []
        _, events = await self._look(order_id, after_seq, limit)
        return events

    async def fills(self, user_id: str, after: int, limit: int) -> Fills:
        async with self._reader() as db:
            if not _storable(user_id):
                return Fills([], None, after)
            return (await reads.fills(db, user_id, after, limit)).read(self.unreadable)

    async def portfolio(self, user_id: str) -> SavedPortfolio | None:
        async with self._reader() as db:
            return await reads.portfolio(db, user_id) if _storable(user_id) else None

    async def save_portfolio(self, user_id: str, saved: SavedPortfolio) -> None:
        async with self._reader() as db:
            await reads.save_portfolio(db, user_id, saved)

    async def retire(self, kept_ms: int, limit: int) -> int:
        async with self._reader() as db:
            unreadable, count = await ages.retire(db, self._time.now_ms(), kept_ms, limit)
        self.unreadable.leave_out(unreadable)
        return count

    async def depth(self) -> Depth:
        async with self._reader() as db:
            return await reads.depth(db)

    async def tick(self) -> None:
        async with self._reader() as db:
            await ages.tick(db, self._time)

    async def follow(self) -> None:
        db = await self._connect()
        self._hint = hint = asyncio.Event()
        tick_at_s = 0.0
        try:
            await db.add_listener(CHANNEL, partial(self._notified, hint))
            await tail.join(db)
            while True:
                self._others_follow = hint.is_set() or await tail.others_follow(db)
                hint.clear()
                await self._read_news(db)
                if self._clock.monotonic() >= tick_at_s:
                    await self.tick()
                    tick_at_s = self._clock.monotonic() + TICK_S
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FOLLOW_S):
                        await hint.wait()
        except AWAY as error:
            raise away(error) from error
        finally:
            self._hint, self._others_follow = None, True
            db.terminate()

    async def check(self, *, thorough: bool) -> None:
        await self._lane.ask(Job(_nothing_more, [""]))  # an empty job passes through the queue that orders use
        async with self._reader() as db:
            await db.execute(_OCCUPY, os.urandom(ROOM_BYTES) if thorough else b"")
            if thorough:
                await db.execute(_OCCUPY, b"")

    def attach(self, sink: EventSink) -> Callable[[], None]:
        return self._sinks.attach(sink)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._lane.close()
        self._claims.close()
        self._looks.close()
        await self._tasks.__aexit__(None, None, None)
        if self._readers is not None:
            self._readers.terminate()

    async def _connect(self) -> Db:
        """Return a connection to a database whose tables are prepared."""
        db = await reconnect(self._url)
        try:
            await self._prepare(db)
        except BaseException:
            db.terminate()
            raise
        return db

    async def _prepare(self, db: Db) -> None:
        async with self._preparing:
            if self._prepared:
                return
            try:
                await migrations.migrate_postgres(db)
                await ages.tick(db, self._time)
                self._mark = await tail.mark(db)
            except AWAY as error:
                raise away(error) from error
            self._prepared = True

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[Db]:
        if self._readers is None or self._closed:
            raise TransientError("the database is closed")
        if not self._prepared:
            raise TransientError("the database is not open yet")
        try:
            async with self._readers.acquire(timeout=TIMEOUT_S) as db:
                yield db
        except AWAY as error:
            failure = away(error)
            self.on_trouble(failure)
            raise failure from error
        except asyncpg.PostgresError as error:
            raise InvariantError(f"{type(error).__name__}: {error}") from error

    async def _look(self, order_id: str, after_seq: int, limit: int) -> tuple[Order | None, Sequence[OrderEvent]]:
        found: tuple[Order | None, Sequence[OrderEvent]]
        found = await self._looks.ask(Look(order_id, after_seq, limit))
        return found

    async def _claim(self, db: Db, asked: Sequence[Claim]) -> Sequence[Sequence[Claimed | Unreadable]]:
        taken = await claims.claim(db, asked, self._now_ms(), hint=self._others_follow)
        self._committed = (*self._committed, *(event for each in taken for event in each.events))
        return [each.claimed for each in taken]

    def _trouble(self, failure: TransientError) -> None:
        self.on_trouble(failure)

    def _notified(self, hint: asyncio.Event, _db: object, pid: int, *_: object) -> None:
        """Handle a hint, unless this process sent it: its own commits are already delivered."""
        if pid not in (self._lane.pid, self._claims.pid):
            hint.set()

    async def _transact(self, db: Db, jobs: Sequence[Job]) -> Sequence[Any]:
        results, events = await transact(db, jobs, hint=self._others_follow)
        self._committed = (*self._committed, *events)
        return results

    async def _deliver_committed(self, db: Db) -> None:
        committed, self._committed = self._committed, ()
        following = self._delivered.next_of(committed)
        self._sinks.deliver(following)
        if len(following) < len(committed):
            await self._look_for_news(db)

    async def _look_for_news(self, db: Db) -> None:
        """Read new events now.

        If `follow` runs, it reads them instead, while the next transaction is being executed.
        """
        if self._hint is None:
            await self._read_news(db)
        else:
            self._hint.set()

    async def _read_news(self, db: Db) -> None:
        """Deliver events that became visible, of any process.

        Only one call reads at a time, so that no event is delivered twice.
        """
        async with self._reading:
            found, self._mark = await tail.news(db, self._mark, self._delivered)
            self._sinks.deliver(self._delivered.beyond(self.unreadable.leave_out(found)))

    def _step(self, order: Order, change: Change) -> tuple[Job, Order]:
        """Return the job for a worker's change, and the order as it will be after the change."""
        now_ms = self._now_ms()
        expected = verbs.take(order, order, change, now_ms)
        decide = partial(batch.apply, order, change, expected, now_ms)
        return Job(decide, [order.id], moves_attempt=change.learnt is not None, held=order), expected.order

    def _now_ms(self) -> int:
        return self._clock.wall_ns() // 1_000_000


async def _nothing(_: object) -> None:
    """Do nothing: reads have no events to deliver."""


def _nothing_more(_: object) -> None:
    """Change nothing: the job only has to pass through the queue."""


async def _keep(_: object) -> None:
    """Skip asyncpg's reset: a reader's connection has no state to clear."""


def _storable(*texts: str | None) -> bool:
    """Return whether PostgreSQL can hold these texts. It stores no text with a NUL, so no row can match one."""
    return not any(text and "\0" in text for text in texts)
