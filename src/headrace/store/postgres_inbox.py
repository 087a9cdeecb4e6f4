"""Inboxes in PostgreSQL (14 or newer): for any number of servers."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Final, TypeVar

import asyncpg

from headrace.model.errors import ConfigError
from headrace.model.events import Position
from headrace.runtime.clock import Clock
from headrace.store import inbox_verbs as verbs
from headrace.store import migrations
from headrace.store.inbox import Box, Compose, InboxSettings, Kept, Known, Letter
from headrace.store.inbox_verbs import Verb
from headrace.store.postgres_lane import AWAY, away

R = TypeVar("R")

CONNECTIONS: Final = 4
TIMEOUT_S: Final = 10.0
SESSION: Final = {"application_name": "headrace", "search_path": "headrace", "lock_timeout": "5s"}


class PostgresInbox:
    """The `Inbox` on PostgreSQL. A user's row is locked before its letters, users in the order of their ids."""

    def __init__(self, pool: "asyncpg.Pool[Any]", clock: Clock, settings: InboxSettings) -> None:
        self._pool, self._clock, self._settings = pool, clock, settings

    @classmethod
    async def open(cls, url: str, clock: Clock, settings: InboxSettings) -> "PostgresInbox":
        """Connect, creating or migrating the tables. Raises ConfigError or TransientError when that can't be done."""
        pool = asyncpg.create_pool(
            url,
            min_size=0,
            max_size=CONNECTIONS,
            timeout=TIMEOUT_S,
            command_timeout=TIMEOUT_S,
            server_settings=SESSION,
        )
        try:
            await pool
            async with pool.acquire(timeout=TIMEOUT_S) as db:
                await migrations.migrate_postgres(db)
        except (ValueError, asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
            pool.terminate()
            raise ConfigError("DATABASE_URL", "a database that can't be used", "one that may be used") from error
        except AWAY as error:
            pool.terminate()
            raise away(error) from error
        return cls(pool, clock, settings)

    async def begin(self, key: str, fingerprint: str) -> Known | None:
        return await self._run(verbs.begin(key, fingerprint, self._settings.keys_max, self._now_ms()))

    async def put(self, letters: Sequence[Letter], key: str | None, compose: Compose) -> tuple[list[Position], str]:
        return await self._run(verbs.put(letters, key, compose, self._settings, self._now_ms()))

    async def box(self, user_id: str) -> Box | None:
        return await self._run(verbs.box(user_id))

    async def after(self, user_id: str, offset: int, limit: int, *, unacknowledged: bool) -> Sequence[Kept]:
        return await self._run(verbs.after(user_id, offset, limit, unacknowledged=unacknowledged))

    async def acknowledge(self, user_id: str, offset: int) -> None:
        await self._run(verbs.acknowledge(user_id, offset, self._now_ms()))

    async def tidy(self) -> int:
        return await self._run(verbs.tidy(self._settings, self._now_ms()))

    async def close(self) -> None:
        self._pool.terminate()

    async def _run(self, verb: Verb[R]) -> R:
        """Carry a verb out in one transaction."""
        try:
            async with self._pool.acquire(timeout=TIMEOUT_S) as db, db.transaction():
                try:
                    statement = next(verb)
                    while True:
                        rows = await db.fetch(_dollars(statement.sql), *statement.values)
                        statement = verb.send([tuple(row) for row in rows])
                except StopIteration as end:
                    result: R = end.value
                    return result
        except AWAY as error:
            raise away(error) from error
        except asyncpg.PostgresError as error:
            raise away(error) from error

    def _now_ms(self) -> int:
        return self._clock.wall_ns() // 1_000_000


@cache
def _dollars(sql: str) -> str:
    return re.sub(r"\?(\d)", r"$\1", sql)
