"""Checkpoints in PostgreSQL (14 or newer), where another server can take them over."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Final, Self, TypeVar

import asyncpg

from headrace.adapters import Context
from headrace.database.postgres_group_commit import AWAY, away
from headrace.database.postgres_session import PATIENT_S
from headrace.model.errors import ConfigError, TransientError
from headrace.sources.checkpoints import CheckpointSettings

R = TypeVar("R")

TIMEOUT_S: Final = 10.0
_SESSION: Final = {"application_name": "headrace", "search_path": "headrace", "lock_timeout": "5s"}
_TABLE: Final = """create table if not exists headrace.checkpoints (
  source text not null,
  feed text not null,
  slot bigint not null,
  primary key (source, feed)
)"""


class PostgresCheckpoints:
    """`Checkpoints` in PostgreSQL, over one connection."""

    Settings: ClassVar = CheckpointSettings

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self.on_trouble: Callable[[TransientError], None] = lambda _: None
        self._pool = pool
        self._prepared, self._preparing = False, asyncio.Lock()

    @classmethod
    async def open(cls, settings: CheckpointSettings, context: Context) -> Self:
        """Connect, and create the table.

        Raises ConfigError for a database that can never be used, and TransientError for one that can't be used now,
        unless `context.patience` receives the error.
        """
        pool = asyncpg.create_pool(
            settings.place.where,
            min_size=0,
            max_size=1,
            timeout=TIMEOUT_S,
            command_timeout=TIMEOUT_S,
            server_settings=_SESSION,
        )
        opened = cls(pool)
        try:
            await pool
            async with pool.acquire(timeout=TIMEOUT_S if context.patience is None else PATIENT_S) as db:
                await opened._prepare(db)
        except (ValueError, asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
            pool.terminate()
            raise ConfigError("DATABASE_URL", "a database that can't be used", "one that may be used") from error
        except AWAY as error:
            if context.patience is None:
                pool.terminate()
                raise away(error) from error
            context.patience(away(error))
        return opened

    async def load(self) -> Mapping[str, Mapping[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for row in await self._run(lambda db: db.fetch("select source, feed, slot from checkpoints")):
            found.setdefault(row["source"], {})[row["feed"]] = row["slot"]
        return found

    async def save(self, source: str, covered: Mapping[str, int]) -> None:
        rows = [(source, feed, slot) for feed, slot in covered.items()]

        async def replace(db: Any) -> None:
            await db.execute("delete from checkpoints where source = $1", source)
            await db.executemany("insert into checkpoints (source, feed, slot) values ($1, $2, $3)", rows)

        await self._run(replace)

    async def check(self, *, thorough: bool) -> None:
        await self.load()

    async def close(self) -> None:
        self._pool.terminate()

    async def _run(self, work: Callable[[Any], Awaitable[R]]) -> R:
        """Run `work` in one transaction."""
        try:
            async with self._pool.acquire(timeout=TIMEOUT_S) as db:
                await self._prepare(db)
                async with db.transaction():
                    return await work(db)
        except (*AWAY, asyncpg.PostgresError) as error:
            failure = away(error)
            self.on_trouble(failure)
            raise failure from error

    async def _prepare(self, db: Any) -> None:
        """Create the table, once, one process at a time."""
        async with self._preparing:
            if not self._prepared:
                async with db.transaction():
                    await db.execute("select pg_advisory_xact_lock(hashtext('headrace'))")
                    await db.execute("create schema if not exists headrace")
                    await db.execute(_TABLE)
                self._prepared = True
