"""The thread that owns a database: one job's defect is that job's alone."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from headrace.database.sqlite import WRITE_S, SqliteThread
from headrace.model.errors import ConfigError, InvariantError, TransientError

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


async def works(thread: SqliteThread[None]) -> bool:
    try:
        await thread.check(thorough=True)
    except TransientError:
        return False
    return True


async def test_a_database_that_is_read_only_is_red_until_it_can_be_written(tmp_path: Path) -> None:
    """Expect what SQLite says on a read-only disk; here the connection is read-only, which takes no root."""
    heard: list[TransientError] = []
    thread: SqliteThread[None] = SqliteThread(str(tmp_path / "orders.db"), on_trouble=heard.append)
    try:
        async with asyncio.timeout(30):
            await thread.check(thorough=False)
            await thread.ask(lambda db: db.execute("pragma query_only = on"), writes=False)
            with pytest.raises(TransientError, match="attempt to write a readonly database"):
                await thread.check(thorough=False)
            assert "attempt to write a readonly database" in str(heard[0])
            while not await works(thread):
                pass
    finally:
        await thread.close()


# The file, moved and spoilt under the connection.


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "orders.db"


@pytest.fixture
async def opened(file: Path) -> AsyncIterator["Opened"]:
    thread = open_thread(file)
    await thread.insert(1)
    yield thread
    await thread.thread.close()


class Opened:
    """A thread on a file with a table of numbers, and what it said of the file."""

    def __init__(self, file: Path) -> None:
        self.troubles: list[str] = []
        self.thread: SqliteThread[int] = SqliteThread(
            str(file), setup=create, tail=tail, on_trouble=lambda error: self.troubles.append(str(error))
        )

    async def insert(self, number: int) -> None:
        await self.thread.ask(lambda db: db.execute("insert into numbers (n) values (?)", (number,)))

    async def numbers(self) -> list[int]:
        rows = await self.thread.ask(lambda db: db.execute("select n from numbers").fetchall(), writes=False)
        return [number for (number,) in rows]

    async def well_again(self) -> None:
        """Return when the file can be used."""
        async with asyncio.timeout(30):
            while True:
                try:
                    await self.thread.check(thorough=True)
                except TransientError:
                    await asyncio.sleep(0.02)
                else:
                    return


def open_thread(file: Path) -> Opened:
    return Opened(file)


def create(db: sqlite3.Connection) -> None:
    db.execute("create table if not exists numbers (position integer primary key autoincrement, n integer not null)")


def tail(db: sqlite3.Connection, mark: int) -> tuple[list[int], int]:
    top = db.execute("select coalesce(max(position), 0) from numbers").fetchone()[0]
    return [], top or -1


def move(file: Path, name: str) -> Path:
    return file.rename(file.with_name(name))


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def refused(opened: Opened, number: int) -> None:
    with pytest.raises(TransientError):
        await opened.insert(number)
    assert opened.troubles


async def test_a_file_that_is_moved_away_takes_nothing_until_it_is_back(file: Path, opened: Opened) -> None:
    away = move(file, "away.db")
    await refused(opened, 2)
    with pytest.raises(TransientError):
        await opened.numbers()
    assert away.parent.joinpath("orders.db") not in files(away.parent), (
        "a new file has nothing of what was acknowledged"
    )
    with closing(sqlite3.connect(f"file:{away}?immutable=1", uri=True)) as db:
        assert db.execute("select n from numbers").fetchall() == [(1,)]
    move(away, "orders.db")
    await opened.well_again()
    await opened.insert(3)
    assert await opened.numbers() == [1, 3]


async def test_a_folder_that_is_moved_away_takes_nothing_until_it_is_back(file: Path, opened: Opened) -> None:
    away = move(file.parent, "elsewhere")
    await refused(opened, 2)
    move(away, "data")
    await opened.well_again()
    assert await opened.numbers() == [1]


@pytest.mark.parametrize("new", ["empty", "another database", "garbage", "a folder"])
async def test_a_file_that_is_replaced_takes_nothing_until_it_is_the_old_one(
    file: Path, opened: Opened, new: str
) -> None:
    kept = move(file, "away.db")
    other = file.with_name("other.db")
    if new == "another database":
        another = open_thread(other)
        await another.insert(9)
        await another.insert(9)
        await another.thread.close()
    elif new == "garbage":
        other.write_bytes(b"these are not the pages of a database" * 500)
    elif new == "a folder":
        other.mkdir()
    else:
        other.touch()
    move(other, "orders.db")
    for number in range(3):
        await refused(opened, number)
    move(file, "wrong")
    move(kept, "orders.db")
    await opened.well_again()
    assert await opened.numbers() == [1]


async def test_an_older_copy_in_place_of_the_file_is_refused(file: Path, opened: Opened) -> None:
    await opened.thread.ask(lambda db: None)
    copy = file.with_name("copy.db")
    with closing(sqlite3.connect(file)) as db, closing(sqlite3.connect(copy)) as to:
        db.backup(to)
    await opened.insert(2)
    kept = move(file, "away.db")
    move(copy, "orders.db")
    for number in range(3):
        await refused(opened, number)
    move(kept, "orders.db")
    await opened.well_again()
    assert await opened.numbers() == [1, 2]


async def test_a_copy_with_all_that_was_acknowledged_is_as_good_as_the_file(file: Path, opened: Opened) -> None:
    copy = file.with_name("copy.db")
    with closing(sqlite3.connect(file)) as db, closing(sqlite3.connect(copy)) as to:
        db.backup(to)
    move(copy, "orders.db")
    await refused(opened, 2)
    await opened.well_again()
    await opened.insert(3)
    assert await opened.numbers() == [1, 3]


@pytest.mark.parametrize("size", [0, 100, 4096, 6000])
async def test_a_file_that_is_cut_short_takes_nothing(file: Path, opened: Opened, size: int) -> None:
    await opened.thread.ask(
        lambda db: db.executemany("insert into numbers (n) values (?)", [(n,) for n in range(5000)])
    )
    await opened.thread.ask(lambda _: None)
    with closing(sqlite3.connect(file)) as db:
        db.execute("pragma wal_checkpoint(full)")
        whole = file.with_name("whole.db")
        with closing(sqlite3.connect(whole)) as to:
            db.backup(to)
    await opened.insert(7)
    with file.open("rb+") as cut:
        cut.truncate(size)
    for number in range(3):
        await refused(opened, number)


@pytest.mark.parametrize("gone", [("-wal",), ("-shm",), ("-wal", "-shm")])
async def test_what_sqlite_keeps_beside_the_file_is_deleted_and_nothing_acknowledged_is_lost(
    file: Path, opened: Opened, gone: tuple[str, ...]
) -> None:
    await opened.insert(2)
    for end in gone:
        move(Path(f"{file}{end}"), "deleted").unlink()
    await refused(opened, 3)
    await opened.well_again()
    await opened.insert(4)
    assert await opened.numbers() == [1, 2, 4]
    with closing(sqlite3.connect(file)) as db:
        assert [number for (number,) in db.execute("select n from numbers")] == [1, 2, 4]


async def test_reads_do_not_wait_for_a_writer_that_another_process_holds_up(file: Path, opened: Opened) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("begin immediate")
        began_s = time.monotonic()
        write = opened.thread.ask(lambda db: db.execute("insert into numbers (n) values (2)"))
        assert await opened.numbers() == [1]
        assert not write.done(), "the read waited for the write to be given up"
        with pytest.raises(TransientError, match="locked"):
            await write
        assert opened.troubles
        assert time.monotonic() - began_s < 2 * WRITE_S
        late = opened.thread.ask(lambda db: db.execute("insert into numbers (n) values (3)"))
        other.execute("commit")
        await late
    assert await opened.numbers() == [1, 3]


async def test_a_lock_that_keeps_readers_out_fails_them_soon(file: Path, opened: Opened) -> None:
    await opened.thread.close()
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("pragma locking_mode = exclusive")
        other.execute("begin exclusive")
        again = open_thread(file)
        try:
            async with asyncio.timeout(30):
                with pytest.raises(TransientError, match="locked"):
                    await again.numbers()
            other.execute("commit")
            other.close()
            await again.well_again()
            assert await again.numbers() == [1]
        finally:
            await again.thread.close()


async def test_a_database_that_is_full_takes_nothing_until_there_is_room(opened: Opened) -> None:
    pages = await opened.thread.ask(lambda db: db.execute("pragma page_count").fetchone()[0], writes=False)
    await opened.thread.ask(lambda db: db.execute(f"pragma max_page_count = {pages}").fetchone())
    with pytest.raises(TransientError):
        await opened.thread.ask(
            lambda db: db.executemany("insert into numbers (n) values (?)", [(n,) for n in range(9999)])
        )
    assert "full" in opened.troubles[-1]
    await opened.thread.check(thorough=False)
    with pytest.raises(TransientError):
        await opened.thread.check(thorough=True)
    await opened.thread.ask(lambda db: db.execute("pragma max_page_count = 100000").fetchone())
    await opened.well_again()
    assert await opened.numbers() == [1]


async def test_a_file_in_a_folder_that_is_not_there_is_had_as_soon_as_it_is(tmp_path: Path) -> None:
    late = open_thread(tmp_path / "later" / "orders.db")
    try:
        await refused(late, 1)
        (tmp_path / "later").mkdir()
        await late.well_again()
        await late.insert(2)
        assert await late.numbers() == [2]
    finally:
        await late.thread.close()


async def test_a_set_up_that_fails_is_done_again(file: Path) -> None:
    failures = [TransientError("not now"), ConfigError("X", "a", "b")]

    def set_up(db: sqlite3.Connection) -> None:
        db.execute("create table done (n integer)")
        if failures:
            raise failures.pop(0)

    thread: SqliteThread[None] = SqliteThread(str(file), setup=set_up)
    try:
        with pytest.raises(TransientError):
            await thread.ask(lambda _: 1)
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await thread.ask(lambda db: db.execute("select count(*) from done").fetchone()[0]) == 0
                except (TransientError, ConfigError):
                    await asyncio.sleep(0.02)
                else:
                    break
        assert not failures
    finally:
        await thread.close()
