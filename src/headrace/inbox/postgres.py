"""Inboxes in PostgreSQL (14 or newer), for any number of servers."""

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, ClassVar, Final, Self, TypeVar

import asyncpg

from headrace.adapters import Context, Patience
from headrace.database import migrations
from headrace.database.observed import ObservedTime
from headrace.database.postgres_group_commit import AWAY, away
from headrace.database.postgres_session import PATIENT_S
from headrace.inbox import Box, Compose, InboxSettings, Kept, Known, Letter
from headrace.inbox import verbs as verbs
from headrace.inbox.verbs import Verb
from headrace.model.errors import ConfigError, TransientError
from headrace.model.events import Position
from headrace.runtime.clock import Clock

R = TypeVar("R")

CONNECTIONS: Final = 4
TIMEOUT_S: Final = 10.0
ROOM_BYTES: Final = 262_144
SESSION: Final = {"application_name": "headrace", "search_path": "headrace", "lock_timeout": "5s"}


class PostgresInbox:
    """`Inbox` on PostgreSQL. A user's row is locked before the user's messages, and users in the order of their ids."""

    Settings: ClassVar = InboxSettings

    def __init__(self, pool: "asyncpg.Pool[Any]", clock: Clock, settings: InboxSettings) -> None:
        self._pool, self._settings, self._time = pool, settings, ObservedTime(clock)
        self.on_trouble: Callable[[TransientError], None] = lambda _: None
        self._prepared, self._preparing = False, asyncio.Lock()

    @classmethod
    async def open(cls, settings: InboxSettings, context: Context) -> Self:
        """Open the database that the settings name. Raises the same errors as `at`."""
        return await cls.at(settings.place.where, context.clock, settings, patient=context.patience)

    @classmethod
    async def at(cls, url: str, clock: Clock, settings: InboxSettings, *, patient: Patience = None) -> Self:
        """Connect, and create or migrate the tables.

        Raises ConfigError for a database that can never be used, and TransientError for one that can't be used now. If
        `patient` is given, it is called with the TransientError instead, and the first later connection prepares the
        tables.
        """
        pool = asyncpg.create_pool(
            url,
            min_size=0,
            max_size=CONNECTIONS,
            timeout=TIMEOUT_S,
            command_timeout=TIMEOUT_S,
            server_settings=SESSION,
        )
        inbox = cls(pool, clock, settings)
        try:
            await pool
            async with pool.acquire(timeout=TIMEOUT_S if patient is None else PATIENT_S) as db:
                await inbox._prepare(db)
        except (ValueError, asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
            pool.terminate()
            raise ConfigError("DATABASE_URL", "a database that can't be used", "one that may be used") from error
        except AWAY as error:
            if patient is None:
                pool.terminate()
                raise away(error) from error
            patient(away(error))
        return inbox

    async def begin(self, key: str, fingerprint: str) -> Known | None:
        return await self._run(verbs.begin(key, fingerprint, self._settings.keys_max, self._time.now_ms()))

    async def put(self, letters: Sequence[Letter], key: str | None, compose: Compose) -> tuple[list[Position], str]:
        return await self._run(verbs.put(letters, key, compose, self._settings, self._time.now_ms()))

    async def box(self, user_id: str) -> Box | None:
        return await self._run(verbs.box(user_id))

    async def after(self, user_id: str, offset: int, limit: int, *, unacknowledged: bool) -> Sequence[Kept]:
        return await self._run(verbs.after(user_id, offset, limit, unacknowledged=unacknowledged))

    async def acknowledge(self, user_id: str, offset: int) -> None:
        await self._run(verbs.acknowledge(user_id, offset, self._time.now_ms()))

    async def tidy(self) -> int:
        return await self._run(verbs.tidy(self._settings, self._time))

    async def check(self, *, thorough: bool) -> None:
        await self._run(verbs.occupy(os.urandom(ROOM_BYTES) if thorough else b""))
        if thorough:
            await self._run(verbs.occupy(b""))

    async def close(self) -> None:
        self._pool.terminate()

    async def _run(self, verb: Verb[R]) -> R:
        """Run an operation in one transaction."""
        try:
            async with self._pool.acquire(timeout=TIMEOUT_S) as db:
                await self._prepare(db)
                return await self._carry_out(db, verb)
        except (*AWAY, asyncpg.PostgresError) as error:
            failure = away(error)
            self.on_trouble(failure)
            raise failure from error

    async def _carry_out(self, db: Any, verb: Verb[R]) -> R:
        async with db.transaction():
            try:
                statement = next(verb)
                while True:
                    rows = await db.fetch(_dollars(statement.sql), *statement.values)
                    statement = verb.send([tuple(row) for row in rows])
            except StopIteration as end:
                result: R = end.value
                return result

    async def _prepare(self, db: Any) -> None:
        """Create or migrate the tables, once, and read the observed time."""
        async with self._preparing:
            if not self._prepared:
                await migrations.migrate_postgres(db)
                await self._carry_out(db, verbs.tick(self._time))
                self._prepared = True


@cache
def _dollars(sql: str) -> str:
    return re.sub(r"\?(\d)", r"$\1", sql)
