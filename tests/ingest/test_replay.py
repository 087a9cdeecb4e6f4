"""The same recording gives byte-identical client streams, whatever the pace."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import headrace
from headrace.bus import BusSettings
from headrace.decoders.registry import Programs
from headrace.model.events import Message
from headrace.model.updates import AnyUpdate
from headrace.protocol.frames import event_frame
from headrace.runtime.channel import Channel
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from headrace.sources.recording import Recording, header_of
from tests.data.make_demo import lap
from tests.local_bus import LocalBus
from tests.pipelines import SpreadPipeline

DEMO = Path(headrace.__file__).parent / "data" / "demo.hrec"
PROGRAMS = Programs.load()


async def streams(speed: float | None) -> dict[str, bytes]:
    """What clients of each topic receive of one replay, in bytes."""
    clock, outlet = ManualClock(), Channel[AnyUpdate](7)
    header = await asyncio.to_thread(header_of, DEMO)
    bus = LocalBus(BusSettings(), clock, header.id)
    received: dict[str, bytes] = {}

    def receive(messages: Sequence[Message]) -> None:
        for message in messages:
            received[message.topic] = received.get(message.topic, b"") + event_frame(message)

    bus.attach(receive)

    async def play() -> None:
        ending = await Recording(DEMO, clock, speed=speed).run(outlet)
        assert ending.how == "exhausted"
        outlet.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(SpreadPipeline(PROGRAMS, clock, Metrics()).run(outlet, bus.writers["ingest"]))
        playing = group.create_task(play())
        while not playing.done():
            await clock.advance(0.5)
    return received


async def test_the_same_file_gives_the_same_bytes_at_any_speed() -> None:
    as_fast_as_possible = await streams(None)
    assert as_fast_as_possible == await streams(None)
    assert as_fast_as_possible == await streams(10.0)
    assert len(as_fast_as_possible) > 100
    assert b'"topic":"trades:pump","epoch":"demo1","offset":"1",' in as_fast_as_possible["trades:pump"]


async def test_the_shipped_demo_is_what_its_script_makes() -> None:
    outlet: Channel[AnyUpdate] = Channel(10_000)
    await Recording(DEMO, ManualClock(), speed=None).run(outlet)
    assert await outlet.get_batch(10_000) == await asyncio.to_thread(lap)


def test_the_demo_is_lively() -> None:
    """Many trades in half a minute, and whoever follows the trades of the examples never waits long for the next."""
    updates = lap()
    pipeline = SpreadPipeline(PROGRAMS, ManualClock(), Metrics())
    trades = [
        (update.received_ns / 1e9, message.topic)
        for update in updates
        for message in pipeline.apply(update)
        if message.kind == "event" and b'"type":"Trade"' in message.body and len(message.topic) < 30
    ]
    assert len(trades) >= 40
    begin_s, end_s = updates[0].received_ns / 1e9, updates[-1].received_ns / 1e9
    assert 25 <= end_s - begin_s <= 60
    seen_s = [begin_s, *(at_s for at_s, topic in trades if topic == "trades:pump"), end_s]
    assert max(later - earlier for earlier, later in pairwise(seen_s)) < 7.5
    assert not pipeline.measures.bad
