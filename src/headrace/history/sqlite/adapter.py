"""The history on SQLite, with one thread that writes and another thread that reads."""

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, Self, TypeVar

from headrace.adapters import Context
from headrace.history import HistorySettings, Kept, Written
from headrace.history.queries import Queries
from headrace.history.sqlite.reading import Reading
from headrace.history.sqlite.writing import Writing
from headrace.model.errors import InvariantError, TransientError

T = TypeVar("T")

SWITCH_S: Final = 0.0002
"""Longest time in seconds that the reading and writing threads wait for a busy event loop; Python's default is 5 ms."""

_DEFECTS: Final = (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError,
                   ArithmeticError, ValueError, TypeError, LookupError)  # fmt: skip
"""Errors that show that a fact can't be stored, although the files are usable."""


class SqliteHistory(Queries):
    """`History` on files. The first call opens them; a call after a failed call opens them again."""

    Settings: ClassVar = HistorySettings

    def __init__(self, settings: HistorySettings) -> None:
        self.on_trouble: Callable[[TransientError], None] = lambda _: None
        self._settings, self._path = settings, Path(settings.place.where)
        self._writing: Writing | None = None
        self._reading: Reading | None = None
        self._closed = False
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_S))
        self._writer = ThreadPoolExecutor(1, "history-writer")
        self._reader = ThreadPoolExecutor(1, "history-reader")

    @classmethod
    async def open(cls, settings: HistorySettings, context: Context) -> Self:
        """Open the files; create or migrate them as needed. Raises ConfigError if the files have a newer version.

        Raises TransientError if the files can't be used now. With `context.patience`, the error is passed to
        `patience` instead, and the history is returned.
        """
        history = cls(settings)
        try:
            await history.check(thorough=False)
        except TransientError as error:
            if context.patience is None:
                await history.close()
                raise
            context.patience(error)
        except BaseException:
            await history.close()
            raise
        return history

    async def write(self, facts: Sequence[Kept]) -> Written:
        return await self._write(lambda files: files.write(facts))

    async def clear(self) -> None:
        await self._write(Writing.clear)

    async def check(self, *, thorough: bool) -> None:
        await self._write(Writing.check)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._in(self._reader, self._close_reading)
        await self._in(self._writer, self._close_writing)
        self._reader.shutdown(wait=False)
        self._writer.shutdown(wait=False)

    async def _write(self, work: Callable[[Writing], T]) -> T:
        return await self._answered(self._writer, partial(self._with_writing, work))

    async def _read(self, work: Callable[[Reading], T]) -> T:
        if self._writing is None:  # only the writing thread creates the files
            await self.check(thorough=False)
        return await self._answered(self._reader, partial(self._with_reading, work))

    async def _answered(self, executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._closed:
            raise TransientError("the history is closed")
        try:
            return await self._in(executor, work)
        except _DEFECTS as error:
            raise InvariantError(f"{type(error).__name__}: {error}") from error
        except BlockingIOError as error:
            raise TransientError("another process has the history") from error
        except (sqlite3.Error, OSError) as error:
            failure = TransientError(f"the history can't be used: {error}")
            self.on_trouble(failure)
            raise failure from error

    async def _in(self, executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, work)

    # The methods below run in the threads.

    def _with_writing(self, work: Callable[[Writing], T]) -> T:
        if self._writing is None:
            settings = self._settings
            self._writing = Writing(self._path, bytes_max=settings.bytes_max, age_s=settings.age_s)
        try:
            return work(self._writing)
        except _DEFECTS:
            raise
        except (sqlite3.Error, OSError):
            self._close_writing()
            raise

    def _with_reading(self, work: Callable[[Reading], T]) -> T:
        if self._reading is None:
            self._reading = Reading(self._path)
        try:
            return work(self._reading)
        except (sqlite3.Error, OSError):
            self._close_reading()
            raise

    def _close_writing(self) -> None:
        files, self._writing = self._writing, None
        if files is not None:
            files.close()

    def _close_reading(self) -> None:
        files, self._reading = self._reading, None
        if files is not None:
            files.close()
