"""What channels do when full, when closed, when cancelled and when many producers wait."""

import asyncio
from collections import deque
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.runtime.channel import Channel, ChannelClosed, ChannelFull, WhenFull
from headrace.runtime.clock import ManualClock
from headrace.runtime.supervise import Supervisor


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_block_waits_for_room() -> None:
    channel: Channel[int] = Channel(2)
    await channel.put(1)
    await channel.put(2)
    assert not channel.put_nowait(3)
    async with Supervisor(ManualClock()) as supervisor:
        blocked = supervisor.start("test", "put", lambda: channel.put(3))
        await settle()
        assert not blocked.done()
        assert len(channel) == 2
        assert await channel.get_batch(1) == [1]
        await blocked
    assert await channel.get_batch() == [2, 3]
    assert (channel.received, channel.dropped) == (3, 0)


async def test_drop_oldest_counts_what_it_dropped() -> None:
    channel: Channel[int] = Channel(3, "drop_oldest")
    for number in range(10):
        await channel.put(number)
    assert await channel.get_batch() == [7, 8, 9]
    assert (channel.received, channel.dropped) == (10, 7)


async def test_disconnect_closes_and_says_so() -> None:
    channel: Channel[int] = Channel(1, "disconnect", name="client-7")
    await channel.put(1)
    with pytest.raises(ChannelFull, match="client-7"):
        await channel.put(2)
    assert channel.closed
    with pytest.raises(ChannelClosed, match="client-7"):
        channel.put_nowait(3)
    assert await channel.get_batch() == [1]
    with pytest.raises(ChannelClosed):
        await channel.get_batch()


async def test_close_refuses_the_blocked_and_keeps_what_is_in() -> None:
    channel: Channel[int] = Channel(1)
    await channel.put(1)
    refused = []

    async def put(number: int) -> None:
        try:
            await channel.put(number)
        except ChannelClosed:
            refused.append(number)

    async with Supervisor(ManualClock()) as supervisor:
        for number in (2, 3):
            supervisor.start("test", f"put-{number}", lambda n=number: put(n))  # type: ignore[misc]
        await settle()
        channel.close()
        channel.close()
    assert refused == [2, 3]
    assert await channel.get_batch() == [1]


async def test_close_wakes_a_waiting_receiver() -> None:
    channel: Channel[int] = Channel(1)
    async with Supervisor(ManualClock()) as supervisor:

        async def receive() -> None:
            with pytest.raises(ChannelClosed):
                await channel.get_batch()

        supervisor.start("test", "receive", receive)
        await settle()
        channel.close()


async def test_no_blocked_producer_starves() -> None:
    channel: Channel[str] = Channel(1)
    async with Supervisor(ManualClock()) as supervisor:

        async def produce(name: str) -> None:
            while True:
                await channel.put(name)

        for name in "abcde":
            supervisor.start("test", name, lambda n=name: produce(n))  # type: ignore[misc]
        await settle()
        got = "".join([(await channel.get_batch(1))[0] for _ in range(500) if await asyncio.sleep(0, True)])
        supervisor.cancel()
    counts = [got.count(name) for name in "abcde"]
    assert max(counts) - min(counts) <= 2, counts


async def test_nobody_pushes_in_before_the_blocked() -> None:
    channel: Channel[int] = Channel(1)
    await channel.put(1)
    async with Supervisor(ManualClock()) as supervisor:
        supervisor.start("test", "put", lambda: channel.put(2))
        await settle()
        assert await channel.get_batch() == [1]
        assert not channel.put_nowait(3)  # the room already belongs to 2
    assert await channel.get_batch() == [2]


async def test_a_cancelled_producer_leaves_no_item_and_wakes_nobody_wrongly() -> None:
    channel: Channel[int] = Channel(1)
    await channel.put(1)
    async with Supervisor(ManualClock()) as supervisor:
        two = supervisor.start("test", "two", lambda: channel.put(2))
        supervisor.start("test", "three", lambda: channel.put(3))
        await settle()
        two.cancel()
        assert await channel.get_batch() == [1]  # before the cancelled task could run
    assert await channel.get_batch() == [3]


async def test_cancelled_producers_leave_no_memory_behind() -> None:
    channel: Channel[int] = Channel(1)
    await channel.put(1)
    for _ in range(100):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(channel.put(2), 0.0001)
    assert not channel._blocked


async def test_a_cancelled_receiver_loses_nothing() -> None:
    channel: Channel[int] = Channel(2)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(channel.get_batch(), 0)
    await channel.put(1)
    assert await channel.get_batch() == [1]


def test_senseless_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="capacity is 0"):
        Channel(0)
    with pytest.raises(ValueError, match="limit is 0"):
        asyncio.run(Channel[int](1).get_batch(0))


