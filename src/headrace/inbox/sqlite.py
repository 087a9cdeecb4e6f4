"""Inboxes in one SQLite file; `:memory:` keeps them until the process ends."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import ClassVar, Self, TypeVar

from headrace.adapters import Context, Patience
from headrace.database import migrations
from headrace.database.observed import ObservedTime
from headrace.database.sqlite import SqliteThread
from headrace.inbox import Box, Compose, InboxSettings, Kept, Known, Letter
from headrace.inbox import verbs as verbs
from headrace.inbox.verbs import Verb
from headrace.model.errors import TransientError
from headrace.model.events import Position
from headrace.runtime.clock import Clock

R = TypeVar("R")


class SqliteInbox:
    """`Inbox` on one SQLite file: durable, one writer at a time, commits in groups."""

    Settings: ClassVar = InboxSettings

    def __init__(self, path: str, clock: Clock, settings: InboxSettings) -> None:
        self._settings, self._time = settings, ObservedTime(clock)
        self.on_trouble: Callable[[TransientError], None] = lambda _: None
        self._thread: SqliteThread[None] = SqliteThread(
            path, setup=self._set_up, on_trouble=lambda it: self.on_trouble(it)
        )

    @classmethod
    async def open(cls, settings: InboxSettings, context: Context) -> Self:
        """Open the database that the settings name. Raises the same errors as `at`."""
        return await cls.at(settings.place.where, context.clock, settings, patient=context.patience)

    @classmethod
    async def at(cls, path: str, clock: Clock, settings: InboxSettings, *, patient: Patience = None) -> Self:
        """Open the file, and create or migrate its tables.

        Raises ConfigError for a file of a newer version, and TransientError for a file that can't be used now. If
        `patient` is given, it is called with the TransientError instead.
        """
        inbox = cls(path, clock, settings)
        try:
            await inbox._thread.ask(lambda _: None, writes=False)
        except TransientError as error:
            if patient is None:
                await inbox.close()
                raise
            patient(error)
        except BaseException:
            await inbox.close()
            raise
        return inbox

    async def begin(self, key: str, fingerprint: str) -> Known | None:
        keys_max, time = self._settings.keys_max, self._time
        return await self._thread.ask(lambda db: _run(db, verbs.begin(key, fingerprint, keys_max, time.now_ms())))

    async def put(self, letters: Sequence[Letter], key: str | None, compose: Compose) -> tuple[list[Position], str]:
        settings, time = self._settings, self._time
        return await self._thread.ask(lambda db: _run(db, verbs.put(letters, key, compose, settings, time.now_ms())))

    async def box(self, user_id: str) -> Box | None:
        return await self._thread.ask(lambda db: _run(db, verbs.box(user_id)), writes=False)

    async def after(self, user_id: str, offset: int, limit: int, *, unacknowledged: bool) -> Sequence[Kept]:
        return await self._thread.ask(
            lambda db: _run(db, verbs.after(user_id, offset, limit, unacknowledged=unacknowledged)), writes=False
        )

    async def acknowledge(self, user_id: str, offset: int) -> None:
        await self._thread.ask(lambda db: _run(db, verbs.acknowledge(user_id, offset, self._time.now_ms())))

    async def tidy(self) -> int:
        return await self._thread.ask(lambda db: _run(db, verbs.tidy(self._settings, self._time)))

    async def check(self, *, thorough: bool) -> None:
        await self._thread.check(thorough=thorough)

    async def close(self) -> None:
        await self._thread.close()

    def _set_up(self, db: sqlite3.Connection) -> None:
        migrations.migrate_sqlite(db)
        _run(db, verbs.tick(self._time))


def _run(db: sqlite3.Connection, verb: Verb[R]) -> R:
    """Run an operation in the transaction of the caller."""
    try:
        statement = next(verb)
        while True:
            statement = verb.send(db.execute(statement.sql, statement.values).fetchall())
    except StopIteration as end:
        result: R = end.value
        return result
