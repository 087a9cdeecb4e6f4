"""The files of a history: tables, versions, locking, and connections."""

import fcntl
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from headrace.model.errors import ConfigError

VERSION: Final = 1
LOCK_S: Final = 5.0
CHECKPOINT_PAGES: Final = 8_000
"""Pages in the log that start a checkpoint. Few checkpoints are better, as each commit changes most index pages."""
_WRITER_CACHE_KIB: Final = 32_768
_READER_CACHE_KIB: Final = 2_048
SIDES: Final = ("", "-wal", "-shm")

MAIN: Final = (
    """create table segments (
      number integer primary key,
      first_slot integer not null     -- a segment has the slots from here to the first of the next one
    ) strict""",
    """create table slots (
      slot integer primary key, status integer not null, parent integer, reason text
    ) strict""",
    """create table gaps (
      id integer primary key, gap_id text not null, feed text not null, program text not null,
      first integer not null, last integer not null, state text not null, reason text not null,
      unique (gap_id, feed, program)
    ) strict""",
    """create table tokens (
      id integer primary key,         -- slot << 24 | number in the slot
      mint blob not null, creator blob not null, name blob not null, symbol blob not null,
      program text not null, signature blob not null, place text not null, standing integer not null
    ) strict""",
    "create index tokens_mint on tokens (mint)",
    "create index tokens_creator on tokens (creator)",
)

SEGMENT: Final = (
    """create table keys (
      id integer primary key, key blob not null unique,
      decimals integer                -- of a mint, where known
    ) strict""",
    "create table programs (id integer primary key, program_id text not null unique, name text not null) strict",
    # Base and quote are u64 as signed integers of the same bits; keys are rows of `keys`.
    """create table trades (
      id integer primary key,         -- slot << 24 | number in the slot
      time integer not null, mint integer, quote_mint integer, program integer not null, side integer not null,
      user integer, pool integer, authority integer, base integer not null, quote integer not null,
      signature blob not null, place text not null, standing integer not null
    ) strict""",
    "create index trades_mint on trades (mint)",
    "create index trades_user on trades (user)",
    # A range of trade ids that contains all trades of the minute, so that queries by time read a range of ids.
    "create table minutes (minute integer primary key, first integer not null, last integer not null) strict",
    """create table candles (
      mint integer not null, quote_mint integer not null, minute integer not null, trades integer not null,
      first integer not null, last integer not null,
      base_high integer not null, base_low integer not null, quote_high integer not null, quote_low integer not null,
      open integer, open_base integer, open_quote integer, high integer, high_base integer, high_quote integer,
      low integer, low_base integer, low_quote integer, close integer, close_base integer, close_quote integer,
      primary key (mint, quote_mint, minute)
    ) strict, without rowid""",
)


def segment_path(main: Path, number: int) -> Path:
    """Return the path of a segment's file."""
    return main.with_name(f"{main.name}-{number:06d}")


def lock(main: Path) -> IO[bytes]:
    """Lock the history for writing; return the lock file. The lock lasts until that file is closed.

    Raises BlockingIOError while another process holds the lock.
    """
    file = main.with_name(f"{main.name}-lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def open_writer(path: Path, tables: Sequence[str]) -> sqlite3.Connection:
    """Return a writing connection. Create the tables in a new file. Raises ConfigError if the version is newer."""
    db = sqlite3.connect(path, timeout=LOCK_S, isolation_level=None, check_same_thread=False)
    try:
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = normal")
        db.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
        db.execute(f"pragma cache_size = -{_WRITER_CACHE_KIB}")
        db.execute("begin immediate")
        _migrate(db, tables)
        db.execute("commit")
    except BaseException:
        db.close()
        raise
    return db


def _migrate(db: sqlite3.Connection, tables: Sequence[str]) -> None:
    version = db.execute("pragma user_version").fetchone()[0]
    if version > VERSION:
        raise ConfigError("HISTORY_FILE", f"a history of version {version}", f"version {VERSION} or older")
    if version == 0:
        for table in tables:
            db.execute(table)
        db.execute(f"pragma user_version = {VERSION}")


def open_reader(path: Path) -> sqlite3.Connection:
    """Return a read-only connection to a file that `open_writer` has created."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    db = sqlite3.connect(uri, timeout=LOCK_S, isolation_level=None, uri=True, check_same_thread=False)
    db.execute(f"pragma cache_size = -{_READER_CACHE_KIB}")
    return db


def size_of(path: Path) -> int:
    """Return the size in bytes of a file and of SQLite's files beside it."""
    total = 0
    for side in SIDES:
        try:
            total += Path(f"{path}{side}").stat().st_size
        except OSError:
            continue
    return total


def inode_of(path: Path) -> int | None:
    """Return the number that no other file has while this one is open; None for a file that does not exist."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def is_database(path: Path) -> bool:
    """Return whether there is a file that SQLite wrote."""
    try:
        with path.open("rb") as file:
            return file.read(16) == b"SQLite format 3\x00"
    except FileNotFoundError:
        return False


def unlink(path: Path) -> None:
    """Delete a file and SQLite's files beside it."""
    for side in SIDES:
        Path(f"{path}{side}").unlink(missing_ok=True)
