"""The directory is away for a while: a server goes on with what it knew, and the holder of a lease keeps it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from headrace.cluster import Server
from headrace.cluster.leadership import Candidate
from headrace.cluster.members import Members
from headrace.cluster.redis import RedisCluster
from headrace.model.errors import FencedError, TransientError
from headrace.redis.connection import Redis
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.testing.valkey import Valkey
from tests.redis.servers import started

PATIENCE_S = 60.0


class Place:
    """A directory on a server that can be killed, and two servers' ways there."""

    def __init__(self, valkey: Valkey, first: RedisCluster, second: RedisCluster) -> None:
        self.valkey, self.first, self.second = valkey, first, second


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        valkey = await stack.enter_async_context(started())
        ways = [RedisCluster(Redis.of(valkey.url, timeout_s=1.0, retries=0), "t") for _ in range(2)]
        for way in ways:
            stack.push_async_callback(way.close)
        yield Place(valkey, *ways)


def members(cluster: RedisCluster, name: str) -> Members:
    own = Server(server_id=name, incarnation=name, version="1")
    return Members(cluster, lambda: own, 60.0, SystemClock(), Metrics())


def names(known: Members) -> list[str]:
    return [member.server.server_id for member in known.servers]


async def test_the_servers_known_before_are_shown_until_the_directory_is_back() -> None:
    async with place() as at:
        a, b = members(at.first, "a"), members(at.second, "b")
        await a.beat()
        await b.beat()
        await asyncio.to_thread(at.valkey.kill)
        await b.beat()
        assert (names(b), b.current) == (["a", "b"], False)
        with pytest.raises(TransientError):
            await b.check(thorough=False)
        await asyncio.to_thread(at.valkey.start)  # without its data
        await b.beat()
        assert (names(b), b.current) == (["b"], True)
        await a.beat()
        await b.beat()
        assert names(b) == ["a", "b"]


async def test_a_holder_keeps_its_lease_over_a_directory_that_lost_its_data() -> None:
    clock = SystemClock()
    async with place() as at:
        holder = Candidate(at.first, "x", "a", 0.4, clock, lambda: b"note")
        other = Candidate(at.second, "x", "b", 0.4, clock)
        token = (await holder.win()).token
        keeping = asyncio.ensure_future(holder.keep())
        await asyncio.to_thread(at.valkey.kill)
        waiting = asyncio.ensure_future(other.win())
        await asyncio.wait([keeping, waiting], timeout=1.0)  # more than the lease
        assert not keeping.done()
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])
        await asyncio.to_thread(at.valkey.start)
        async with asyncio.timeout(PATIENCE_S):
            while await at.second.keep("x", "probe", 1, 60.0, b""):  # noqa: ASYNC110  (true until the holder is back)
                await asyncio.sleep(0.01)
        assert await at.first.keep("x", "a", token, 60.0, b"note")
        keeping.cancel()
        await asyncio.wait([keeping])


async def test_a_lease_that_was_taken_after_the_loss_is_refused_to_the_former_holder() -> None:
    clock = SystemClock()
    async with place() as at:
        holder = Candidate(at.first, "x", "a", 0.4, clock)
        former = (await holder.win()).token
        await asyncio.to_thread(at.valkey.kill)
        await asyncio.to_thread(at.valkey.start)
        grant = await at.second.take("x", "b", 60.0)
        assert grant is not None
        assert grant.token > former  # though nothing of the former lease is known
        with pytest.raises(FencedError):
            async with asyncio.timeout(PATIENCE_S):
                await holder.keep()
