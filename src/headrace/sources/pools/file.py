"""The file that keeps the mints of pools across restarts: SQLite, bounded, replaced if it can't be read."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import structlog

VERSION: Final = 1
ROWS_MAX: Final = 100_000
LOCK_S: Final = 1.0

_log = structlog.get_logger("pools")


class Known(NamedTuple):
    """A pool of a program and its first and second mint, which never change."""

    pool: str
    program_id: str
    first: str
    second: str


class PoolFile:
    """Blocks; call it in a thread. A file that is damaged or of another version is moved aside and replaced."""

    def __init__(self, path: str, rows_max: int = ROWS_MAX) -> None:
        self._path, self._rows_max = path, rows_max

    def load(self) -> list[Known]:
        """Return all kept pools, oldest first; none if there is no file yet.

        Raises sqlite3.Error or OSError if the file can't be used.
        """
        if not Path(self._path).exists():
            return []
        try:
            with self._open() as connection:
                (check,) = connection.execute("pragma quick_check(1)").fetchone()
                rows = connection.execute("select pool, program_id, first, second from pools order by rowid").fetchall()
            if check == "ok" and all(isinstance(text, str) for row in rows for text in row):
                return [Known(*row) for row in rows]
            reason = str(check)
        except sqlite3.OperationalError:
            raise  # locked, or a fault of the disk: the file itself may be intact
        except sqlite3.DatabaseError as error:
            reason = str(error)
        aside = f"{self._path}.damaged"
        Path(self._path).replace(aside)
        _log.error("pools_file_damaged", file=self._path, moved_to=aside, reason=reason, effect="begun anew")
        return []

    def keep(self, pools: Iterable[Known]) -> None:
        """Add pools, all or none. Beyond the bound the oldest are dropped. Raises sqlite3.Error or OSError."""
        with self._open() as connection:
            connection.executemany("insert or ignore into pools values (?, ?, ?, ?)", pools)
            connection.execute(
                "delete from pools where rowid <= (select max(rowid) from pools) - ?",
                (self._rows_max,),
            )

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection within one transaction."""
        connection = sqlite3.connect(self._path, timeout=LOCK_S, isolation_level=None)
        try:
            connection.execute("begin immediate")
            (version,) = connection.execute("pragma user_version").fetchone()
            if version not in (0, VERSION):
                raise sqlite3.DatabaseError(f"version is {version}, expected {VERSION}")
            connection.execute(
                "create table if not exists pools"
                " (pool text primary key, program_id text not null, first text not null, second text not null)"
            )
            connection.execute(f"pragma user_version = {VERSION}")
            yield connection
            connection.execute("commit")
        finally:
            connection.close()
