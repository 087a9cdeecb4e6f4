"""Numbered SQL files, each applied once and in order, and never changed after a release."""

import asyncio
import re
import sqlite3
from importlib import resources
from typing import Any, Final

from headrace.model.errors import ConfigError

_NAME: Final = re.compile(r"(sqlite|postgres)_(\d{4})_\w+\.sql")


def scripts(database: str) -> list[tuple[int, str]]:
    """Return (number, text) of each script for `sqlite` or `postgres`, in order."""
    found = []
    for file in resources.files(__name__).iterdir():
        name = _NAME.fullmatch(file.name)
        if name is not None and name[1] == database:
            found.append((int(name[2]), file.read_text("utf-8")))
    return sorted(found)


def migrate_sqlite(db: sqlite3.Connection) -> None:
    """Bring the file up to date, inside the caller's transaction. Raises ConfigError for a file of a newer version."""
    known = scripts("sqlite")
    version = db.execute("pragma user_version").fetchone()[0]
    if version > known[-1][0]:
        raise ConfigError("DATABASE_URL", f"a file of version {version}", f"version {known[-1][0]} or older")
    for number, text in known:
        if number > version:
            for statement in _statements(text):
                db.execute(statement)
            db.execute(f"pragma user_version = {number}")


async def migrate_postgres(db: Any) -> None:
    """Bring the schema `headrace` up to date, one process at a time. Raises ConfigError for a newer schema."""
    known = await asyncio.to_thread(scripts, "postgres")
    async with db.transaction():
        await db.execute("select pg_advisory_xact_lock(hashtext('headrace'))")
        await db.execute("create schema if not exists headrace")
        await db.execute("create table if not exists schema_version (version integer primary key)")
        version = await db.fetchval("select coalesce(max(version), 0) from schema_version")
        if version > known[-1][0]:
            raise ConfigError("DATABASE_URL", f"a schema of version {version}", f"version {known[-1][0]} or older")
        for number, text in known:
            if number > version:
                await db.execute(text)
                await db.execute("insert into schema_version (version) values ($1)", number)


def _statements(script: str) -> list[str]:
    """Return the statements of a script, split at each `;` that ends a line. `executescript` would commit first."""
    return [statement for part in re.split(r";[ ]*$", script, flags=re.MULTILINE) if (statement := part.strip())]
