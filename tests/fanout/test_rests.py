"""Test when the hub writes, on a clock that only moves where a write or the test says so."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from headrace.bus import BusSettings
from headrace.fanout.client import Client
from headrace.fanout.hub import WRITES_PER_TURN, Hub
from headrace.gateway.settings import GatewaySettings
from headrace.model.events import Publication
from headrace.protocol.session import Subscribe
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from tests.local_bus import LocalBus

TICK_S = 0.01


class PassingClock(ManualClock):
    """A manual clock that work may move on."""

    def pass_by(self, seconds: float) -> None:
        """Let this time pass while nobody else runs."""
        self._move_to(self.monotonic() + seconds)


class SlowWire:
    """A transport on which a write of event frames takes `took_s`; `meanwhile` happens in the first one."""

    def __init__(self, clock: PassingClock) -> None:
        self._clock, self.took_s = clock, 0.0
        self.meanwhile: Callable[[], None] | None = None
        self.writes: list[tuple[float, int]] = []  # when, and how many event frames

    def write(self, data: bytes) -> None:
        frames = data.count(b'"type":"event"')
        if frames:
            self.writes.append((round(self._clock.monotonic(), 6), frames))
            happens, self.meanwhile = self.meanwhile, None
            if happens is not None:
                self._clock.pass_by(self.took_s / 2)
                happens()
                self._clock.pass_by(self.took_s / 2)
            else:
                self._clock.pass_by(self.took_s)

    def get_write_buffer_size(self) -> int:
        return 0


class Served:
    """A hub that runs, with one client of the topic `slots`."""

    def __init__(self, hub: Hub, bus: LocalBus, clock: PassingClock, wire: SlowWire) -> None:
        self.hub, self.bus, self.clock, self.wire = hub, bus, clock, wire

    def publish(self) -> None:
        """One message, now."""
        writing = self.bus.publish([Publication.on("slots", "event", b'"data":{}')])
        with pytest.raises(StopIteration):
            writing.send(None)

    async def at(self, moment_s: float) -> None:
        await self.clock.advance(moment_s - self.clock.monotonic())


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    clock, metrics = PassingClock(), Metrics()
    bus, limits = LocalBus(BusSettings(), clock, "g"), GatewaySettings(tick_ms=TICK_S * 1000)
    async with Supervisor(clock) as supervisor:
        hub = Hub(bus, clock, lambda: limits, metrics, supervisor)
        running = asyncio.create_task(hub.run())
        wire = SlowWire(clock)
        client = Client(wire)
        hub.add(client)
        hub.subscribe(client, Subscribe("slots", None, None))
        try:
            one = Served(hub, bus, clock, wire)
            await one.at(1.0)
            yield one
        finally:
            running.cancel()
            await asyncio.wait([running])


async def test_a_message_after_silence_is_written_at_once() -> None:
    async with served() as one:
        one.publish()
        await one.at(1.0)
        assert one.wire.writes == [(1.0, 1)]


async def test_messages_within_a_tick_of_a_write_are_one_write_a_tick_after_it() -> None:
    async with served() as one:
        for moment_s in (1.0, 1.002, 1.005, 1.009):
            await one.at(moment_s)
            one.publish()
        await one.at(2.0)
        assert one.wire.writes == [(1.0, 1), (1.01, 3)]


async def test_a_message_that_came_during_a_long_write_is_written_right_after_it() -> None:
    async with served() as one:
        one.wire.took_s, one.wire.meanwhile = 0.05, one.publish
        one.publish()
        await one.at(1.0)
        assert one.wire.writes == [(1.0, 1), (1.05, 1)]


async def test_a_message_that_came_during_a_short_write_waits_until_it_is_one_tick_old() -> None:
    async with served() as one:
        one.wire.took_s, one.wire.meanwhile = 0.004, one.publish
        one.publish()
        await one.at(2.0)
        assert one.wire.writes == [(1.0, 1), (1.012, 1)]


async def test_a_burst_that_is_sent_in_pieces_rests_a_tick_after_each() -> None:
    async with served() as one:
        await one.bus.publish([Publication.on("slots", "event", b'"data":"%b"' % (b"x" * 40_000)) for _ in range(3)])
        await one.at(2.0)
        assert one.wire.writes == [(1.0, 1), (1.01, 1), (1.02, 1)]


async def test_others_have_turns_on_the_loop_within_a_write_to_many_clients() -> None:
    async with served() as one:
        turns_at_write: list[int] = []
        turns = 0

        class CountingWire(SlowWire):
            def write(self, data: bytes) -> None:
                if b'"type":"event"' in data:
                    turns_at_write.append(turns)

        for _ in range(3 * WRITES_PER_TURN):
            client = Client(CountingWire(one.clock))
            one.hub.add(client)
            one.hub.subscribe(client, Subscribe("slots", None, None))
        await one.at(1.5)
        one.publish()
        while len(turns_at_write) < 3 * WRITES_PER_TURN:
            turns += 1
            await asyncio.sleep(0)
        assert len(set(turns_at_write)) >= 3
