"""The commands that create recordings and print them."""

import asyncio
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from headrace.bus import BusSettings
from headrace.bus.memory import MemoryBus
from headrace.cli.serving import generation_of, run
from headrace.config import Config
from headrace.ingest.pipeline import Pipeline
from headrace.model.errors import BadInputError
from headrace.model.events import Message
from headrace.protocol.frames import event_frame
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.signals import stopped_by_signals
from headrace.runtime.supervise import Supervisor
from headrace.service.stream import chosen
from headrace.service.updates import load_programs, new_outlet, new_recorder
from headrace.service.worker import lend
from headrace.sources.recording import Recording

PROGRESS_S = 5.0


def record(config: Config, file: Path, *, seconds: float | None, append: bool = False) -> int:
    """Write the updates of the configured nodes to `file`, and report progress. `append` continues an existing file.

    Raises ConfigError for a path where no recording can be created.
    """
    run(_record(config, file, seconds, append))
    return 0


async def _record(config: Config, file: Path, seconds: float | None, append: bool) -> None:
    stop = asyncio.Event()
    clock = SystemClock()
    intake = new_outlet("recorder")
    recorder = new_recorder(file, config, clock, append=append)

    async def report() -> None:
        while True:
            await clock.sleep(PROGRESS_S)
            print(f"{recorder.recorded} updates recorded", file=sys.stderr)

    async def end() -> None:
        if seconds is not None:
            await clock.sleep(seconds)
            stop.set()

    with stopped_by_signals(stop):
        async with lend(config, clock, Metrics()) as context, Supervisor(clock) as tasks:
            sources = [await choice.open(context) for choice in chosen(config)]
            writing = tasks.start("recorder", "run", partial(recorder.run, intake))
            others = [
                *(tasks.start("source", "run", partial(source.run, intake)) for source in sources),
                tasks.start("recorder", "progress", report),
                tasks.start("recorder", "end", end),
            ]
            await stop.wait()
            for task in others:
                task.cancel()
            await asyncio.wait(others)
            intake.close()
            await asyncio.wait([writing])
    print(f"{recorder.recorded} updates recorded in {file}", file=sys.stderr)


def print_replay(
    config: Config, file: Path, *, speed: float | None, topics: Sequence[str] | None, out: BinaryIO
) -> int:
    """Print the frames that a client of these topics (default: all) would receive, one a line.

    Every run prints the same lines.
    """
    run(_print_replay(config, file, speed, frozenset(topics or ()), out))
    return 0


async def _print_replay(config: Config, file: Path, speed: float | None, topics: frozenset[str], out: BinaryIO) -> None:
    clock = SystemClock()
    bus = MemoryBus(config.section(BusSettings), clock, generation_of(file))
    pipeline = Pipeline(load_programs(config), clock, Metrics())
    outlet = new_outlet("ingest")

    def write(messages: Sequence[Message]) -> None:
        out.writelines(event_frame(message) + b"\n" for message in messages if not topics or message.topic in topics)

    bus.subscribe(write, kinds=None)
    writer = await bus.claim("ingest")
    async with Supervisor(clock) as tasks:
        flow = tasks.start("ingest", "pipeline", partial(pipeline.run, outlet, writer))
        ending = await Recording(file, clock, speed=speed).run(outlet)
        outlet.close()
        await asyncio.wait([flow])
    out.flush()
    if ending.how == "failed":
        raise BadInputError("recording unreadable", ending.detail)
