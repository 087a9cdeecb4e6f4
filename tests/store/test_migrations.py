"""Scripts are numbered without a hole or a repeat: of two with one number only the first would ever be applied."""

import asyncio

import pytest

from headrace.store import migrations


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_each_number_is_used_once(database: str) -> None:
    scripts = await asyncio.to_thread(migrations.scripts, database)
    assert [number for number, _ in scripts] == list(range(1, len(scripts) + 1))
