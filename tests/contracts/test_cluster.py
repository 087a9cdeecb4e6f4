"""The contract of every directory of servers in the register; a new one is tested by being registered."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import NamedTuple

import pytest

from headrace.cluster import Cluster, Grant, Member, Server
from headrace.cluster.leadership import Candidate
from headrace.cluster.members import CLASH_BEATS, Members
from headrace.cluster.memory import MemoryCluster
from headrace.model.errors import FencedError, TransientError
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from tests.redis.servers import valkey
from tests.redis_server import connect, prefix, redis_url

__all__ = ["redis_url", "valkey"]

LONG_S, SHORT_S = 60.0, 0.05
PATIENCE_S = 20.0


class Pair(NamedTuple):
    """The same directory as two servers reach it."""

    first: Cluster
    second: Cluster


@pytest.fixture(params=["memory", "redis"])
async def pair(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Pair]:
    if request.param == "memory":
        alone = MemoryCluster(SystemClock())
        yield Pair(alone, alone)
        return
    name = prefix()
    async with AsyncExitStack() as stack:
        yield Pair(await connect(stack, redis_url, name), await connect(stack, redis_url, name))


def server(name: str, incarnation: str = "", **more: object) -> Server:
    return Server(server_id=name, incarnation=incarnation or f"{name}-1", version="1", **more)  # type: ignore[arg-type]


def names(members: Sequence[Member]) -> list[str]:
    return [member.server.server_id for member in members]


async def test_a_server_is_found_as_it_described_itself(pair: Pair) -> None:
    a = server("a", address="a.example:8080", connections=3, lanes=("ingest",))
    (found,) = await pair.first.beat(a, LONG_S)
    assert found.server == a
    assert 0 <= found.silent_ms < 10_000


async def test_servers_find_each_other_in_the_order_of_their_names(pair: Pair) -> None:
    await pair.first.beat(server("b"), LONG_S)
    assert names(await pair.second.beat(server("a"), LONG_S)) == ["a", "b"]


async def test_a_later_beat_replaces_the_description(pair: Pair) -> None:
    await pair.first.beat(server("a", connections=1), LONG_S)
    (found,) = await pair.second.beat(server("a", connections=2), LONG_S)
    assert found.server.connections == 2


async def test_two_servers_of_one_name_are_both_found(pair: Pair) -> None:
    await pair.first.beat(server("a", "1"), LONG_S)
    assert names(await pair.second.beat(server("a", "2"), LONG_S)) == ["a", "a"]


async def test_a_silent_server_is_removed(pair: Pair) -> None:
    await pair.first.beat(server("a"), LONG_S)
    async with asyncio.timeout(PATIENCE_S):
        while "a" in names(await pair.second.beat(server("b"), SHORT_S)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_server_that_leaves_is_gone_at_once(pair: Pair) -> None:
    await pair.first.beat(server("a"), LONG_S)
    await pair.first.leave(server("a"))
    await pair.first.leave(server("a"))
    assert names(await pair.second.beat(server("b"), LONG_S)) == ["b"]


async def test_a_lease_has_one_holder(pair: Pair) -> None:
    assert await pair.first.take("x", "a", LONG_S) is not None
    assert await pair.second.take("x", "b", LONG_S) is None
    assert await pair.second.take("y", "b", LONG_S) is not None


async def test_a_released_lease_is_free_and_its_note_is_handed_on(pair: Pair) -> None:
    first = await pair.first.take("x", "a", LONG_S)
    assert first is not None
    assert first.note == b""
    await pair.first.release("x", first.token, b"\x00note")
    second = await pair.second.take("x", "b", LONG_S)
    assert second is not None
    assert second.token > first.token
    assert second.note == b"\x00note"


async def test_a_released_lease_is_not_kept_by_a_call_that_comes_late(pair: Pair) -> None:
    first = await pair.first.take("x", "a", LONG_S)
    assert first is not None
    await pair.first.release("x", first.token, b"note")
    assert not await pair.first.keep("x", "a", first.token, LONG_S, b"late")
    second = await pair.second.take("x", "b", LONG_S)
    assert second is not None
    assert second.note == b"note"


async def test_a_lease_ends_unless_it_is_kept(pair: Pair) -> None:
    first = await pair.first.take("x", "a", SHORT_S)
    assert first is not None
    assert await pair.first.keep("x", "a", first.token, LONG_S, b"n")
    await asyncio.sleep(2 * SHORT_S)  # longer than the first term
    assert await pair.second.take("x", "b", LONG_S) is None
    assert await pair.first.keep("x", "a", first.token, SHORT_S, b"n")
    second = await taken(pair.second, "x", "b")
    assert second.token > first.token
    assert second.note == b"n"


async def test_a_holder_whose_lease_was_taken_is_refused(pair: Pair) -> None:
    first = await pair.first.take("x", "a", SHORT_S)
    assert first is not None
    second = await taken(pair.second, "x", "b")
    assert not await pair.first.keep("x", "a", first.token, LONG_S, b"old")
    await pair.first.release("x", first.token, b"old")
    assert await pair.first.take("x", "a", LONG_S) is None
    assert await pair.second.keep("x", "b", second.token, LONG_S, b"new")


async def test_a_holder_keeps_a_lease_that_ended_and_nobody_took(pair: Pair) -> None:
    first = await pair.first.take("x", "a", SHORT_S)
    assert first is not None
    await asyncio.sleep(2 * SHORT_S)  # longer than the term
    assert await pair.first.keep("x", "a", first.token, LONG_S, b"")
    assert await pair.second.take("x", "b", LONG_S) is None


async def test_a_holder_that_takes_its_lease_again_gets_a_greater_token(pair: Pair) -> None:
    first = await pair.first.take("x", "a", LONG_S)
    again = await pair.first.take("x", "a", LONG_S)
    assert first is not None
    assert again is not None
    assert again.token > first.token


async def test_a_candidate_leads_once_the_holder_is_gone(pair: Pair) -> None:
    clock = SystemClock()
    first = Candidate(pair.first, "x", "a", 0.2, clock, lambda: b"here")
    second = Candidate(pair.second, "x", "b", 0.2, clock)
    token = (await first.win()).token
    waiting = asyncio.ensure_future(second.win())
    keeping = asyncio.ensure_future(first.keep())
    await asyncio.wait([waiting], timeout=0.5)
    assert not waiting.done()
    keeping.cancel()
    await asyncio.wait([keeping])
    await first.release()
    async with asyncio.timeout(PATIENCE_S):
        grant = await waiting
    assert grant.token > token
    assert grant.note == b"here"


async def test_a_holder_that_was_stopped_learns_that_its_lease_is_taken(pair: Pair) -> None:
    clock = SystemClock()
    stopped, other = (Candidate(each, "x", name, 0.2, clock) for each, name in zip(pair, "ab", strict=True))
    await stopped.win()
    async with asyncio.timeout(PATIENCE_S):
        await other.win()
        with pytest.raises(FencedError, match="another server took it"):
            await stopped.keep()


async def test_members_know_each_other_and_the_newest_of_this_server(pair: Pair) -> None:
    counts = {"a": 1, "b": 2}
    a = members(pair.first, lambda: server("a", connections=counts["a"]), 10.0)
    b = members(pair.second, lambda: server("b", connections=counts["b"]), 10.0)
    await a.beat()
    await b.beat()
    counts["b"] = 5
    assert [(m.server.server_id, m.server.connections) for m in b.servers] == [("a", 1), ("b", 5)]
    assert await b.check(thorough=False) == "2 servers"
    await a.leave()
    await b.beat()
    assert names(b.servers) == ["b"]


async def test_two_servers_with_one_id_are_reported_once_both_stay(pair: Pair) -> None:
    a = members(pair.first, lambda: server("same", "1"), 10.0)
    b = members(pair.second, lambda: server("same", "2"), 10.0)
    for _ in range(CLASH_BEATS):
        await b.check(thorough=False)
        await a.beat()
        await b.beat()
    with pytest.raises(TransientError, match="same SERVER_ID"):
        await b.check(thorough=False)


def members(cluster: Cluster, describe: Callable[[], Server], beat_s: float) -> Members:
    return Members(cluster, describe, beat_s, SystemClock(), Metrics())


async def taken(cluster: Cluster, lease: str, holder: str) -> Grant:
    """Take a lease once its term has ended."""
    async with asyncio.timeout(PATIENCE_S):
        while (grant := await cluster.take(lease, holder, LONG_S)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return grant


async def test_a_request_is_answered_by_the_server_of_its_box(pair: Pair) -> None:
    async def answer(request: bytes) -> bytes:
        return b"re: " + request

    serving = asyncio.ensure_future(pair.second.serve("box", answer))
    assert await pair.first.ask("box", b"\x00hello", PATIENCE_S) == b"re: \x00hello"
    await serving


async def test_a_request_that_nobody_serves_has_no_answer(pair: Pair) -> None:
    with pytest.raises(TransientError):
        await pair.first.ask("nobody", b"hello", 0.1)


async def test_a_server_without_requests_looks_again(pair: Pair) -> None:
    async def answer(request: bytes) -> bytes:
        raise AssertionError(request)

    async with asyncio.timeout(PATIENCE_S):
        await pair.first.serve("empty", answer)


async def test_a_message_on_the_channel_reaches_all_who_read_it(pair: Pair) -> None:
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(aclosing(each.messages())) for each in pair]
        received = [asyncio.ensure_future(anext(reader)) for reader in readers]
        number = 0
        async with asyncio.timeout(PATIENCE_S):
            while not all(each.done() for each in received):  # what is published before they read is not for them
                number += 1
                await pair.first.publish(b"\x00%d" % number)
                await asyncio.sleep(0.01)
            last = number + 1
            await pair.second.publish(b"\x00%d" % last)
            for reader, first in zip(readers, received, strict=True):
                expected = int(first.result()[1:]) + 1
                while expected <= last:
                    assert await anext(reader) == b"\x00%d" % expected
                    expected += 1
