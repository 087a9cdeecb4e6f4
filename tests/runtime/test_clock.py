"""The manual clock moves only when told, wakes sleepers in order and forgets cancelled ones."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.runtime.clock import ManualClock, SystemClock
from headrace.runtime.supervise import Supervisor


@given(st.lists(st.integers(1, 50), max_size=20), st.lists(st.integers(0, 30), min_size=1, max_size=10))
def test_sleepers_wake_in_order_of_their_deadlines(naps_s: list[int], steps_s: list[int]) -> None:
    async def run() -> None:
        clock = ManualClock(wall_ns=0)
        woken: list[tuple[int, int, float]] = []

        async def nap(number: int, seconds: int) -> None:
            await clock.sleep(seconds)
            woken.append((seconds, number, clock.monotonic()))

        async with Supervisor(clock) as supervisor:
            for number, seconds in enumerate(naps_s):
                supervisor.start("test", f"nap-{number}", lambda n=number, s=seconds: nap(n, s))  # type: ignore[misc]
            for step in steps_s:
                await clock.advance(step)
            due = [seconds for seconds in naps_s if seconds <= sum(steps_s)]
            assert woken == sorted(woken)
            assert [seconds for seconds, _, _ in woken] == sorted(due)
            assert all(seconds == at for seconds, _, at in woken)
            assert clock.sleepers == len(naps_s) - len(due)
            assert clock.wall_ns() == sum(steps_s) * 1_000_000_000
            supervisor.cancel()
        assert clock.sleepers == 0

    asyncio.run(run())


async def test_a_task_that_sleeps_again_wakes_within_the_same_advance() -> None:
    clock = ManualClock()
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await clock.sleep(1)
            ticks.append(clock.monotonic())

    async with Supervisor(clock) as supervisor:
        supervisor.start("test", "tick", tick)
        await clock.advance(5)
        assert ticks == [1, 2, 3, 4, 5]
        supervisor.cancel()


async def test_cancelled_sleepers_are_forgotten() -> None:
    clock = ManualClock()
    for _ in range(100):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(clock.sleep(3600), 0)
    assert clock.sleepers == 0


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), max_size=20))
def test_cancelling_some_keeps_the_order_of_the_others(naps: list[tuple[int, bool]]) -> None:
    async def run() -> None:
        clock = ManualClock()
        woken: list[float] = []

        async def nap(seconds: int) -> None:
            await clock.sleep(seconds)
            assert clock.monotonic() == seconds
            woken.append(seconds)

        async with Supervisor(clock) as supervisor:
            tasks = [supervisor.start("test", "nap", lambda s=s: nap(s)) for s, _ in naps]  # type: ignore[misc]
            await clock.advance(0)
            for task, (_, cut) in zip(tasks, naps, strict=True):
                if cut:
                    task.cancel()
            await clock.advance(50)
        assert woken == sorted(seconds for seconds, cut in naps if not cut)

    asyncio.run(run())


async def test_zero_and_negative_sleeps_only_yield() -> None:
    for clock in (ManualClock(), SystemClock()):
        async with asyncio.timeout(10):
            await clock.sleep(0)
            await clock.sleep(-5)


async def test_time_never_goes_back() -> None:
    with pytest.raises(ValueError, match="never goes back"):
        await ManualClock().advance(-1)


async def test_system_clock_is_the_machine_s() -> None:
    clock = SystemClock()
    before = time.time_ns()
    assert before <= clock.wall_ns() <= time.time_ns()
    start = clock.monotonic()
    await clock.sleep(0.01)
    assert clock.monotonic() - start >= 0.009
