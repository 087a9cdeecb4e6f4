"""The thread that owns a database: one job's defect is that job's alone."""

import asyncio
import sqlite3
from collections.abc import Callable

import pytest

from headrace.model.errors import InvariantError
from headrace.runtime.sqlite import SqliteThread

DEFECTS: list[Callable[[sqlite3.Connection], object]] = [
    lambda db: db.execute("select ?", (2**63,)),
    lambda db: db.execute("select ?", ("\ud800",)),
    lambda db: db.execute("select ?", ()),
    lambda db: db.execute("select ?", (object(),)),
    lambda db: [][0],
    lambda db: 1 // 0,
]


@pytest.mark.parametrize("defect", DEFECTS)
async def test_a_defect_fails_its_job_and_no_other(defect: Callable[[sqlite3.Connection], object]) -> None:
    thread: SqliteThread[None] = SqliteThread(":memory:")
    try:
        async with asyncio.timeout(5):
            before, bad, after = thread.ask(lambda _: 1), thread.ask(defect), thread.ask(lambda _: 2)
            with pytest.raises(InvariantError):
                await bad
            assert (await before, await after) == (1, 2)
            assert await thread.ask(lambda _: 3) == 3
    finally:
        await thread.close()
