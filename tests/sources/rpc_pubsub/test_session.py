"""One connection, with time held still."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from headrace.model.updates import AnyUpdate, LogsUpdate
from headrace.runtime.channel import Channel
from headrace.runtime.clock import ManualClock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.sources.connection import Connection
from headrace.sources.health import SourceHealth
from headrace.sources.merge import MergedStream
from headrace.sources.metrics import SourceMetrics
from headrace.sources.rpc_pubsub.session import PubSubSession
from headrace.sources.subscriptions import SLOTS, ChainSubscription
from headrace.testing.node import ScriptedNode
from tests.sources.rpc_pubsub.rig import PROGRAM, SETTINGS

WANTED = (SLOTS, ChainSubscription("logs", PROGRAM))


class Connected:
    """A session with a node, and the outlet of its stream, which has room for few updates."""

    def __init__(self, node: ScriptedNode, clock: ManualClock, outlet: Channel[AnyUpdate], tasks: Supervisor) -> None:
        self.node, self.outlet = node, outlet
        settings = msgspec.structs.replace(SETTINGS, stall_s=10.0, tick_s=1.0, ws_urls=(node.ws_url,))
        self.stream = MergedStream(
            "rpc",
            WANTED,
            {},
            settings=settings,
            clock=clock,
            metrics=SourceMetrics(Metrics()),
            health=SourceHealth("rpc", Health(clock), settings.ws_urls, stall_slots=settings.stall_slots),
            rpc=None,
            outlet=outlet,
            tasks=tasks,
        )
        self.connection = Connection("rpc-0", 0, WANTED, settings=settings, now=clock.monotonic())
        self.stream.begin(self.connection)
        self.session = PubSubSession(self.connection, self.stream, node.ws_url, tls=None, settings=settings)

    @property
    def given_up(self) -> str | None:
        """Why the session ended itself, if it did."""
        return self.connection.parting.reason if self.connection.parting else None

    async def received(self, count: int) -> list[LogsUpdate]:
        """Return so many log updates, once they have come."""
        logs: list[LogsUpdate] = []
        while len(logs) < count:
            logs += [update for update in await self.outlet.get_batch() if isinstance(update, LogsUpdate)]
        return logs


@asynccontextmanager
async def connected(clock: ManualClock, capacity: int = 100) -> AsyncIterator[Connected]:
    async with ScriptedNode() as node, Supervisor(clock) as tasks:
        outlet: Channel[AnyUpdate] = Channel(capacity)
        made = Connected(node, clock, outlet, tasks)
        running = tasks.start("test", "session", made.session.run)
        await node.until(lambda: node.subscribed("logs") == 1)
        while not made.connection.complete:
            await turn()
        yield made
        made.connection.part("closed")
        await running
        tasks.cancel()


async def turn() -> None:
    """Let tasks that wait for a socket run."""
    await asyncio.sleep(0.001)


async def test_silence_is_given_up() -> None:
    clock = ManualClock()
    async with connected(clock) as made:
        await clock.advance(10)
        assert made.given_up is None
        await clock.advance(1)
        assert made.given_up == "silent"


async def test_a_slow_pipeline_is_no_silence_of_the_node() -> None:
    clock = ManualClock()
    async with connected(clock, capacity=1) as made:
        made.node.emit_transaction([PROGRAM])
        made.node.emit_transaction([PROGRAM])
        while not (made.connection.handing_in and len(made.outlet)):
            await turn()
        await clock.advance(100)
        assert made.given_up is None
        assert len(await made.received(2)) == 2
        await clock.advance(5)
        assert made.given_up is None
        await clock.advance(6)
        assert made.given_up == "silent"


async def test_a_node_that_sends_no_slots_is_followed_by_the_slots_of_its_updates() -> None:
    clock = ManualClock()
    async with connected(clock) as made:
        made.node.faults.dropped.add("slot")
        for _ in range(3):
            made.node.advance_slot()
            made.node.emit_transaction([PROGRAM])
            await made.received(1)
            await clock.advance(9)
            assert made.given_up is None
        made.node.emit_transaction([PROGRAM])  # a message, but no new slot
        await made.received(1)
        await clock.advance(2)
        assert made.given_up == "head_stands"


async def test_an_impossible_slot_on_a_feed_that_is_not_wanted_is_no_loss() -> None:
    async with connected(ManualClock()) as made:
        while not made.stream.head:
            made.node.advance_slot()
            await turn()
        update = LogsUpdate(
            source="rpc-0", feed="logs:other", received_ns=0, slot=10**12, signature="1", err=None, logs=()
        )
        await made.stream.take(made.connection, update, 0)
        assert made.connection.unreadable == 0
        assert len(made.outlet) == 0 or not any(isinstance(each, LogsUpdate) for each in await made.outlet.get_batch())
