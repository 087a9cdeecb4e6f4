"""The same recording gives byte-identical client streams, whatever the pace."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import headrace
from headrace.bus import BusSettings
from headrace.bus.memory import MemoryBus
from headrace.decoders.registry import Programs
from headrace.ingest.pipeline import Pipeline
from headrace.model.events import Message
from headrace.model.updates import AnyUpdate
from headrace.protocol.frames import EventFramer
from headrace.runtime.channel import Channel
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from headrace.sources.recording import Recording, header_of
from tests.data.make_demo import lap

DEMO = Path(headrace.__file__).parent / "data" / "demo.hrec"
PROGRAMS = Programs.load()


async def streams(speed: float | None) -> dict[str, bytes]:
    """What clients of each topic receive of one replay, in bytes."""
    clock, outlet = ManualClock(), Channel[AnyUpdate](7)
    header = await asyncio.to_thread(header_of, DEMO)
    bus = MemoryBus(BusSettings(), clock, header.id)
    received: dict[str, bytes] = {}
    framer = EventFramer()

    def receive(messages: Sequence[Message]) -> None:
        for message in messages:
            received[message.topic] = received.get(message.topic, b"") + framer(message)

    bus.attach(receive)

    async def play() -> None:
        ending = await Recording(DEMO, clock, speed=speed).run(outlet)
        assert ending.how == "exhausted"
        outlet.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(Pipeline(PROGRAMS, clock, Metrics()).run(outlet, bus))
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
    updates = lap()
    length_s = (updates[-1].received_ns - updates[0].received_ns) / 1e9
    assert 40 <= length_s <= 90
    pipeline = Pipeline(PROGRAMS, ManualClock(), Metrics())
    messages = [(m.kind, m.topic, m.body) for update in updates for m in pipeline.apply(update)]
    trades = [
        body for kind, topic, body in messages if kind == "event" and b'"type":"Trade"' in body and len(topic) < 30
    ]
    assert len(trades) >= 40
    assert not pipeline.measures.bad
