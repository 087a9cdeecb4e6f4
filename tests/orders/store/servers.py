"""A place for each kind of store: a file, or a database on a real server that the tests start."""

import os
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from headrace.orders.store import STORES
from headrace.testing import postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """`DATABASE_URL` where it names a server, else one that is started for the session."""
    given = os.environ.get("DATABASE_URL", "")
    if given.startswith("postgres"):
        yield given
    else:
        with postgres.server() as url:
            yield url


@pytest.fixture(params=sorted(STORES))
def kind_of_store(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Each store in the register, with the URL of its server if it has one."""
    kind: str = request.param
    return kind, request.getfixturevalue("postgres_url") if kind == "postgres" else ""


@asynccontextmanager
async def empty_database(server_url: str) -> AsyncIterator[str]:
    """The URL of a new database on the server; dropped at the end."""
    name = f"headrace_test_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(server_url)
    try:
        await admin.execute(f"create database {name}")
        head, _, query = server_url.partition("?")
        yield f"{head.rpartition('/')[0]}/{name}{'?' if query else ''}{query}"
        await admin.execute(f"drop database {name} with (force)")
    finally:
        await admin.close()


@asynccontextmanager
async def place_for(kind: str, folder: Path, server_url: str) -> AsyncIterator[str]:
    """What to give to the store's `open`; empty at first, gone at the end."""
    if kind == "sqlite":
        yield str(folder / "orders.db")
    else:
        async with empty_database(server_url) as url:
            yield url


@pytest.fixture
async def store_place(kind_of_store: tuple[str, str], tmp_path: Path) -> AsyncIterator[str]:
    """What to give to the `open` of each kind of store in turn."""
    kind, server_url = kind_of_store
    async with place_for(kind, tmp_path, server_url) as place:
        yield place


def settings_of(place: str) -> dict[str, str]:
    """The settings that name a place to stores and inboxes."""
    return {"database_url": place} if "://" in place else {"file": place}


async def write(place: str, sql: str, *values: Any) -> None:
    """Do this to the database at a store's place, behind the store's back; some row must be there to do it to."""
    if "://" in place:
        numbers = count(1)
        db = await asyncpg.connect(place, server_settings={"search_path": "headrace"})
        try:
            done = await db.execute(re.sub(r"\?", lambda _: f"${next(numbers)}", sql), *values)
        finally:
            await db.close()
        assert done.split()[-1] != "0", done
    else:
        with closing(sqlite3.connect(place, timeout=30)) as file, file:
            assert file.execute(sql, values).rowcount
