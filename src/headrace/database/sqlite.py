"""One thread that owns one SQLite connection and commits in groups: jobs that queue during a commit are the next."""

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
"""How long one statement waits for a lock of another process, before reads that queue meanwhile get their turn."""
READ_S: Final = 1.0
WRITE_S: Final = 5.0
"""How long a job waits in all for a lock of another process, from when it was given."""
SWITCH_S: Final = 0.0002

_DEFECTS: Final = (sqlite3.Error, ValueError, TypeError, LookupError, ArithmeticError)
"""How a defect in a job shows itself (an integer beyond 64 bits: OverflowError): that job fails, not the thread."""
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
"""After these the connection may be of no more use, although the file is right again: the next job opens another."""
_ROOM: Final = 262_144
"""Bytes that a database which failed must be able to take before it counts as usable again."""

Tail = Callable[[sqlite3.Connection, int], tuple[list[E], int]]
"""What is new in the database beyond a mark, and the new mark; runs inside the transaction, just before its commit."""

Setup = Callable[[sqlite3.Connection], object]
"""Brings the tables of a database that was just opened up to date; runs in a transaction of its own."""


class _Piece(NamedTuple):
    """A job of the queue; `future` None: nobody waits for it. `since_s` is when it was given."""

    work: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any] | None
    writes: bool
    since_s: float


class SqliteThread(Generic[E]):
    """Runs jobs on the connection, in the order in which they were given.

    A job is plain code that gets the connection; all jobs that wait form one transaction. One that raises a
    HeadraceError before it wrote anything fails alone; if it had written, the transaction starts over without it, so a
    job must not keep state of its own. Results, errors of jobs and `on_news` (what `tail` found) reach the event loop
    only after the commit, the news first. While another process holds the lock, jobs that only read overtake those that
    write.

    When the database can't be used (locked too long, disk full, damaged, its file moved away, replaced or cut short),
    every job of the transaction gets TransientError, and `on_trouble` hears of it. Each later job tries again: the
    database is opened anew where need be, and `setup` runs each time. A file that this thread once had open is never
    created again: what was acknowledged is in the old one. Errors of `setup` go to the jobs as they are.
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
        # Each statement lets go of the interpreter lock; with the default of 5 ms a busy loop makes it wait that long
        # to have it back, every time.
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_S))
        self._thread = threading.Thread(target=self._run, name=f"sqlite:{path}", daemon=True)
        self._thread.start()

    def ask(self, work: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> asyncio.Future[T]:
        """Queue a job; return the future of the result. Raise TransientError when closed."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._put(_Piece(work, future, writes, time.monotonic()))
        return future

    def send(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Queue a job whose result no caller waits for; its errors are dropped."""
        self._put(_Piece(work, None, True, time.monotonic()))

    async def check(self, *, thorough: bool) -> None:
        """Read the file's head and commit a row. Raise as jobs do when the database can't be used.

        `thorough`: a row so large that the file must have room to grow.
        """
        await self.ask(self._look, writes=False)
        await self.ask(partial(_occupy, _ROOM if thorough else 0))
        if thorough:
            await self.ask(partial(_occupy, 0))

    async def close(self) -> None:
        """Finish what waits, then end the thread. Idempotent."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _put(self, piece: _Piece) -> None:
        if self._closed:
            raise TransientError("the database is closed")
        self._jobs.put(piece)

    # The rest runs in the thread.

    def _run(self) -> None:
        waiting: list[_Piece] = []
        try:
            while waiting := self._more(waiting):
                waiting = self._serve(waiting)
        finally:
            self._file.close()

    def _more(self, waiting: list[_Piece]) -> list[_Piece]:
        """Return the jobs that wait, up to a batch; an empty list when it is time to end."""
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
        """Do all, in one transaction; those that must wait on for another process's lock."""
        if not (left := self._transact(pieces)):
            return []
        reads = self._transact([piece for piece in left if not piece.writes])
        return [*reads, *(piece for piece in left if piece.writes)]

    def _transact(self, pieces: list[_Piece]) -> list[_Piece]:
        """Do these in one transaction and answer; or, where another process has the lock, those that may wait on."""
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
            self._file.check()  # what was committed to a file that is not there any more is not acknowledged
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
        """Set up what was opened."""
        connection.execute("begin immediate")
        self._setup(connection)
        connection.execute("create table if not exists room (id integer primary key, data blob not null)")
        connection.execute("commit")

    def _accept(self, connection: sqlite3.Connection) -> str | None:
        """Return why a database that was opened anew must not be used; None if it has all that was acknowledged."""
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
        """Run the jobs; the number of one that wrote and then failed, so that all must start over without it."""
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
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody is left to tell
            self._loop.call_soon_threadsafe(self._answer, answers, news, failure)

    def _answer(
        self, answers: list[tuple[asyncio.Future[Any], object]], news: list[E], failure: HeadraceError | None
    ) -> None:
        if isinstance(failure, TransientError):
            self._on_trouble(failure)
        if news:
            self._on_news(news)
        for future, result in answers:
            if future.done():  # whoever asked was cancelled
                continue
            if isinstance(result, _Spoilt):
                future.set_exception(result.failure)
            elif isinstance(result, HeadraceError):
                future.set_exception(result)
            else:
                future.set_result(result)


class _Spoilt(NamedTuple):
    """The job failed after it wrote; the transaction was done again without it."""

    failure: HeadraceError


def _occupy(size: int, connection: sqlite3.Connection) -> None:
    connection.execute("insert or replace into room (id, data) values (1, zeroblob(?))", (size,))


def _failure(error: Exception) -> HeadraceError:
    return error if isinstance(error, HeadraceError) else TransientError(f"the database can't be used: {error}")
