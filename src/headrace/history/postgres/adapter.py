"""The history on PostgreSQL: one connection that writes, and a pool of connections that read."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Final, Self, TypeVar

import asyncpg

from headrace.adapters import Context
from headrace.database import migrations
from headrace.database.postgres_group_commit import AWAY, Db, away
from headrace.database.postgres_session import SESSION, TIMEOUT_S, connect, reconnect
from headrace.history import HistorySettings, Kept, Written
from headrace.history.postgres.reading import Reading
from headrace.history.postgres.writing import Writing
from headrace.history.queries import Queries
from headrace.model.errors import ConfigError, InvariantError, TransientError
from headrace.runtime.clock import Clock

T = TypeVar("T")

_WRITER: Final = 0x6865_6869
_CLAIM: Final = f"select pg_try_advisory_lock({_WRITER})"
_REFUSES: Final = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
"""Errors by which a server refuses a connection that it may accept later, once a person has changed its settings."""
_DEFECTS: Final = (ArithmeticError, ValueError, TypeError, LookupError, asyncpg.PostgresError)
"""Errors that show that a fact can't be stored, although the database is usable."""


class PostgresHistory(Queries):
    """`History` on a database, which several processes may read.

    The first write makes a process the writer. It holds an advisory lock until it is closed, its connection is lost, or
    it has written nothing for `pool_idle_s`, so that the server that takes over can write. A call after a failed call
    connects again.
    """

    Settings: ClassVar = HistorySettings

    def __init__(self, settings: HistorySettings, clock: Clock) -> None:
        self.on_trouble: Callable[[TransientError], None] = lambda _: None
        self._settings, self._url, self._clock = settings, settings.place.where, clock
        self._written_at = 0.0
        self._writing: Writing | None = None
        self._db: Db | None = None
        self._turn = asyncio.Lock()
        self._pool: asyncpg.Pool[Any] | None = None
        self._prepared, self._preparing = False, asyncio.Lock()
        self._closed = False

    @classmethod
    async def open(cls, settings: HistorySettings, context: Context) -> Self:
        """Connect, and create or migrate the tables.

        Raises ConfigError for a database that can never be used. Raises TransientError if the database can't be used
        now. With `context.patience`, the error is passed to `patience` instead, and the history is returned.
        """
        history = cls(settings, context.clock)
        history._pool = asyncpg.create_pool(
            history._url,
            min_size=0,
            max_size=settings.pool_max,
            max_inactive_connection_lifetime=settings.pool_idle_s,
            timeout=settings.connect_s,
            command_timeout=TIMEOUT_S,
            server_settings=SESSION,
            reset=_keep,
        )
        try:
            await history._pool
            await history._begin()
        except TransientError as error:
            if context.patience is None:
                await history.close()
                raise
            context.patience(error)
        except ValueError as error:
            raise ConfigError("DATABASE_URL", "a URL that can't be read", "postgresql://user@host/name") from error
        except BaseException:
            await history.close()
            raise
        return history

    async def write(self, facts: Sequence[Kept]) -> Written:
        return await self._write(lambda tables: tables.write(facts))

    async def clear(self) -> None:
        await self._write(Writing.clear)

    async def check(self, *, thorough: bool) -> None:
        if self._writing is not None and self._clock.monotonic() - self._written_at < self._settings.pool_idle_s:
            await self._write(Writing.check, touches=False)
            return
        async with self._turn:
            await self._release()
        await self._read(Reading.check)

    async def close(self) -> None:
        self._closed = True
        await self._release()
        if self._pool is not None:
            self._pool.terminate()

    async def _release(self) -> None:
        """Let another process be the writer. When this returns, the server has released the lock, if it answers."""
        db, self._db, self._writing = self._db, None, None
        if db is not None:
            try:
                await db.close(timeout=self._settings.connect_s)
            except (TimeoutError, *AWAY):
                db.terminate()

    async def _write(self, work: Callable[[Writing], Awaitable[T]], *, touches: bool = True) -> T:
        async with self._turn:
            if touches:
                self._written_at = self._clock.monotonic()
            try:
                self._check_open()
                if self._writing is None or self._db is None or self._db.is_closed():
                    await self._connect()
                assert self._writing is not None
                result = await work(self._writing)
            except TransientError as error:
                raise self._fail(error) from error
            except AWAY as error:
                raise self._fail(away(error)) from error
            except _DEFECTS as error:
                self._hang_up()
                raise InvariantError(f"{type(error).__name__}: {error}") from error
            except BaseException:
                self._hang_up()
                raise
            await self._keep_within_bounds()
            return result

    async def _keep_within_bounds(self) -> None:
        """Begin and drop segments. If that fails, the next write connects anew and tries again."""
        if self._writing is None or self._db is None:
            return
        try:
            await self._writing.keep_within_bounds()
        except (*AWAY, asyncpg.PostgresError):
            self._hang_up()

    async def _begin(self) -> None:
        """Create or migrate the tables. Raises ConfigError or TransientError."""
        db = await connect(self._url, self._settings.connect_s)
        try:
            await self._prepare(db)
        except AWAY as error:
            raise away(error) from error
        finally:
            db.terminate()

    async def _connect(self) -> None:
        """Become the writer. Raises TransientError if another process is."""
        self._hang_up()
        db = await reconnect(self._url, self._settings.connect_s)
        try:
            await self._prepare(db)
            await _claim(db)
            settings = self._settings
            self._writing = await Writing.open(db, bytes_max=settings.bytes_max, age_s=settings.age_s)
        except AWAY as error:
            db.terminate()
            raise away(error) from error
        except BaseException:
            db.terminate()
            raise
        self._db = db

    async def _read(self, work: Callable[[Reading], Awaitable[T]]) -> T:
        try:
            self._check_open()
            assert self._pool is not None
            async with self._pool.acquire(timeout=self._settings.connect_s) as db:
                await self._prepare(db)
                return await work(Reading(db))
        except TransientError as error:
            raise self._fail(error, writing=False) from error
        except (*AWAY, *_REFUSES) as error:
            raise self._fail(away(error), writing=False) from error
        except asyncpg.PostgresError as error:
            raise InvariantError(f"{type(error).__name__}: {error}") from error

    async def _prepare(self, db: Any) -> None:
        """Create or migrate the tables, once."""
        async with self._preparing:
            if not self._prepared:
                await migrations.migrate_postgres(db)
                self._prepared = True

    def _check_open(self) -> None:
        if self._closed:
            raise TransientError("the history is closed")

    def _fail(self, error: TransientError, *, writing: bool = True) -> TransientError:
        if writing:
            self._hang_up()
        if not self._closed:
            self.on_trouble(error)
        return error

    def _hang_up(self) -> None:
        self._writing = None
        if self._db is not None:
            self._db.terminate()
            self._db = None


async def _claim(db: Db) -> None:
    """Become the one writer, for as long as the connection lasts."""
    if not await db.fetchval(_CLAIM):
        raise TransientError("another process has the history")


async def _keep(_: Db) -> None:
    """Leave a connection of the pool as it is, as no query changes its session."""
