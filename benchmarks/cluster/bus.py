"""Measure the bus on one Valkey beside redis-py publishing the same: messages a second, and latency at 1,000 a second.

Run in the clone: PYTHONPATH=. python benchmarks/cluster/bus.py [messages]. One publisher and one reader in one
process, with a server of their own; messages of 300 bytes on 100 topics, in batches of 16. The CPU is that of both
together.
"""

import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from statistics import quantiles

import redis.asyncio
from tests.contracts.contexts import lent

from headrace.bus.redis import RedisBus, RedisBusSettings
from headrace.model.events import Publication, TopicHandle
from headrace.runtime.clock import SystemClock
from headrace.testing.valkey import server

BODY = b'"event_id":"x","data":"' + b"x" * 277 + b'"'
BATCH = 16
TOPICS = [f"trades:{number}" for number in range(100)]


async def over_bus(url: str, count: int, rate: float | None) -> tuple[float, list[float]]:
    """Return the seconds until the reader had all messages, and the latency of each batch in seconds."""
    async with AsyncExitStack() as stack:
        buses = []
        for _ in range(2):
            context = await stack.enter_async_context(lent(SystemClock()))
            bus = await RedisBus.open(RedisBusSettings(redis_url=url, redis_prefix=f"b{count}{rate}"), context)
            stack.push_async_callback(bus.close)
            buses.append(bus)
        done, got, sent, late = asyncio.Event(), 0, list[float](), list[float]()

        def take(messages: object) -> None:
            nonlocal got
            for _ in messages:  # type: ignore[attr-defined]
                if got % BATCH == 0:
                    late.append(time.perf_counter() - sent[got // BATCH])
                got += 1
            if got >= count:
                done.set()

        buses[1].subscribe(take, kinds=None)
        writer = await buses[0].claim("ingest")
        handles = [TopicHandle(topic) for topic in TOPICS]

        async def publish(first: int) -> None:
            batch = [Publication((handles[n % 100],), "event", BODY) for n in range(first, first + BATCH)]
            sent.append(time.perf_counter())
            await writer.publish(writer.batch(batch))

        seconds = await paced(publish, count, rate)
        await done.wait()
        return max(seconds, time.perf_counter() - sent[0]), late


async def over_pubsub(url: str, count: int, rate: float | None) -> tuple[float, list[float]]:
    """The same with one PUBLISH a message on a channel for each topic, a batch in one pipeline."""
    publisher, reader = redis.asyncio.Redis.from_url(url), redis.asyncio.Redis.from_url(url)
    listening = reader.pubsub()
    await listening.psubscribe("trades:*")
    sent, late = list[float](), list[float]()

    async def read() -> None:
        got = 0
        async for message in listening.listen():
            if message["type"] == "pmessage":
                if got % BATCH == 0:
                    late.append(time.perf_counter() - sent[got // BATCH])
                got += 1
            if got >= count:
                return

    reading = asyncio.create_task(read())

    async def publish(first: int) -> None:
        pipeline = publisher.pipeline(transaction=False)
        for number in range(first, first + BATCH):
            pipeline.publish(TOPICS[number % 100], BODY)
        sent.append(time.perf_counter())
        await pipeline.execute()

    await paced(publish, count, rate)
    await reading
    seconds = time.perf_counter() - sent[0]
    await listening.aclose()
    await publisher.aclose()
    await reader.aclose()
    return seconds, late


async def paced(publish, count: int, rate: float | None) -> float:  # type: ignore[no-untyped-def]
    """Publish batches, a few in flight, or at `rate` messages a second."""
    start = time.perf_counter()
    waiting: set[asyncio.Task[None]] = set()
    for first in range(0, count, BATCH):
        if rate is not None:
            await asyncio.sleep(max(0.0, start + first / rate - time.perf_counter()))
        waiting.add(asyncio.create_task(publish(first)))
        await asyncio.sleep(0)
        if len(waiting) >= (16 if rate is None else 64):
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if waiting:
        await asyncio.wait(waiting)
    return time.perf_counter() - start


def main() -> None:
    count = (int(sys.argv[1]) if len(sys.argv) > 1 else 50_000) // BATCH * BATCH
    with server() as valkey:
        for name, way in (("headrace bus", over_bus), ("redis-py pub/sub", over_pubsub)):
            seconds = cpu_s = float("inf")
            for run in range(3):
                before = time.process_time()
                seconds = min(seconds, asyncio.run(way(valkey.url, count + BATCH * run, None))[0])
                cpu_s = min(cpu_s, time.process_time() - before)
            _, late = asyncio.run(way(valkey.url, 3_200, 1_000.0))
            marks = quantiles(late, n=100)
            print(
                json.dumps(
                    {
                        "way": name,
                        "messages_per_s": round(count / seconds),
                        "cpu_us_per_message": round(cpu_s / count * 1e6, 1),
                        "p50_ms": round(marks[49] * 1000, 2),
                        "p99_ms": round(marks[98] * 1000, 2),
                    }
                )
            )


if __name__ == "__main__":
    main()
