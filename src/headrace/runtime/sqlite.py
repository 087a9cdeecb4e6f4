"""One thread that owns one SQLite connection and commits in groups: what queued during a commit is the next one."""

import asyncio
import contextlib
import queue
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from headrace.model.errors import HeadraceError, InvariantError, TransientError

E = TypeVar("E")
T = TypeVar("T")

BATCH_MAX: Final = 512
BUSY_S: Final = 5.0
SWITCH_S: Final = 0.0002

_DEFECTS: Final = (sqlite3.Error, ValueError, TypeError, LookupError, ArithmeticError)
"""How a defect in a job shows itself (an integer beyond 64 bits: OverflowError): that job fails, not the thread."""

Tail = Callable[[sqlite3.Connection, int], tuple[list[E], int]]
"""What is new in the database beyond a mark, and the new mark; runs inside the transaction, just before its commit."""


class _Piece(NamedTuple):
    """A job of the queue; `future` None: nobody waits for it."""

    work: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any] | None
    writes: bool


class SqliteThread(Generic[E]):
    """Runs jobs on the connection, in the order in which they were given.

    A job is plain code that gets the connection; all jobs that wait form one transaction. One that raises a
    HeadraceError before it wrote anything fails alone; if it had written, the transaction starts over without it, so a
    job must not keep state of its own. Results, errors of jobs and `on_news` (what `tail` found) reach the event loop
    only after the commit, the news first. When the database can't be used (locked too long, disk full), every job of
    the transaction gets TransientError.
    """

    def __init__(
        self,
        path: str,
        *,
        tail: Tail[E] | None = None,
        on_news: Callable[[Sequence[E]], None] = lambda _: None,
        durable: bool = True,
    ) -> None:
        self._path, self._tail, self._on_news, self._durable = path, tail, on_news, durable
        self._mark = 0
        self._jobs: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        # Each statement lets go of the interpreter lock; with the default of 5 ms a busy loop makes it wait that long
        # to have it back, every time.
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_S))
        self._thread = threading.Thread(target=self._run, name=f"sqlite:{path}", daemon=True)
        self._thread.start()

    def ask(self, work: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> asyncio.Future[T]:
        """The future of the job's result. Raises TransientError when closed."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._put(_Piece(work, future, writes))
        return future

    def tell(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Run the job, with nobody waiting for it; what it raises is dropped."""
        self._put(_Piece(work, None, writes=True))

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

    def _run(self) -> None:
        try:
            connection = self._connect()
        except sqlite3.Error as error:
            self._refuse(TransientError(f"the database can't be opened: {error}"))
            return
        try:
            while pieces := self._next():
                self._transact(connection, pieces)
        finally:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        """Raises sqlite3.Error for a file that can't be opened, or is no database."""
        connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
        try:
            with contextlib.suppress(sqlite3.OperationalError):  # another process is setting it right now
                connection.execute("pragma journal_mode = wal")
            connection.execute(f"pragma synchronous = {'full' if self._durable else 'off'}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _refuse(self, failure: TransientError) -> None:
        """Answer every job with the failure, until closed."""
        while pieces := self._next():
            answers: list[tuple[asyncio.Future[Any], object]] = [
                (piece.future, failure) for piece in pieces if piece.future is not None
            ]
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody is left to tell
                self._loop.call_soon_threadsafe(self._answer, answers, [])

    def _next(self) -> list[_Piece]:
        """Everything that waits; empty when it is time to end."""
        pieces: list[_Piece] = []
        piece = self._jobs.get()
        while piece is not None:
            pieces.append(piece)
            if len(pieces) == BATCH_MAX:
                break
            try:
                piece = self._jobs.get_nowait()
            except queue.Empty:
                break
        if piece is None and pieces:
            self._jobs.put(None)
        return pieces

    def _transact(self, connection: sqlite3.Connection, pieces: list[_Piece]) -> None:
        begin = "begin immediate" if any(piece.writes for piece in pieces) else "begin"
        results: dict[int, object] = {}
        news: list[E] = []
        mark = self._mark
        try:
            connection.execute(begin)
            while (spoilt := self._work(connection, pieces, results)) is not None:
                assert spoilt in results
                connection.execute("rollback")
                connection.execute(begin)
            if self._tail is not None:
                news, mark = self._tail(connection, mark)
            connection.execute("commit")
        except sqlite3.Error as error:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("rollback")
            news, mark = [], self._mark
            failure = TransientError(f"the database can't be used: {error}")
            results = dict.fromkeys(range(len(pieces)), failure)
        self._mark = mark
        answers = [(piece.future, results[number]) for number, piece in enumerate(pieces) if piece.future is not None]
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody is left to tell
            self._loop.call_soon_threadsafe(self._answer, answers, news)

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
            except sqlite3.OperationalError:
                raise
            except _DEFECTS as error:
                failure = InvariantError(f"{type(error).__name__}: {error}")
            if connection.total_changes != before:
                results[number] = _Spoilt(failure)
                return number
            results[number] = failure
        return None

    def _answer(self, answers: list[tuple[asyncio.Future[Any], object]], news: list[E]) -> None:
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
