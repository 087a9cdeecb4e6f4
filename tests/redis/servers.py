"""One Valkey server for a session of tests; each test uses a prefix of its own."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count

import pytest

from headrace.testing.valkey import Valkey, server

_prefixes = count()


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A server without persistence that nobody stops."""
    with server(enable_debug_command="yes") as running:
        yield running


def new_prefix() -> str:
    """A prefix that no other test of the session uses."""
    return f"t{next(_prefixes)}"


@asynccontextmanager
async def started(**settings: str) -> AsyncIterator[Valkey]:
    """A server of one test, started and ended beside the loop."""
    running = server(**settings)
    valkey = await asyncio.to_thread(running.__enter__)
    try:
        yield valkey
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)
