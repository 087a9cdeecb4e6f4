"""A place for each kind of store: a file, or a database on a real server that the tests start."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


@asynccontextmanager
async def place_for(kind: str, folder: Path) -> AsyncIterator[str]:
    """What to give to the store's `open`; empty at first, gone at the end."""
    assert kind == "sqlite", kind
    yield str(folder / "orders.db")
