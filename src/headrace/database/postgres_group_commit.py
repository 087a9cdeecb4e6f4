"""One PostgreSQL connection that commits in groups: jobs that arrive during a commit form the next transaction."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar

import asyncpg

from headrace.model.errors import HeadraceError, InvariantError, TransientError

Db: TypeAlias = "asyncpg.Connection[Any]"
J = TypeVar("J")

BATCH_MAX: Final = 512
TRIES: Final = 5

# Another transaction committed first. If this transaction is repeated, it sees the other's effects.
_RACES: Final = (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
AWAY: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidTransactionStateError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.PostgresSystemError,
)
"""Errors after which it is unknown whether a transaction was committed, and the database can't be used for now."""


def away(error: Exception) -> TransientError:
    """Return the error for callers. It omits the driver's text, which may name hosts and users."""
    return TransientError(f"the database can't be used: {type(error).__name__}")


class Lane(Generic[J]):
    """Jobs that run in the order in which they were given. `transact` runs all waiting jobs in one transaction.

    Callers get their results when `transact` has returned. `after` runs next, before the following transaction.
    `on_trouble` is called with the error if the database can't be used.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Db]],
        transact: Callable[[Db, Sequence[J]], Awaitable[Sequence[Any]]],
        after: Callable[[Db], Awaitable[None]],
        on_trouble: Callable[[TransientError], None] = lambda _: None,
    ) -> None:
        self._connect, self._transact, self._after, self._on_trouble = connect, transact, after, on_trouble
        self._waiting: list[tuple[J, asyncio.Future[Any] | None]] = []
        self._wake = asyncio.Event()
        self._closed = False
        self._db: Db | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the server's side of the connection; None while there is no connection."""
        return None if self._db is None or self._db.is_closed() else self._db.get_server_pid()

    def ask(self, job: J) -> asyncio.Future[Any]:
        """Queue a job and return the future of its result. Raises TransientError if closed."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._put(job, future)
        return future

    def send(self, job: J) -> None:
        """Queue a job whose result no caller waits for. Its errors are dropped."""
        self._put(job, None)

    def close(self) -> None:
        """Make `run` finish the queued jobs and return."""
        self._closed = True
        self._wake.set()

    async def run(self) -> None:
        """Run jobs until closed."""
        try:
            while self._waiting or not self._closed:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
                    await self._commit(batch)
        finally:
            self._hang_up()
            self._wake.set()  # if this `run` failed, the next one must look at the queue

    def _put(self, job: J, future: asyncio.Future[Any] | None) -> None:
        if self._closed:
            raise TransientError("the database is closed")
        self._waiting.append((job, future))
        self._wake.set()

    async def _commit(self, batch: Sequence[tuple[J, asyncio.Future[Any] | None]]) -> None:
        try:
            db = await self._connection()
            self._answer(batch, await self._run_transaction(db, [job for job, _ in batch]))
            await self._after(db)
        except (TransientError, *AWAY) as error:
            failure = error if isinstance(error, TransientError) else away(error)
            self._answer(batch, [failure] * len(batch))
            self._hang_up()
            self._on_trouble(failure)
        finally:  # after a defect or a cancellation; futures that have a result keep it
            self._answer(batch, [TransientError("the database did not answer")] * len(batch))

    def _hang_up(self) -> None:
        if self._db is not None:
            self._db.terminate()
            self._db = None

    async def _connection(self) -> Db:
        if self._db is None or self._db.is_closed():
            self._db = await self._connect()
        return self._db

    async def _run_transaction(self, db: Db, jobs: Sequence[J]) -> Sequence[Any]:
        """Run the jobs in a transaction.

        If the database refuses one job, only that job fails, and the other jobs run without it.
        """
        for last in (*[False] * (TRIES - 1), True):
            try:
                return await self._transact(db, jobs)
            except _RACES as error:
                failure: Exception = error
                if not last:
                    continue
            except (ValueError, TypeError, OverflowError, LookupError, InvariantError) as error:
                failure = error
            except AWAY:
                raise
            except asyncpg.PostgresError as error:
                failure = error
            break
        if len(jobs) == 1:
            return [InvariantError(f"{type(failure).__name__}: {failure}")]
        return [result for job in jobs for result in await self._run_transaction(db, [job])]

    def _answer(self, batch: Sequence[tuple[J, asyncio.Future[Any] | None]], results: Sequence[Any]) -> None:
        for (_, future), result in zip(batch, results, strict=True):
            if future is None or future.done():  # no caller waits, or the caller was cancelled
                continue
            if isinstance(result, HeadraceError):
                future.set_exception(result)
            else:
                future.set_result(result)
