"""The mints of pools: asked of a scripted node, answered exactly once, kept in a file that may be damaged."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.model.updates import AnyUpdate, PoolUpdate
from headrace.runtime.channel import Channel
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.solana.rpc import Rpc
from headrace.sources.pools import PoolLookup, PoolSettings
from headrace.sources.pools.file import VERSION, Known, PoolFile
from headrace.testing.ledger import Account, Ledger, made_up_key
from headrace.testing.node_http import HttpRpc

PROGRAM, OTHER = made_up_key("program"), made_up_key("other program")
FIRST, SECOND = made_up_key("first"), made_up_key("second")
POOLS = [made_up_key(f"pool {number}") for number in range(250)]


def read(owner: str, data: bytes) -> tuple[str, str] | None:
    return (FIRST, SECOND) if owner == PROGRAM and data == b"a pool" else None


class Asking:
    def __init__(self, lookup: PoolLookup, node: HttpRpc, outlet: Channel[AnyUpdate], metrics: Metrics) -> None:
        self.lookup, self.node, self.outlet, self.metrics = lookup, node, outlet, metrics
        self.answers: dict[str, PoolUpdate] = {}

    def add(self, *pools: str, owner: str = PROGRAM, data: bytes = b"a pool") -> None:
        for pool in pools:
            self.node.ledger.accounts[pool] = Account(owner, data, 1)

    async def ask(self, *pools: str) -> list[str]:
        """Ask for pools; the states of the answers, each of which came once."""
        for pool in pools:
            self.lookup.ask(pool, PROGRAM)
        found: dict[str, PoolUpdate] = {}
        async with asyncio.timeout(20):
            while len(found) < len(set(pools)):
                for update in await self.outlet.get_batch():
                    assert isinstance(update, PoolUpdate)
                    assert update.pool not in found
                    found[update.pool] = update
        self.answers |= found
        return [found[pool].state for pool in pools]

    def count(self, answer: str) -> float:
        return self.metrics.registry.get_sample_value("headrace_pool_lookups_total", {"answer": answer}) or 0


@asynccontextmanager
async def asking(**settings: Any) -> AsyncIterator[Asking]:
    node, clock, metrics = HttpRpc(Ledger()), SystemClock(), Metrics()
    await node.start()
    rpc = Rpc([node.url], clock=clock)
    outlet: Channel[AnyUpdate] = Channel(10_000)
    chosen = PoolSettings(**{"file": "", **settings})
    lookup = PoolLookup(rpc, outlet, read, settings=chosen, clock=clock, metrics=metrics)
    try:
        async with Supervisor(clock) as tasks:
            tasks.start("test", "pools", lookup.run)
            yield Asking(lookup, node, outlet, metrics)
            tasks.cancel()
    finally:
        await rpc.aclose()
        await node.stop()


async def test_pools_are_asked_for_together_and_each_is_answered_once() -> None:
    async with asking() as it:
        it.add(*POOLS)
        assert await it.ask(*POOLS) == ["known"] * 250
        assert {update.mints for update in it.answers.values()} == {(FIRST, SECOND)}
        sizes = [len(request["params"][0]) for request in it.node.requests]
        assert sizes == [100, 100, 50]


async def test_a_known_pool_is_answered_without_asking() -> None:
    async with asking() as it:
        it.add(POOLS[0])
        await it.ask(POOLS[0])
        assert await it.ask(POOLS[0]) == ["known"]
        assert len(it.node.requests) == 1
        assert it.count("kept") == 1


@pytest.mark.parametrize(("owner", "data"), [(OTHER, b"a pool"), (PROGRAM, b"no pool")])
async def test_an_account_that_is_no_pool_of_the_program_is_none(owner: str, data: bytes) -> None:
    async with asking() as it:
        it.add(POOLS[0], owner=owner, data=data)
        assert await it.ask(POOLS[0]) == ["none"]
        assert it.answers[POOLS[0]].mints is None


async def test_an_absent_account_is_none_only_after_several_questions() -> None:
    async with asking(lookup_s=20) as it:
        assert await it.ask(POOLS[0]) == ["none"]
        assert len(it.node.requests) == 3


async def test_an_account_that_appears_late_is_known() -> None:
    async with asking(lookup_s=20) as it:
        asked = asyncio.create_task(it.ask(POOLS[0]))
        while not it.node.requests:  # noqa: ASYNC110  (the node has no event for it)
            await asyncio.sleep(0.001)
        it.add(POOLS[0])
        assert await asked == ["known"]


@pytest.mark.parametrize(
    "fault",
    [
        lambda node: setattr(node.faults, "hang", True),
        lambda node: setattr(node.faults, "status", 429),
        lambda node: setattr(node.faults, "garbage", b"<html>"),
        lambda node: node.faults.errors.update(getMultipleAccounts=(-32601, "no")),
        lambda node: node.faults.results.update(getMultipleAccounts={"context": {"slot": 1}, "value": []}),
    ],
    ids=["hangs", "busy", "no JSON", "refuses", "too few"],
)
async def test_a_node_that_does_not_say_leaves_the_pool_unanswered_within_the_time(
    fault: Callable[[HttpRpc], None],
) -> None:
    async with asking(lookup_s=0.3) as it:
        fault(it.node)
        assert await it.ask(*POOLS[:2]) == ["unanswered"] * 2


async def test_what_was_learned_is_known_after_a_restart(tmp_path: Path) -> None:
    file = str(tmp_path / "pools.db")
    async with asking(file=file) as it:
        it.add(*POOLS[:3])
        await it.ask(*POOLS[:3])
        while len(await asyncio.to_thread(PoolFile(file).load)) < 3:  # noqa: ASYNC110  (nor has a file)
            await asyncio.sleep(0.01)
    async with asking(file=file) as it:
        assert await it.ask(*POOLS[:3]) == ["known"] * 3
        assert it.node.requests == []


def known(number: int) -> Known:
    return Known(POOLS[number], PROGRAM, FIRST, SECOND)


def test_the_file_keeps_the_newest(tmp_path: Path) -> None:
    file = PoolFile(str(tmp_path / "pools.db"), rows_max=3)
    assert file.load() == []
    for number in range(5):
        file.keep([known(number)])
    file.keep([known(4)])
    assert file.load() == [known(2), known(3), known(4)]


def damaged_by_bytes(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


def damaged_within(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xff" * (len(raw) - 4096)
    path.write_bytes(raw)


def damaged_by_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"pragma user_version = {VERSION + 1}")
    connection.close()


def damaged_by_another_table(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("drop table pools")
        connection.execute("create table pools (pool integer, program_id text, first text, second text)")
        connection.execute("insert into pools values (1, 'a', 'b', 'c')")
    connection.close()


@pytest.mark.parametrize("damage", [damaged_by_bytes, damaged_within, damaged_by_version, damaged_by_another_table])
def test_a_damaged_file_is_set_aside_and_begun_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "pools.db"
    file = PoolFile(str(path))
    file.keep([known(number) for number in range(200)])
    damage(path)
    assert file.load() == []
    assert (tmp_path / "pools.db.damaged").exists()
    file.keep([known(1)])
    assert file.load() == [known(1)]


async def test_a_place_that_cannot_be_written_does_not_stop_the_answers(tmp_path: Path) -> None:
    async with asking(file=str(tmp_path / "no such folder" / "pools.db")) as it:
        it.add(*POOLS[:2])
        assert await it.ask(POOLS[0]) == ["known"]
        assert await it.ask(POOLS[1]) == ["known"]
