"""Checkpoints in one SQLite file, which may be the file of the inboxes."""

import sqlite3
from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, Final, Self

from headrace.adapters import Context
from headrace.database.sqlite import SqliteThread
from headrace.model.errors import TransientError
from headrace.sources.checkpoints import CheckpointSettings

_TABLE: Final = """create table if not exists checkpoints (
  source text not null,
  feed text not null,
  slot integer not null,
  primary key (source, feed)
) strict, without rowid"""


class SqliteCheckpoints:
    """`Checkpoints` in a SQLite file; `:memory:` keeps them until the process ends."""

    Settings: ClassVar = CheckpointSettings

    def __init__(self, path: str) -> None:
        self.on_trouble: Callable[[TransientError], None] = lambda _: None
        self._thread: SqliteThread[None] = SqliteThread(
            path, setup=lambda db: db.execute(_TABLE), on_trouble=lambda error: self.on_trouble(error)
        )

    @classmethod
    async def open(cls, settings: CheckpointSettings, context: Context) -> Self:
        """Open the file, and create the table.

        Raises TransientError for a file that can't be used now, unless `context.patience` receives the error.
        """
        opened = cls(settings.place.where)
        try:
            await opened.load()
        except TransientError as error:
            if context.patience is None:
                await opened.close()
                raise
            context.patience(error)
        except BaseException:
            await opened.close()
            raise
        return opened

    async def load(self) -> Mapping[str, Mapping[str, int]]:
        return await self._thread.ask(_load, writes=False)

    async def save(self, source: str, covered: Mapping[str, int]) -> None:
        await self._thread.ask(partial(_save, source, dict(covered)))

    async def check(self, *, thorough: bool) -> None:
        await self._thread.check(thorough=thorough)

    async def close(self) -> None:
        await self._thread.close()


def _load(db: sqlite3.Connection) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for source, feed, slot in db.execute("select source, feed, slot from checkpoints"):
        found.setdefault(source, {})[feed] = slot
    return found


def _save(source: str, covered: Mapping[str, int], db: sqlite3.Connection) -> None:
    db.execute("delete from checkpoints where source = ?", (source,))
    rows = [(source, feed, slot) for feed, slot in covered.items()]
    db.executemany("insert into checkpoints (source, feed, slot) values (?, ?, ?)", rows)
