"""Faults by chance, with new writers among them: what every process got is compared with what was published."""

import asyncio
import random
from collections import defaultdict
from typing import Any

import pytest

from headrace.bus import Change
from headrace.bus.redis_writer import RedisWriter
from headrace.model.errors import FencedError, TransientError
from headrace.model.events import Message
from headrace.testing.valkey import Valkey
from tests.bus.shared import Process, Processes, do, processes, say, until
from tests.redis.servers import new_prefix, started

SETTINGS: dict[str, Any] = {"redis_timeout_s": 0.5, "redis_retries": 0, "local_after_s": 0.4, "history_size": 100_000}
FAULTS = ("flush", "kill", "snapshot", "pause", "cut", "new writer", "kill and new writer", "flush and new writer")
TOPICS = ("slots", "token:A", "token:B")


class Run:
    """A server, three processes, and the one that writes. `answered` are the batches with an answer."""

    def __init__(self, seed: int, valkey: Valkey, opener: Processes) -> None:
        self.chance, self.valkey, self.opener = random.Random(seed), valkey, opener
        self.each: list[Process] = []
        self.writer: RedisWriter
        self.count = 0
        self.answered: list[str] = []

    async def begin(self) -> None:
        self.each = [await self.opener.open() for _ in range(3)]
        await self.claim()

    async def claim(self) -> None:
        """Let one of the processes be the next writer, as soon as the server lets it."""
        process = self.chance.choice(self.each)
        async with asyncio.timeout(20):
            while True:
                try:
                    self.writer = await process.writer()
                    return
                except TransientError:
                    await asyncio.sleep(0.02)

    async def publish(self) -> None:
        self.count += 1
        body = str(self.count)
        try:
            await say(self.writer, *(f"{topic}/{body}" for topic in self.chance.sample(TOPICS, 2)))
            self.answered.append(body)
        except (TransientError, FencedError):
            pass

    async def fault(self) -> None:
        kind = self.chance.choice(FAULTS)
        if kind == "snapshot":
            await do(self.valkey.command, "SAVE")
        if "flush" in kind:
            await do(self.valkey.command, "FLUSHALL")
        if "kill" in kind:
            await do(self.valkey.kill)
            await do(self.valkey.start)
        if kind == "pause":
            await do(self.valkey.pause)
            await asyncio.sleep(self.chance.uniform(0, 0.8))
            await do(self.valkey.resume)
        if kind == "cut":
            await do(self.valkey.command, "CLIENT KILL TYPE normal")
        if "new writer" in kind:
            await self.claim()


def meanings(each: list[Process]) -> dict[Any, set[bytes]]:
    """Position → bodies that any process got there."""
    found: dict[Any, set[bytes]] = defaultdict(set)
    for process in each:
        for message in process.got:
            found[message.topic, message.position].add(message.body)
    return found


def undeclared(process: Process) -> list[str]:
    """Return jumps and repeats that nothing declared."""
    faults, last = list[str](), dict[str, Message]()
    for item in process.log:
        if isinstance(item, Change):
            for topic in item.topics:
                last.pop(topic, None)
            continue
        before = last.get(item.topic)
        if before is not None and (item.epoch, item.offset) != (before.epoch, before.offset + 1):
            faults.append(f"{item.topic} {item.position} after {before.position}")
        last[item.topic] = item
    return faults


async def run(seed: int, seconds: float) -> None:
    async with started() as valkey, processes(valkey.url, new_prefix(), **SETTINGS) as opener:
        this = Run(seed, valkey, opener)
        await this.begin()
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            for _ in range(this.chance.randrange(1, 60)):
                await this.publish()
            publishing = asyncio.create_task(publish_on(this))
            await this.fault()
            publishing.cancel()
            await asyncio.wait([publishing])
        await until(lambda: not this.writer.local and this.writer.trouble is None)
        (final,) = await say(this.writer, "slots/final")
        await until(lambda: all(process.got and process.got[-1].body == b"final" for process in this.each))
        for process in this.each:
            assert undeclared(process) == [], f"seed {seed}"
            assert process.got[-1].position == final
        assert [where for where, bodies in meanings(this.each).items() if len(bodies) > 1] == [], f"seed {seed}"
        assert len(this.answered) > 20
        tops = [process.bus.topics() for process in this.each]
        assert tops[0] == tops[1] == tops[2]


async def publish_on(this: Run) -> None:
    """Publish while a fault lasts."""
    while True:
        await this.publish()
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("seed", range(2))
async def test_no_loss_is_undeclared_and_no_position_has_two_meanings(seed: int) -> None:
    await run(seed, 1.0)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 112))
async def test_the_same_for_longer(seed: int) -> None:
    await run(seed, 20.0)
