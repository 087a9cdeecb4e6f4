"""Scripts are numbered without a hole or a repeat, and bring databases of before up to date with all that they have."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from headrace.database import migrations
from headrace.inbox import InboxSettings
from headrace.inbox.postgres import PostgresInbox
from headrace.inbox.sqlite import SqliteInbox
from headrace.orders.store.postgres import PostgresStore
from headrace.orders.store.sqlite import SqliteStore
from headrace.runtime.clock import SystemClock
from tests.orders.store.servers import empty_database

LONG_AGO_MS: Final = 1_500_000_000_000
BEFORE_AGES: Final = {"sqlite": 6, "postgres": 3}
KEYS: Final = "insert into idempotency_keys (user_id, key, fingerprint, order_id, created_at) values"
ROWS: Final = (
    f"""insert into orders (id, user_id, status, priority, seq, epoch, lease_until, mint_in, mint_out, request, outcome,
        created_at, updated_at) values ('a', 'u', 'FAILED', 5, 2, 1, {{ready}}, 'i', 'o',
        '{{{{"user_id":"u","said_in":"i","said_out":"o","token_in":{{{{"mint":"i"}}}},"token_out":{{{{"mint":"o"}}}},
        "amount":1,"slippage_bps":1}}}}', '{{{{}}}}', {LONG_AGO_MS}, {LONG_AGO_MS})""",
    f"{KEYS} ('u', 'key:k', 'print', 'a', {LONG_AGO_MS})",
    f"insert into broadcasts (key, fingerprint, answer, at) values ('b', 'print', '1', {LONG_AGO_MS})",
)


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_each_number_is_used_once(database: str) -> None:
    scripts = await asyncio.to_thread(migrations.scripts, database)
    assert [number for number, _ in scripts] == list(range(1, len(scripts) + 1))


def old_rows(database: str) -> list[str]:
    """What a database of before has: an order that is over, its key, and the key of a broadcast."""
    ready = "0" if database == "sqlite" else "'-infinity'"
    return [row.format(ready=ready) for row in ROWS]


async def goes_on(store: Any, inbox: Any) -> None:
    """All that was there is there; what is old by the clock alone is not."""
    found = await store.get("a")
    assert (found.id, found.created_at_ms) == ("a", LONG_AGO_MS)
    await inbox.tidy()
    assert (await inbox.begin("b", "print")).answer == "1"
    assert await store.retire(0, 10) == 1
    assert (await store.get("a")).status == "FAILED"
    await store.close()
    await inbox.close()


async def test_an_older_file_is_migrated(tmp_path: Path) -> None:
    path = str(tmp_path / "orders.db")
    scripts = await asyncio.to_thread(migrations.scripts, "sqlite")
    with closing(sqlite3.connect(path)) as db, db:
        for number, text in scripts:
            if number <= BEFORE_AGES["sqlite"]:
                db.executescript(f"{text}; pragma user_version = {number};")
        for row in old_rows("sqlite"):
            db.execute(row)
    store = await SqliteStore.at(path, SystemClock())
    await goes_on(store, await SqliteInbox.at(path, SystemClock(), InboxSettings()))


async def test_an_older_schema_is_migrated(postgres_url: str) -> None:
    scripts = await asyncio.to_thread(migrations.scripts, "postgres")
    async with empty_database(postgres_url) as url:
        db = await asyncpg.connect(url, server_settings={"search_path": "headrace"})
        await db.execute("create schema headrace; create table schema_version (version integer primary key)")
        for number, text in scripts:
            if number <= BEFORE_AGES["postgres"]:
                await db.execute(text)
                await db.execute("insert into schema_version (version) values ($1)", number)
        for row in old_rows("postgres"):
            await db.execute(row)
        await db.close()
        store = await PostgresStore.at(url, SystemClock())
        await goes_on(store, await PostgresInbox.at(url, SystemClock(), InboxSettings()))
