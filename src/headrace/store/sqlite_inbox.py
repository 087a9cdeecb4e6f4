"""Inboxes in one SQLite file; `:memory:` keeps them as long as the process."""

import sqlite3
from collections.abc import Sequence
from typing import TypeVar

from headrace.model.errors import ConfigError, TransientError
from headrace.model.events import Position
from headrace.runtime.clock import Clock
from headrace.runtime.sqlite import SqliteThread
from headrace.store import inbox_verbs as verbs
from headrace.store import migrations
from headrace.store.inbox import Box, Compose, InboxSettings, Kept, Known, Letter
from headrace.store.inbox_verbs import Verb

R = TypeVar("R")


class SqliteInbox:
    """The `Inbox` on one file: durable, one writer at a time, commits in groups."""

    def __init__(self, path: str, clock: Clock, settings: InboxSettings) -> None:
        self._clock, self._settings = clock, settings
        self._thread: SqliteThread[None] = SqliteThread(path)

    @classmethod
    async def open(cls, path: str, clock: Clock, settings: InboxSettings) -> "SqliteInbox":
        """Open the file, creating or migrating it. Raises ConfigError when it can't be had."""
        inbox = cls(path, clock, settings)
        try:
            await inbox._thread.ask(migrations.migrate_sqlite)
        except TransientError as error:
            await inbox.close()
            raise ConfigError("INBOX_FILE", path, "an SQLite file that can be written, or :memory:") from error
        except BaseException:
            await inbox.close()
            raise
        return inbox

    async def begin(self, key: str, fingerprint: str) -> Known | None:
        keys_max = self._settings.keys_max
        return await self._thread.ask(lambda db: _run(db, verbs.begin(key, fingerprint, keys_max, self._now_ms())))

    async def put(self, letters: Sequence[Letter], key: str | None, compose: Compose) -> tuple[list[Position], str]:
        settings = self._settings
        return await self._thread.ask(lambda db: _run(db, verbs.put(letters, key, compose, settings, self._now_ms())))

    async def box(self, user_id: str) -> Box | None:
        return await self._thread.ask(lambda db: _run(db, verbs.box(user_id)), writes=False)

    async def after(self, user_id: str, offset: int, limit: int, *, unacknowledged: bool) -> Sequence[Kept]:
        return await self._thread.ask(
            lambda db: _run(db, verbs.after(user_id, offset, limit, unacknowledged=unacknowledged)), writes=False
        )

    async def acknowledge(self, user_id: str, offset: int) -> None:
        await self._thread.ask(lambda db: _run(db, verbs.acknowledge(user_id, offset, self._now_ms())))

    async def tidy(self) -> int:
        return await self._thread.ask(lambda db: _run(db, verbs.tidy(self._settings, self._now_ms())))

    async def close(self) -> None:
        await self._thread.close()

    def _now_ms(self) -> int:
        return self._clock.wall_ns() // 1_000_000


def _run(db: sqlite3.Connection, verb: Verb[R]) -> R:
    """Carry a verb out; the caller's transaction makes it one."""
    try:
        statement = next(verb)
        while True:
            statement = verb.send(db.execute(statement.sql, statement.values).fetchall())
    except StopIteration as end:
        result: R = end.value
        return result
