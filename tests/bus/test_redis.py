"""Several processes on one Redis: what one publishes all others get, at the same positions."""

import pytest

from headrace.bus import Change
from headrace.model.errors import FencedError
from headrace.model.events import Label, Position, Publication, TopicHandle
from headrace.testing.valkey import Valkey
from tests.bus.shared import processes, say, until
from tests.redis.servers import new_prefix


async def test_others_get_the_same_messages_at_the_same_positions(valkey: Valkey) -> None:
    async with processes(valkey.url, new_prefix()) as opener:
        a, b = await opener.open(), await opener.open()
        writer = await a.writer()
        await say(writer, "slots/1", "token:M/2", "slots/3")
        shared = Publication(
            (TopicHandle("slots"), TopicHandle("x")), "promote", b"4", Label("k", "e", 5, certain=True)
        )
        await writer.publish(writer.batch([shared]))
        await until(lambda: len(b.got) == 5)
        assert [m.position for m in b.got] == [m.position for m in a.got]
        assert [(m.topic, m.kind, m.body, m.label) for m in b.got] == [
            (m.topic, m.kind, m.body, m.label) for m in a.got
        ]
        assert b.got[3].body is b.got[4].body
        assert b.bus.topics() == a.bus.topics()
        assert b.changes == []


async def test_a_client_goes_on_at_another_server_where_it_was(valkey: Valkey) -> None:
    async with processes(valkey.url, new_prefix()) as opener:
        a, b = await opener.open(), await opener.open()
        writer = await a.writer()
        for number in range(10):
            await say(writer, f"slots/{number}")
        at = a.got[3].position
        await until(lambda: len(b.got) == 10)
        page = await b.bus.history("slots", at, 100)
        assert page.complete
        assert [m.body for m in page.messages] == [m.body for m in a.got[4:]]


async def test_a_server_that_starts_later_has_the_history(valkey: Valkey) -> None:
    async with processes(valkey.url, new_prefix()) as opener:
        a = await opener.open()
        writer = await a.writer()
        await say(writer, "slots/1", "token:M/1")
        await say(writer, "slots/2")
        late = await opener.open()
        assert late.bus.topics() == a.bus.topics()
        here, there = [(await each.bus.history("slots", None, 10)).messages for each in (late, a)]
        assert [(m.position, m.body) for m in here] == [(m.position, m.body) for m in there]
        await say(writer, "slots/3")
        await until(lambda: late.got)
        assert late.bodies == ["3"]
        assert late.changes == []


async def test_what_the_log_no_longer_has_is_incomplete_and_keeps_its_position(valkey: Valkey) -> None:
    async with processes(valkey.url, new_prefix(), log_bytes=65_536) as opener:
        a = await opener.open()
        writer = await a.writer()
        (quiet,) = await say(writer, "token:M/1")
        for number in range(40):
            await say(writer, f"slots/{number}{'x' * 5_000}")
        late = await opener.open()
        assert await late.bus.top("token:M") == quiet
        assert await late.bus.history("token:M", quiet, 10) == ([], quiet, True), "silence is no loss"
        assert not (await late.bus.history("token:M", Position(quiet.epoch, 0), 10)).complete
        assert len((await late.bus.history("slots", None, 100)).messages) < 40
        assert await say(writer, "token:M/2") == [Position(quiet.epoch, 2)]
        await until(lambda: late.got)
        assert late.changes == []


async def test_a_new_writer_continues_where_the_last_one_ended(valkey: Valkey) -> None:
    async with processes(valkey.url, new_prefix()) as opener:
        a, b, c = await opener.open(), await opener.open(), await opener.open()
        first = await a.writer(token=5)
        await say(first, "slots/1", "token:M/1")
        second = await b.writer(token=6)
        with pytest.raises(FencedError):
            await say(first, "slots/zombie")
        (position,) = await say(second, "slots/2")
        assert position.offset == 2
        await until(lambda: len(a.got) == len(c.got) == 3)
        assert a.bodies == b.bodies == c.bodies == ["1", "1", "2"]
        assert a.changes == b.changes == c.changes == []
        with pytest.raises(FencedError):
            await a.bus.claim("ingest", 6)


async def test_a_new_epoch_and_forgotten_topics_reach_others_without_a_message(valkey: Valkey) -> None:
    async with processes(valkey.url, new_prefix(), topics_max=2) as opener:
        a, b = await opener.open(), await opener.open()
        writer = await a.writer()
        await say(writer, "account:1/x", "account:2/x")
        await say(writer, "account:3/x")
        await until(lambda: b.changes)
        assert b.changes == [Change("new_epoch", ["account:1"])]
        assert await b.bus.top("account:1") == await a.bus.top("account:1")
        await writer.publish(writer.batch([], new_epoch=True))
        await until(lambda: len(b.changes) == 2)
        assert (b.changes[1].kind, set(b.changes[1].topics)) == ("new_epoch", {"account:2", "account:3"})
        assert await say(writer, "account:2/y") == [Position((await b.bus.top("never")).epoch, 1)]
        late = await opener.open()
        assert late.bus.topics() == a.bus.topics()


async def test_deployments_with_other_prefixes_do_not_meet(valkey: Valkey) -> None:
    async with processes(valkey.url, new_prefix()) as one, processes(valkey.url, new_prefix()) as other:
        a, b = await one.open(), await other.open()
        first, second = await a.writer(), await b.writer()
        await say(first, "slots/a")
        await say(second, "slots/b")
        assert (a.bodies, b.bodies) == (["a"], ["b"])
