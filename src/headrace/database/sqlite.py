"""A thread that owns one SQLite connection and commits in groups: jobs that arrive during a commit form the next."""

import asyncio
import contextlib
import queue
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

from headrace.database.sqlite_file import SqliteFile, code_of, is_busy
from headrace.model.errors import HeadraceError, InvariantError, TransientError

E = TypeVar("E")
T = TypeVar("T")

BATCH_MAX: Final = 512
LOCK_S: Final = 0.2
"""Maximum seconds that one statement waits for a lock of another process. Queued reads can run after it."""
READ_S: Final = 1.0
WRITE_S: Final = 5.0
"""Maximum seconds that a job waits for a lock of another process, counted from the time when the job was queued."""
SWITCH_S: Final = 0.0002

_DEFECTS: Final = (sqlite3.Error, ValueError, TypeError, LookupError, ArithmeticError)
"""Exceptions that a defect in a job raises (for example OverflowError for an integer beyond 64 bits).

Only that job fails.
"""
_BROKEN: Final = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PROTOCOL,
    }
)
"""Errors after which the connection may stay unusable even if the file is usable again.

The next job opens a new one.
"""
_ROOM: Final = 262_144
"""Number of bytes that a database must be able to store after a failure before it is reported as usable again."""

Tail = Callable[[sqlite3.Connection, int], tuple[list[E], int]]
"""Returns the new rows beyond a mark, and the new mark. Called inside the transaction, just before its commit."""

Setup = Callable[[sqlite3.Connection], object]
"""Brings the tables of a newly opened database up to date, in a transaction of its own."""


class _Piece(NamedTuple):
    """A job in the queue. `future` is None if no caller waits for it. `since_s` is the time at which it was queued."""

    work: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any] | None
    writes: bool
    since_s: float


