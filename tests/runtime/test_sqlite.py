"""The thread that owns a database: one job's defect is that job's alone."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.model.errors import InvariantError, TransientError
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


async def test_a_file_that_is_no_database_can_not_be_had_and_nobody_waits_for_it(tmp_path: Path) -> None:
    file = tmp_path / "orders.db"
    file.write_bytes(b"these are not the pages of a database" * 100)
    thread: SqliteThread[None] = SqliteThread(str(file))
    try:
        async with asyncio.timeout(30):
            for _ in range(2):
                with pytest.raises(TransientError):
                    await thread.ask(lambda _: 1)
    finally:
        await thread.close()
