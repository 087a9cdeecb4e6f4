"""The connection is cut between the commit and its answer: nobody knows, and nothing is lost or twice."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.model.errors import TransientError
from headrace.model.orders import Change, EventKind, OrderEvent, OrderStatus
from headrace.orders.store import Rate
from headrace.orders.store.postgres import PostgresStore
from headrace.runtime.clock import SystemClock
from headrace.testing.orders import new_order
from tests.contracts.test_store import attempt_of
from tests.orders.store.servers import empty_database

SOCKET = ".s.PGSQL.5432"
DONE = (b"COMMIT\0", b"s\0\0\0\4")
IDLE = b"Z\0\0\0\5I"
"""CommandComplete, or PortalSuspended where one row was asked for; and ReadyForQuery outside a transaction."""


class Wire:
    """A Unix socket before the server's. While `deaf`, what a client writes is committed and the answer is lost."""

    def __init__(self, server: str) -> None:
        self._server, self.deaf = server, False

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._server)
        try:
            async with asyncio.TaskGroup() as ways:
                there = ways.create_task(self._pass(reader, to_server))
                await self._pass(from_server, writer, answers=True)
                there.cancel()
        finally:
            writer.transport.abort()
            to_server.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False) -> None:
        while data := await reader.read(65_536):
            if answers and self.deaf and IDLE in data and any(tag in data for tag in DONE):
                return
            writer.write(data)


@pytest.fixture
async def wire_and_url(postgres_url: str) -> AsyncIterator[tuple[Wire, str]]:
    async with empty_database(postgres_url) as url:
        head, _, folder = url.partition("host=")
        wire = Wire(f"{folder}/{SOCKET}")
        with tempfile.TemporaryDirectory(prefix="hr-w-", dir="/tmp") as own:
            async with await asyncio.start_unix_server(wire.carry, Path(own) / SOCKET):
                yield wire, f"{head}host={own}"


async def test_an_order_committed_before_the_cut_is_found_again(wire_and_url: tuple[Wire, str]) -> None:
    wire, url = wire_and_url
    store = await PostgresStore.at(url, SystemClock())
    heard: list[OrderEvent] = []
    store.attach(heard.extend)
    try:
        await store.accept(new_order("z", 1, priority=9), ["key:z"], "print")  # the driver has asked what it asks first
        wire.deaf = True
        with pytest.raises(TransientError):
            await store.accept(new_order("a", 1), ["key:k"], "print")
        wire.deaf = False
        again = await store.accept(new_order("b", 1), ["key:k"], "print")
        assert (again.replayed, again.order.id) == (True, "a")

        [claimed] = await store.claim(1, 0, Rate(0))
        order = await store.apply(claimed.order, Change(kind=EventKind.QUOTED))
        wire.deaf = True
        with pytest.raises(TransientError):
            await store.apply(order, Change(kind=EventKind.JOURNALED, attempt=attempt_of(order)))
        wire.deaf = False
        [taken] = await store.claim(1, 60_000, Rate(0))
        assert (taken.order.status, taken.attempt) == (OrderStatus.SUBMITTED, attempt_of(order))

        await store.cancel("a", None)
        async with asyncio.timeout(30):
            while heard[-1].seq < 5:  # what this process was not answered comes with a look, after the answer
                await store.get("a")
        told = [event.seq for event in heard if event.order_id == "a"]
        assert told == [1, 2, 3, 4, 5], "each line of the log once and in order, whoever had its answer"
    finally:
        await store.close()