class SqliteThread(Generic[E]):
    """Runs jobs on the connection, in the order in which they were given.

    A job is a plain function of the connection; all waiting jobs run in one transaction. A job that raises a
    HeadraceError before it wrote anything fails alone. If it had written, the transaction is repeated without it, so a
    job must not keep state of its own.
    After the commit the event loop calls `on_news` (with the rows from `tail`), and then delivers the results and the
    errors of jobs. While another process has the lock, jobs that only read overtake jobs that write.
    If the database can't be used (locked too long, disk full, damaged, its file moved away, replaced or cut short),
    every job of the transaction gets TransientError, and `on_trouble` is called with it. Each later job tries again. It
    opens the database again if needed, and `setup` then runs again. A file that this thread once had open is never
    created again, because all acknowledged rows are in the old file. Errors of `setup` are passed to the jobs
    unchanged.
    """

    def __init__(
        self,
        path: str,
        *,
        setup: Setup = lambda _: None,
        tail: Tail[E] | None = None,
        on_news: Callable[[Sequence[E]], None] = lambda _: None,
        on_trouble: Callable[[TransientError], None] = lambda _: None,
        durable: bool = True,
    ) -> None:
        self._file = SqliteFile(path, durable=durable, lock_s=LOCK_S)
        self._setup, self._tail, self._on_news, self._on_trouble = setup, tail, on_news, on_trouble
        self._mark = 0
        self._jobs: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._closed = self._ending = False
        # Each statement releases the interpreter lock. With the default interval of 5 ms, the thread would wait that
        # long to get the lock back from a busy event loop, after every statement.
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_S))
        self._thread = threading.Thread(target=self._run, name=f"sqlite:{path}", daemon=True)
        self._thread.start()

    def ask(self, work: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> asyncio.Future[T]:
        """Queue a job and return the future of its result. Raises TransientError if closed."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._put(_Piece(work, future, writes, time.monotonic()))
        return future

    def send(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Queue a job whose result no caller waits for. Its errors are dropped."""
        self._put(_Piece(work, None, True, time.monotonic()))

    async def check(self, *, thorough: bool) -> None:
        """Check that the database is usable by reading its header and committing a row.

        Raises the same errors as a job. If `thorough`, write a row so large that the file must grow.
        """
        await self.ask(self._look, writes=False)
        await self.ask(partial(_occupy, _ROOM if thorough else 0))
        if thorough:
            await self.ask(partial(_occupy, 0))

    async def close(self) -> None:
        """Finish the queued jobs, then end the thread. Idempotent."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _put(self, piece: _Piece) -> None:
        if self._closed:
            raise TransientError("the database is closed")
        self._jobs.put(piece)

    # All methods below, except `_answer`, run in the thread.

    def _run(self) -> None:
        waiting: list[_Piece] = []
        try:
            while waiting := self._more(waiting):
                waiting = self._serve(waiting)
        finally:
            self._file.close()

    def _more(self, waiting: list[_Piece]) -> list[_Piece]:
        """Return the waiting jobs, up to a batch; an empty list when the thread must end."""
        while len(waiting) < BATCH_MAX and not self._ending:
            try:
                piece = self._jobs.get(block=not waiting)
            except queue.Empty:
                break
            if piece is None:
                self._ending = True
            else:
                waiting.append(piece)
        return waiting

    def _serve(self, pieces: list[_Piece]) -> list[_Piece]:
        """Run all jobs in one transaction. Return the jobs that still wait for another process's lock."""
        if not (left := self._transact(pieces)):
            return []
        reads = self._transact([piece for piece in left if not piece.writes])
        return [*reads, *(piece for piece in left if piece.writes)]

    def _transact(self, pieces: list[_Piece]) -> list[_Piece]:
        """Run jobs in one transaction and send their results.

        Return the jobs that may wait for another process's lock.
        """
        if not pieces:
            return []
        results: dict[int, object] = {}
        news: list[E] = []
        mark = self._mark
        try:
            connection = self._file.connection(self._prepare, self._accept)
            connection.execute("begin immediate" if any(piece.writes for piece in pieces) else "begin")
            while (spoilt := self._work(connection, pieces, results)) is not None:
                assert spoilt in results
                connection.execute("rollback")
                connection.execute("begin immediate")
            if self._tail is not None:
                news, mark = self._tail(connection, mark)
            connection.execute("commit")
            self._file.check()  # a commit to a file that is gone must not be acknowledged
        except (sqlite3.Error, HeadraceError) as error:
            self._file.roll_back()
            if is_busy(error):
                return self._wait_on(pieces)
            if code_of(error) in _BROKEN:
                self._file.close()
            self._fail(pieces, _failure(error))
            return []
        self._mark = mark
        answers = [(piece.future, results[number]) for number, piece in enumerate(pieces) if piece.future is not None]
        self._send(answers, news)
        return []

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Prepare the tables of a newly opened database."""
        connection.execute("begin immediate")
        self._setup(connection)
        connection.execute("create table if not exists room (id integer primary key, data blob not null)")
        connection.execute("commit")

    def _accept(self, connection: sqlite3.Connection) -> str | None:
        """Return why a database that was opened again must not be used; None if it has every acknowledged row."""
        if self._tail is None or self._mark <= 0:
            return None
        _, top = self._tail(connection, 0)
        return None if top >= self._mark else "it lacks what was acknowledged before"

    def _look(self, _: sqlite3.Connection) -> None:
        self._file.read_afresh()

    def _wait_on(self, pieces: list[_Piece]) -> list[_Piece]:
        now_s = time.monotonic()
        late = [piece for piece in pieces if now_s - piece.since_s >= (WRITE_S if piece.writes else READ_S)]
        if late:
            self._fail(late, TransientError("the database can't be used: another process has locked it"))
        return [piece for piece in pieces if piece not in late]

    def _fail(self, pieces: list[_Piece], failure: HeadraceError) -> None:
        answers: list[tuple[asyncio.Future[Any], object]] = [
            (piece.future, failure) for piece in pieces if piece.future is not None
        ]
        self._send(answers, [], failure)

    def _work(self, connection: sqlite3.Connection, pieces: list[_Piece], results: dict[int, object]) -> int | None:
        """Run the jobs.

        Return the number of a job that wrote and then failed, because all jobs must then be repeated without it.
        """
        spoilt = {number for number, result in results.items() if isinstance(result, _Spoilt)}
        for number, piece in enumerate(pieces):
            if number in spoilt:
                continue
            before = connection.total_changes
            try:
                results[number] = piece.work(connection)
                continue
            except HeadraceError as error:
                failure: HeadraceError = error
            except sqlite3.Error as error:
                if isinstance(error, sqlite3.OperationalError) or code_of(error) in _BROKEN:
                    raise
                failure = InvariantError(f"{type(error).__name__}: {error}")
            except _DEFECTS as error:
                failure = InvariantError(f"{type(error).__name__}: {error}")
            if connection.total_changes != before:
                results[number] = _Spoilt(failure)
                return number
            results[number] = failure
        return None

    def _send(
        self, answers: list[tuple[asyncio.Future[Any], object]], news: list[E], failure: HeadraceError | None = None
    ) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has ended, and its callers with it
            self._loop.call_soon_threadsafe(self._answer, answers, news, failure)

    def _answer(
        self, answers: list[tuple[asyncio.Future[Any], object]], news: list[E], failure: HeadraceError | None
    ) -> None:
        if isinstance(failure, TransientError):
            self._on_trouble(failure)
        if news:
            self._on_news(news)
        for future, result in answers:
            if future.done():  # the caller was cancelled
                continue
            if isinstance(result, _Spoilt):
                future.set_exception(result.failure)
            elif isinstance(result, HeadraceError):
                future.set_exception(result)
            else:
                future.set_result(result)


class _Spoilt(NamedTuple):
    """The job failed after it wrote. The transaction was repeated without it."""

    failure: HeadraceError


def _occupy(size: int, connection: sqlite3.Connection) -> None:
    connection.execute("insert or replace into room (id, data) values (1, zeroblob(?))", (size,))


def _failure(error: Exception) -> HeadraceError:
    return error if isinstance(error, HeadraceError) else TransientError(f"the database can't be used: {error}")