class Model:
    """A deque with the rules of the class docstring, no waiting."""

    def __init__(self, capacity: int, when_full: WhenFull) -> None:
        self.capacity, self.when_full = capacity, when_full
        self.items: deque[int] = deque()
        self.received = self.dropped = 0
        self.closed = False

    def put(self, item: int) -> str:
        if self.closed:
            return "closed"
        if len(self.items) == self.capacity:
            if self.when_full == "block":
                return "no room"
            if self.when_full == "disconnect":
                self.closed = True
                return "full"
            self.items.popleft()
            self.dropped += 1
        self.items.append(item)
        self.received += 1
        return "in"

    def get(self, limit: int) -> list[int]:
        return [self.items.popleft() for _ in range(min(limit, len(self.items)))]


def put(channel: Channel[int], item: int) -> str:
    try:
        return "in" if channel.put_nowait(item) else "no room"
    except ChannelClosed:
        return "closed"
    except ChannelFull:
        return "full"


@given(
    st.integers(1, 5),
    st.sampled_from(get_args(WhenFull)),
    st.lists(st.one_of(st.just("put"), st.integers(1, 6), st.just("close")), max_size=60),
)
def test_same_as_a_deque(capacity: int, when_full: WhenFull, steps: list[str | int]) -> None:
    async def run() -> None:
        channel: Channel[int] = Channel(capacity, when_full)
        model = Model(capacity, when_full)
        for number, step in enumerate(steps):
            if step == "put":
                assert put(channel, number) == model.put(number)
            elif step == "close":
                channel.close()
                model.closed = True
            elif model.items:
                assert await channel.get_batch(int(step)) == model.get(int(step))
            assert (len(channel), channel.received, channel.dropped) == (
                len(model.items),
                model.received,
                model.dropped,
            )
            assert channel.closed == model.closed

    asyncio.run(run())


@given(st.integers(1, 4), st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(1, 5), st.data())
def test_every_item_arrives_once_in_its_producer_s_order(
    capacity: int, amounts: list[int], limit: int, data: st.DataObject
) -> None:
    """With producers that block, some cancelled at a random moment: whole and in order up to where they were cut."""
    cut = data.draw(st.sets(st.integers(0, len(amounts) - 1)))
    cut_after = data.draw(st.integers(0, 20))

    async def run() -> None:
        channel: Channel[tuple[int, int]] = Channel(capacity)
        put_ok: dict[int, int] = dict.fromkeys(range(len(amounts)), 0)
        got: list[tuple[int, int]] = []

        async def produce(producer: int, amount: int) -> None:
            for number in range(amount):
                await channel.put((producer, number))
                put_ok[producer] += 1

        async with Supervisor(ManualClock()) as supervisor:
            tasks = [
                supervisor.start("test", str(p), lambda p=p, n=n: produce(p, n))  # type: ignore[misc]
                for p, n in enumerate(amounts)
            ]
            rounds = 0
            while not all(task.done() for task in tasks) or len(channel):
                if rounds == cut_after:
                    for producer in cut:
                        tasks[producer].cancel()
                rounds += 1
                await asyncio.sleep(0)
                if len(channel):
                    got += await channel.get_batch(limit)
        for producer, amount in enumerate(amounts):
            numbers = [number for p, number in got if p == producer]
            assert numbers == list(range(len(numbers)))
            assert len(numbers) == amount or producer in cut
            assert put_ok[producer] <= len(numbers) <= put_ok[producer] + 1
        assert channel.received == len(got)

    asyncio.run(run())


async def test_the_weight_of_what_waits_is_bounded_and_a_heavier_item_passes_alone() -> None:
    channel: Channel[bytes] = Channel(100, weigh=len, weight_max=10)
    assert channel.put_nowait(b"x" * 11), "alone"
    assert not channel.put_nowait(b"")
    assert await channel.get_batch() == [b"x" * 11]
    assert channel.put_nowait(b"x" * 4)
    assert channel.put_nowait(b"x" * 6)
    assert not channel.put_nowait(b"x")
    assert channel.weight == 10
    assert await channel.get_batch(1) == [b"x" * 4]
    assert channel.weight == 6


async def test_light_items_do_not_overtake_a_heavy_one_that_waits() -> None:
    channel: Channel[bytes] = Channel(100, weigh=len, weight_max=10)
    await channel.put(b"x" * 6)
    async with Supervisor(ManualClock()) as supervisor:
        supervisor.start("test", "put", lambda: channel.put(b"x" * 9))
        await settle()
        assert not channel.put_nowait(b"x")
        assert await channel.get_batch() == [b"x" * 6]
        await settle()
        assert await channel.get_batch() == [b"x" * 9]


async def test_drop_oldest_drops_as_many_as_weigh_what_is_needed() -> None:
    channel: Channel[bytes] = Channel(100, "drop_oldest", weigh=len, weight_max=10)
    for _ in range(5):
        await channel.put(b"xx")
    await channel.put(b"x" * 5)
    assert channel.dropped == 3
    assert await channel.get_batch() == [b"xx", b"xx", b"x" * 5]
