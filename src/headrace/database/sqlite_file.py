"""The file behind a SQLite connection. Notices when the file is moved, replaced or cut short, and opens it again."""

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from headrace.model.errors import TransientError

MEMORY: Final = ":memory:"
AGAIN_S: Final = 0.25
"""Minimum pause in seconds after a failed opening. After a slow one, the pause is four times its duration."""

_SIDES: Final = ("-wal", "-shm")
_ID_MAX: Final = 2**31 - 1


class _Place(NamedTuple):
    """Device and inode of the database and of the files that SQLite keeps next to it; None for a missing file."""

    main: tuple[int, int] | None
    wal: tuple[int, int] | None
    shm: tuple[int, int] | None


class SqliteFile:
    """Gives a connection whose commits are in the file at `path`, or raises TransientError. For one thread only.

    The first opening may create the file. A later opening must find the same database (by an id inside it), undamaged,
    and must pass the caller's `accept`. `lock_s` is the maximum time in seconds that a statement waits for another
    process.
    """

    def __init__(self, path: str, *, durable: bool, lock_s: float) -> None:
        self._path = path
        self._durable, self._lock_s = durable, lock_s
        self._connection: sqlite3.Connection | None = None
        self._place = _Place(None, None, None)
        self._size = 0
        self._id: int | None = None
        self._not_before_s = 0.0
        self._last = TransientError("the database is not open")

    def connection(
        self,
        prepare: Callable[[sqlite3.Connection], None],
        accept: Callable[[sqlite3.Connection], str | None],
    ) -> sqlite3.Connection:
        """Return the connection, or a new one if the file is not the one that was opened.

        `prepare` runs on each new connection. `accept` runs on each new connection but the first, and returns why the
        database must not be used. Raises TransientError, sqlite3.Error, and the errors of `prepare`.
        """
        if self._connection is not None:
            self.check()
        if self._connection is None:
            now_s = time.monotonic()
            if now_s < self._not_before_s:
                raise self._last
            try:
                self._connection = self._open(prepare, accept)
            except Exception as error:
                if is_busy(error):
                    raise
                took_s = time.monotonic() - now_s
                self._not_before_s = time.monotonic() + max(AGAIN_S, 4 * took_s)
                self._last = TransientError(str(error))
                raise
        return self._connection

    def check(self) -> None:
        """Raise TransientError if the file at the path is not the one that was opened, or was cut short.

        The connection is kept while there is no file at the path, because the file may come back. Otherwise it is
        closed.
        """
        if self._path == MEMORY:
            return
        place, size = self._look()
        if place == self._place and size >= self._size:
            self._size = size
            return
        replaced = place.main != self._place.main
        cut = not replaced and size < self._size
        if not cut and (replaced or None in (place.wal, place.shm)):
            self._gather()
        if place.main is None:
            raise TransientError("the database's file is not where it was")
        self.close()
        if replaced or cut:
            raise TransientError("the database's file was replaced or cut short")
        raise TransientError("what SQLite keeps beside the database's file was deleted or replaced")

    def _gather(self) -> None:
        """Write all commits into the file that this connection has open, wherever that file is now.

        The write-ahead log at the path may be gone, or SQLite may read it as part of another file.
        """
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("pragma wal_checkpoint(truncate)")

    def read_afresh(self) -> None:
        """Read the file's header through a new connection. Raises sqlite3.Error.

        A connection with a cache may not notice that other processes wrote into the file. (Opening the file without
        SQLite would release this process's locks.)
        """
        if self._path != MEMORY:
            with contextlib.closing(self._connect(create=False)) as connection:
                connection.execute("select count(*) from sqlite_master").fetchone()

    def roll_back(self) -> None:
        """Roll back a transaction that failed."""
        if self._connection is not None and self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("rollback")

    def close(self) -> None:
        """Close the connection. The next use opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _open(
        self,
        prepare: Callable[[sqlite3.Connection], None],
        accept: Callable[[sqlite3.Connection], str | None],
    ) -> sqlite3.Connection:
        again = self._id is not None
        if self._path != MEMORY:
            self._path = os.path.abspath(self._path)  # noqa: PTH100  (the working directory may change later)
        if again and not Path(self._path).exists():
            raise TransientError("the database's file is not where it was")
        connection = self._connect(create=not again)
        try:
            if again:
                self._recognise(connection)
            self._set_up(connection)
            prepare(connection)
            if again:
                _judge(accept(connection))
            self._id = self._identify(connection)
            if self._path != MEMORY:
                self._place, self._size = self._look()
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
            raise
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        """Turn the write-ahead log on. Raises TransientError if another process prevents that."""
        mode = connection.execute("pragma journal_mode = wal").fetchone()[0]
        if mode != ("memory" if self._path == MEMORY else "wal"):
            raise TransientError(f"the database can't be used: its journal is {mode}, where wal is expected")
        connection.execute(f"pragma synchronous = {'full' if self._durable else 'off'}")

    def _connect(self, *, create: bool) -> sqlite3.Connection:
        if self._path == MEMORY:
            return sqlite3.connect(MEMORY, timeout=self._lock_s, isolation_level=None)
        uri = f"file://{quote(self._path)}?mode={'rwc' if create else 'rw'}"
        return sqlite3.connect(uri, timeout=self._lock_s, isolation_level=None, uri=True)

    def _recognise(self, connection: sqlite3.Connection) -> None:
        """Raise TransientError for a database that is damaged, or not the one that was open before."""
        if connection.execute("pragma application_id").fetchone()[0] != self._id:
            raise TransientError("the database's file was replaced by another")
        found = connection.execute("pragma quick_check(1)").fetchone()[0]
        if found != "ok":
            raise TransientError("the database's file is damaged")

    def _identify(self, connection: sqlite3.Connection) -> int:
        """Return the number that identifies the database. The first opening draws it at random."""
        connection.execute("begin immediate")
        found = int(connection.execute("pragma application_id").fetchone()[0])
        if not found:
            found = 1 + secrets.randbelow(_ID_MAX)
            connection.execute(f"pragma application_id = {found}")
        connection.execute("commit")
        return found

    def _look(self) -> tuple[_Place, int]:
        main, *sides = (_stat(self._path + end) for end in ("", *_SIDES))
        place = _Place(*((found.st_dev, found.st_ino) if found is not None else None for found in (main, *sides)))
        return place, 0 if main is None else main.st_size


def is_busy(error: Exception) -> bool:
    """Return whether another process has the lock that a statement needs."""
    return code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def code_of(error: Exception) -> int:
    """Return the primary result code of SQLite; 0 if the error has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _judge(fault: str | None) -> None:
    if fault is not None:
        raise TransientError(f"the database's file was replaced by another: {fault}")


def _stat(path: str) -> os.stat_result | None:
    """Return the status of a file. None for a file that does not exist, or whose folder is not readable."""
    try:
        return os.stat(path)  # noqa: PTH116  (runs with each commit, and takes half as long as Path.stat)
    except OSError:
        return None
