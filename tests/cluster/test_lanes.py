"""A lane is published on from any server, by the one that has its lease; what is repeated is published once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from headrace.bus import Batch, BusSettings
from headrace.bus.memory import MemoryBus
from headrace.cluster.lanes import LaneWriter, lead
from headrace.cluster.leadership import Candidate
from headrace.cluster.memory import MemoryCluster
from headrace.model.errors import FencedError, TransientError
from headrace.model.events import Label, Position, Publication
from headrace.runtime.clock import SystemClock

TOPIC = "app:news"


def body(number: int) -> bytes:
    return b'"event_id":"e%d","data":{}' % number


def news(number: int, topic: str = TOPIC) -> list[Publication]:
    return [Publication.on(topic, "event", body(number), Label("k", f"e{number}", None, certain=True))]


class Unanswered(MemoryCluster):
    """A directory that loses the answers while `lost` is set."""

    lost = False

    async def ask(self, box: str, request: bytes, patience_s: float) -> bytes:
        answer = await super().ask(box, request, patience_s)
        if self.lost:
            raise TransientError("the answer was lost")
        return answer


class Servers:
    """Two servers on one bus: the first has the lane."""

    def __init__(self, lane: str) -> None:
        self.bus = MemoryBus(BusSettings(), SystemClock(), "gen")
        self.cluster = Unanswered(SystemClock())
        self.first, self.second = (LaneWriter(lane, self.cluster, name) for name in "ab")  # type: ignore[arg-type]

    async def bodies(self, topic: str = TOPIC) -> list[bytes]:
        return [message.body for message in (await self.bus.history(topic, None, 100)).messages]


@asynccontextmanager
async def servers(lane: str = "broadcasts") -> AsyncIterator[Servers]:
    both = Servers(lane)
    both.first.own = await both.bus.claim(both.first.lane, 7)
    serving = asyncio.ensure_future(both.first.serve())
    yield both
    serving.cancel()
    await asyncio.wait([serving])


async def test_a_batch_is_published_by_the_server_that_has_the_lane() -> None:
    async with servers() as both:
        await both.first.publish(both.first.batch(news(1)))
        found = await both.second.publish(both.second.batch(news(2), positions=True))
        assert await both.bodies() == [body(1), body(2)]
        assert found == [Position("gen", 2)]
        (_, second) = (await both.bus.history(TOPIC, None, 100)).messages
        assert second.label == Label("k", "e2", None, certain=True)


async def test_a_batch_whose_answer_was_lost_is_published_once() -> None:
    async with servers() as both:
        batch = both.second.batch(news(1), positions=True)
        both.cluster.lost = True
        with pytest.raises(TransientError):
            await both.second.publish(batch)
        both.cluster.lost = False
        assert await both.second.publish(batch) == [Position("gen", 1)]
        assert await both.bodies() == [body(1)]


async def test_without_a_server_that_has_the_lane_the_outcome_is_unknown() -> None:
    cluster = MemoryCluster(SystemClock())
    writer = LaneWriter("broadcasts", cluster, "a")
    with pytest.raises(TransientError, match="nobody answers"):
        await writer.publish(writer.batch(news(1)))


async def test_a_server_whose_lane_was_claimed_by_another_answers_with_an_error() -> None:
    async with servers() as both:
        await both.bus.claim("broadcasts", 8)
        with pytest.raises(TransientError, match="token"):
            await both.second.publish(both.second.batch(news(1)))
        assert await both.bodies() == []


async def test_a_server_that_lost_the_lane_publishes_by_the_server_that_has_it() -> None:
    async with servers() as both:
        both.second.own = await both.bus.claim("broadcasts", 6 + 2)
        both.second.own, both.first.own = both.first.own, both.second.own  # the second has the older token
        batch = both.second.batch(news(1))
        with pytest.raises(TransientError, match="token"):
            await both.second.publish(batch)
        await both.second.publish(batch)
        assert await both.bodies() == [body(1)]


async def test_a_request_that_cannot_be_read_is_answered_with_an_error() -> None:
    async with servers() as both:
        assert b"can't be read" in await both.cluster.ask("lane:broadcasts", b"\xc1", 5.0)


async def test_an_order_event_that_two_servers_send_is_published_once() -> None:
    topic = "order:1"
    async with servers("orders") as both:
        await both.first.publish(both.first.batch(news(1, topic)))
        await both.second.publish(both.second.batch([*news(1, topic), *news(2, topic)]))
        await both.first.publish(both.first.batch(news(2, topic)))
        assert await both.bodies(topic) == [body(1), body(2)]


async def test_the_writer_of_a_lease_that_was_taken_is_refused_by_the_bus() -> None:
    clock, both = SystemClock(), Servers("broadcasts")
    stopped = Candidate(both.cluster, "x", "a", 0.2, clock)
    grant = await stopped.win()
    old = await both.bus.claim("broadcasts", grant.token)
    began: list[bytes] = []
    other = Candidate(both.cluster, "x", "b", 0.2, clock)
    leading = asyncio.ensure_future(lead(other, both.second, both.bus, clock, lambda _writer, note: began.append(note)))
    async with asyncio.timeout(20):
        while not began:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with pytest.raises(FencedError):
            await old.publish(Batch(0, news(1)))
        with pytest.raises(FencedError):
            await stopped.keep()
    await both.second.publish(both.second.batch(news(2)))
    assert await both.bodies() == [body(2)]
    leading.cancel()
    await asyncio.wait([leading])
