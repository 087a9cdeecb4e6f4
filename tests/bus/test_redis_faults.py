"""Faults of server and network: what clients then got and were told is complete, in order and without repeats."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from headrace.bus import Change
from headrace.bus.redis import RedisBus
from headrace.bus.redis_scripts import CLAIM
from headrace.bus.redis_writer import RedisWriter
from headrace.model.errors import FencedError, TransientError
from headrace.redis.connection import Script
from headrace.testing.valkey import Valkey
from tests.bus.shared import Process, Processes, do, link_to, processes, say, until
from tests.redis.servers import new_prefix, started

QUICK: dict[str, Any] = {"redis_timeout_s": 5.0, "redis_retries": 0, "local_after_s": 600.0}
LOCAL: dict[str, Any] = QUICK | {"local_after_s": 0.1}


@asynccontextmanager
async def two(
    settings: dict[str, Any], **server: str
) -> AsyncIterator[tuple[Valkey, Processes, Process, Process, RedisWriter]]:
    """A server, a process that writes, another one, and the writer; three messages are published."""
    async with started(**server) as valkey, processes(valkey.url, new_prefix(), **settings) as opener:
        a, b = await opener.open(), await opener.open()
        writer = await a.writer()
        for number in range(3):
            await say(writer, f"slots/{number}")
        await until(lambda: len(b.got) == 3)
        yield valkey, opener, a, b, writer


async def all_got(count: int, a: Process, b: Process) -> None:
    """Both got messages 0 to `count`, once, at the same positions, and were told nothing."""
    await until(lambda: len(b.got) >= count)
    assert a.bodies == b.bodies == [str(number) for number in range(count)]
    assert [m.position for m in a.got] == [m.position for m in b.got]
    assert a.changes == b.changes == []


async def test_a_living_writer_repairs_a_flushed_server() -> None:
    async with two(QUICK) as (valkey, opener, a, b, writer):
        await do(valkey.command, "FLUSHALL")
        await say(writer, "slots/3")
        await all_got(4, a, b)
        late = await opener.open()
        assert [m.body for m in (await late.bus.history("slots", None, 10)).messages] == [b"0", b"1", b"2", b"3"]
        assert late.bus.topics() == a.bus.topics()


async def test_a_living_writer_repairs_a_server_that_restarted_with_nothing() -> None:
    async with two(QUICK) as (valkey, _, a, b, writer):
        await do(valkey.kill)
        waiting = asyncio.create_task(say(writer, "slots/3"))
        with pytest.raises(TransientError):
            await b.bus.check(thorough=True)
        await do(valkey.start)
        await waiting
        await all_got(4, a, b)
        await say(writer, "slots/4")
        await all_got(5, a, b)
        await until_ready(a, b)


async def until_ready(*each: Process) -> None:
    """Wait until every process reports the bus ready."""
    for process in each:
        for _ in range(500):
            try:
                await process.bus.check(thorough=True)
                break
            except TransientError:
                await asyncio.sleep(0.02)
        else:
            await process.bus.check(thorough=True)


async def test_a_living_writer_repairs_a_server_that_restarted_with_an_old_snapshot() -> None:
    async with two(QUICK) as (valkey, opener, a, b, writer):
        await do(valkey.command, "SAVE")
        await say(writer, "slots/3")
        await all_got(4, a, b)
        await do(valkey.kill)
        await do(valkey.start)
        await say(writer, "slots/4")
        await all_got(5, a, b)
        late = await opener.open()
        assert late.bus.topics() == b.bus.topics()


async def roll_back(
    valkey: Valkey, opener: Processes, a: Process, b: Process, writer: RedisWriter, kind: type[RedisBus] = RedisBus
) -> Process:
    """Let a server restart with an old snapshot; return a process that knows only what the server has."""
    await do(valkey.command, "SAVE")
    await say(writer, "slots/3")
    await until(lambda: len(b.got) == 4)
    await a.bus.close()
    await do(valkey.kill)
    await do(valkey.start)
    return await opener.open(kind)


def undeclared(process: Process) -> list[str]:
    """Faults in what a client was sent: a position with two meanings, or a jump that nothing declared."""
    faults, last, meanings = list[str](), dict[str, Any](), dict[Any, bytes]()
    for item in process.log:
        if isinstance(item, Change):
            for topic in item.topics:
                last.pop(topic, None)
            continue
        where = (item.topic, item.position)
        if meanings.setdefault(where, item.body) != item.body:
            faults.append(f"{where} has two meanings")
        before = last.get(item.topic)
        if before is not None and (item.epoch, item.offset) != (before.epoch, before.offset + 1):
            faults.append(f"{item.position} after {before}")
        last[item.topic] = item.position
    return faults


async def test_a_new_writer_on_a_server_that_was_rolled_back_begins_an_epoch() -> None:
    async with two(QUICK) as (valkey, opener, a, b, writer):
        c = await roll_back(valkey, opener, a, b, writer)
        await say(await c.writer(), "slots/other")
        await until(lambda: b.bodies[-1] == "other")
        assert b.bodies == ["0", "1", "2", "3", "other"]
        assert [change.kind for change in b.changes] == ["new_epoch"]
        assert undeclared(b) == []
        assert not (await b.bus.history("slots", b.got[3].position, 10)).complete


class Careless(RedisBus):
    """A bus whose new writers trust whatever the server has."""

    claim_script = Script(CLAIM.text.replace("m[6] == ARGV[3]", "true"))


async def test_without_the_rule_of_the_run_id_a_position_has_two_meanings() -> None:
    assert Careless.claim_script.text != CLAIM.text
    async with two(QUICK) as (valkey, opener, a, b, writer):
        c = await roll_back(valkey, opener, a, b, writer, Careless)
        (position,) = await say(await c.writer(), "slots/other")
        assert position == b.got[3].position
        assert (c.got[-1].body, b.got[3].body) == (b"other", b"3")
        assert not b.changes


async def test_cut_connections_lose_and_repeat_nothing() -> None:
    async with two(QUICK) as (valkey, _, a, b, writer):
        for number in range(3, 40):
            if number % 6 == 0:
                await do(valkey.command, "CLIENT KILL TYPE normal")
            await say(writer, f"slots/{number}")
        await all_got(40, a, b)


async def test_batches_in_flight_are_appended_once_and_in_order_over_a_restart() -> None:
    async with two(QUICK) as (valkey, _, a, b, writer):
        waiting = [asyncio.create_task(say(writer, f"slots/{number}")) for number in range(3, 200)]
        await asyncio.sleep(0)
        await do(valkey.kill)
        await do(valkey.start)
        await asyncio.gather(*waiting)
        await all_got(200, a, b)


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),  # OOM
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),  # READONLY
        ("ACL SETUSER default -evalsha -eval -xread", "ACL SETUSER default +@all"),  # NOPERM
        ("SCRIPT FLUSH", "PING"),  # NOSCRIPT
        ("CLIENT PAUSE 400 ALL", "PING"),
    ],
)
async def test_a_server_that_refuses_is_asked_again_until_it_accepts(fault: str, end: str) -> None:
    async with two(QUICK) as (valkey, _, a, b, writer):
        await do(valkey.command, fault)
        waiting = asyncio.create_task(say(writer, "slots/3"))
        if end != "PING":
            await until(lambda: writer.trouble is not None)
            assert not waiting.done()
        await do(valkey.command, end)
        await waiting
        await say(writer, "slots/4")
        await all_got(5, a, b)
        await until_ready(a, b)


async def test_while_the_server_is_away_the_writers_own_clients_get_messages_in_a_new_epoch() -> None:
    async with two(LOCAL) as (valkey, _, a, b, writer):
        await do(valkey.kill)
        for number in range(3, 6):
            await say(writer, f"slots/{number}")
        assert a.bodies == ["0", "1", "2", "3", "4", "5"]
        assert [change.kind for change in a.changes] == ["new_epoch"]
        assert [m.offset for m in a.got] == [1, 2, 3, 1, 2, 3]
        assert undeclared(a) == []
        assert len(b.got) == 3
        for process in (a, b):
            with pytest.raises(TransientError):
                await process.bus.check(thorough=True)
        await do(valkey.start)
        await until(lambda: len(b.got) == 6)
        assert [m.position for m in b.got] == [m.position for m in a.got]
        assert undeclared(b) == []
        await until_ready(a, b)
        await say(writer, "slots/6")
        await until(lambda: len(b.got) == 7)
        assert not writer.local


async def test_a_writer_that_was_cut_off_and_followed_gives_its_epoch_up() -> None:
    async with (
        started() as valkey,
        link_to(valkey.path) as (link, through),
        processes(valkey.url, new_prefix(), **LOCAL) as opener,
    ):
        a, b = await opener.open(redis_url=through), await opener.open()
        first = await a.writer()
        await say(first, "slots/0")
        await until(lambda: b.got)
        link.cut()
        (alone,) = await say(first, "slots/alone")
        assert alone.offset == 1
        second = await b.writer()
        await say(second, "slots/1")
        await say(first, "slots/alone too")
        assert a.bodies == ["0", "alone", "alone too"]
        link.mend()
        with pytest.raises(FencedError):
            while True:
                await say(first, "slots/refused")
                await asyncio.sleep(0.01)
        await until(lambda: a.bus.topics() == b.bus.topics())
        (position,) = await say(second, "slots/2")
        await until(lambda: a.bodies[-1] == "2")
        assert undeclared(a) == undeclared(b) == []
        assert b.bodies == ["0", "1", "2"]
        assert position.offset == 3
        assert not (await b.bus.history("slots", alone, 10)).complete
        assert not (await a.bus.history("slots", alone, 10)).complete
        page = await a.bus.history("slots", None, 10)
        assert [m.body for m in page.messages] == [b"0", b"1", b"2"]
        await until_ready(a, b)


async def test_what_is_kept_for_a_server_that_is_away_is_bounded_and_the_loss_is_told() -> None:
    async with two(LOCAL | {"log_bytes": 65_536}) as (valkey, _, a, b, writer):
        await do(valkey.kill)
        for number in range(3, 60):
            await say(writer, f"slots/{number}:{'x' * 5_000}", f"token:{number}/x")
        await do(valkey.start)
        await until(lambda: b.got[-1].body == b"x" and b.got[-1].topic == "token:59")
        assert undeclared(b) == []
        assert "incomplete" in [change.kind for change in b.changes]
        assert len(b.got) < len(a.got)
        assert await b.bus.top("token:3") == await a.bus.top("token:3"), "the position of what was lost is known"


async def test_a_writer_without_work_learns_that_it_was_followed_and_its_process_reads_again() -> None:
    async with two(QUICK) as (_, _, a, b, _):
        second = await b.writer()
        await say(second, "slots/3")
        await until(lambda: len(a.got) == 4)
        await all_got(4, a, b)


async def test_a_writer_without_work_repairs_a_flushed_server() -> None:
    async with two(QUICK) as (valkey, opener, a, _, _):
        await do(valkey.command, "FLUSHALL")
        async with asyncio.timeout(20):
            while True:
                late = await opener.open()
                if late.bus.topics() == a.bus.topics():
                    break
                await asyncio.sleep(0.2)
