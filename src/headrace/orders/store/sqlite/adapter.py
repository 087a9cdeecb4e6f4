"""Orders in one SQLite file: for one machine, shared by the gateway and any number of workers on it."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, Self

from headrace.adapters import Context, Patience
from headrace.database import migrations, observed
from headrace.database.observed import ObservedTime
from headrace.database.sqlite import SqliteThread
from headrace.model.errors import TransientError
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
from headrace.orders.store.sqlite import reads, writes
from headrace.orders.store.unreadable import Unreadable, UnreadableOrders
from headrace.orders.verbs import Room
from headrace.runtime.clock import Clock
from headrace.runtime.sinks import Sinks

FOLLOW_S: Final = 0.02


class SqliteStore:
    """The `Store` on one file: durable (`synchronous = full`), with one writer at a time and group commits.

    Time is the machine's wall clock. Several processes may open the same file. Each delivers the events that other
    processes committed together with its own next commit, or through `follow`.
    """

    Settings: ClassVar = ExecutionSettings

    def __init__(self, path: str, clock: Clock) -> None:
        self._clock = clock
        self._sinks = Sinks[OrderEvent]()
        self.unreadable = UnreadableOrders()
        self.on_trouble: Callable[[TransientError], None] = lambda _: None
        self._time = ObservedTime(clock)
        self._thread: SqliteThread[OrderEvent | Unreadable] = SqliteThread(
            path, setup=self._set_up, tail=reads.tail, on_news=self._deliver, on_trouble=lambda it: self.on_trouble(it)
        )

    @classmethod
    async def open(cls, settings: ExecutionSettings, context: Context) -> Self:
        """Open the database that the settings name. Raises the same errors as `at`."""
        return await cls.at(settings.place.where, context.clock, patient=context.patience)

    @classmethod
    async def at(cls, path: str, clock: Clock, *, patient: Patience = None) -> Self:
        """Open the file and create or migrate its tables.

        Raises ConfigError for a file of a newer version, and TransientError for a file that can't be used now. If
        `patient` is given, it is called with the TransientError instead.
        """
        store = cls(path, clock)
        try:
            await store._thread.ask(lambda _: None, writes=False)
        except TransientError as error:
            if patient is None:
                await store.close()
                raise
            patient(error)
        except BaseException:
            await store.close()
            raise
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
        accept = partial(writes.accept, order, keys, fingerprint, room, lease_ms, refusal, steps, self._now_ms())
        return await self._thread.ask(accept)

    async def claim(self, limit: int, lease_ms: int, rate: Rate) -> list[Claimed]:
        claimed = await self._thread.ask(partial(writes.claim, limit, lease_ms, rate, self._now_ms()))
        return self.unreadable.leave_out(claimed)

    async def resting(self, after_id: str, limit: int) -> Sequence[Order]:
        return self.unreadable.leave_out(await self._thread.ask(partial(reads.resting, after_id, limit), writes=False))

    async def trigger(self, order_id: str, data: Mapping[str, Any]) -> bool:
        return await self._thread.ask(partial(writes.trigger, order_id, data, self._now_ms()))

    async def keep_watch(self, order_id: str, watch: Watch) -> bool:
        return await self._thread.ask(partial(writes.keep_watch, order_id, watch, self._now_ms()))

    async def apply(self, order: Order, change: Change) -> Order:
        now_ms = self._now_ms()
        expected = verbs.take(order, order, change, now_ms)
        return await self._thread.ask(partial(writes.apply, order, change, expected, now_ms))

    def apply_later(self, order: Order, change: Change) -> Order:
        now_ms = self._now_ms()
        expected = verbs.take(order, order, change, now_ms)
        self._thread.send(partial(writes.apply, order, change, expected, now_ms))
        return expected.order

    def note(self, order: Order, attempt: Attempt, event: AttemptEvent) -> Attempt:
        if not machine.attempt_may(attempt.status, event):
            return attempt
        learnt = verbs.learn(attempt, event)
        self._thread.send(partial(writes.note, order, learnt))
        return learnt

    async def unfinal(self, limit: int) -> Sequence[Claimed]:
        return self.unreadable.leave_out(await self._thread.ask(partial(reads.unfinal, limit), writes=False))

    async def finalize(self, order: Order, outcome: Outcome) -> bool:
        return await self._thread.ask(partial(writes.finalize, order, outcome, self._now_ms()))

    async def renew(self, held: Sequence[Order], lease_ms: int) -> Renewal:
        return await self._thread.ask(partial(writes.renew, held, self._now_ms() + lease_ms))

    async def release(self, held: Sequence[Order]) -> None:
        await self._thread.ask(partial(writes.renew, held, 0))

    async def cancel(self, order_id: str, user_id: str | None) -> Cancelled | None:
        return await self._thread.ask(partial(writes.cancel, order_id, user_id, self._now_ms()))

    async def get(self, order_id: str) -> Order | None:
        return await self._thread.ask(partial(reads.get, order_id), writes=False)

    async def read(self, order_id: str, after_seq: int, limit: int) -> tuple[Order, Sequence[OrderEvent]] | None:
        return await self._thread.ask(partial(reads.read, order_id, after_seq, limit), writes=False)

    async def list(
        self, *, user_id: str | None, status: OrderStatus | None, mint: str | None, cursor: str | None, limit: int
    ) -> Page:
        page = partial(reads.page, user_id, status, mint, cursor, limit)
        return Page.of(*await self._thread.ask(page, writes=False), self.unreadable)

    async def events(self, order_id: str, after_seq: int, limit: int) -> Sequence[OrderEvent]:
        return await self._thread.ask(partial(reads.events, order_id, after_seq, limit), writes=False)

    async def fills(self, user_id: str, after: int, limit: int) -> Fills:
        found = await self._thread.ask(partial(reads.fills, user_id, after, limit), writes=False)
        return found.read(self.unreadable)

    async def portfolio(self, user_id: str) -> SavedPortfolio | None:
        return await self._thread.ask(partial(reads.portfolio, user_id), writes=False)

    async def save_portfolio(self, user_id: str, saved: SavedPortfolio) -> None:
        await self._thread.ask(partial(writes.save_portfolio, user_id, saved))

    async def retire(self, kept_ms: int, limit: int) -> int:
        unreadable, count = await self._thread.ask(lambda db: writes.retire(self._time.now_ms(), kept_ms, limit, db))
        self.unreadable.leave_out(unreadable)
        return count

    async def depth(self) -> Depth:
        return await self._thread.ask(reads.depth, writes=False)

    async def tick(self) -> None:
        await self._thread.ask(self._tick)

    async def follow(self) -> None:
        tick_at_s = 0.0
        while True:
            await self._thread.ask(lambda _: None, writes=False)
            if self._clock.monotonic() >= tick_at_s:
                await self.tick()
                tick_at_s = self._clock.monotonic() + TICK_S
            await self._clock.sleep(FOLLOW_S)

    async def check(self, *, thorough: bool) -> None:
        await self._thread.check(thorough=thorough)

    def attach(self, sink: EventSink) -> Callable[[], None]:
        return self._sinks.attach(sink)

    async def close(self) -> None:
        await self._thread.close()

    def _set_up(self, db: sqlite3.Connection) -> None:
        migrations.migrate_sqlite(db)
        self._tick(db)

    def _tick(self, db: sqlite3.Connection) -> None:
        """Read how far observed time has advanced, and store this process's observed time."""
        for (ms,) in db.execute(observed.READ).fetchall():
            self._time.learn(ms)
        ((ms,),) = db.execute(observed.SEEN, (self._time.now_ms(),)).fetchall()
        self._time.learn(ms)

    def _now_ms(self) -> int:
        return self._clock.wall_ns() // 1_000_000

    def _deliver(self, news: Sequence[OrderEvent | Unreadable]) -> None:
        self._sinks.deliver(self.unreadable.leave_out(news))
