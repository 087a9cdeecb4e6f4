"""Clocks: wall time in integer ns, durations in monotonic seconds. Tests use a clock that they advance by hand."""

import asyncio
import heapq
import itertools
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time, monotonic time and sleep. A process has one clock and passes it on. Pure packages never import it."""

    def wall_ns(self) -> int:
        """Return the nanoseconds since the Unix epoch."""

    def monotonic(self) -> float:
        """Return the seconds since an arbitrary start. The value never decreases."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of monotonic time. Zero or less yields to the event loop once."""


class SystemClock:
    """The machine's own clocks."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


class ManualClock:
    """A clock whose time moves only in `advance`. Sleepers wake in the order of their deadlines."""

    def __init__(self, wall_ns: int = 1_700_000_000_000_000_000) -> None:
        self._wall_ns = wall_ns
        self._monotonic = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def wall_ns(self) -> int:
        return self._wall_ns

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), wake))
        try:
            await wake
        except asyncio.CancelledError:
            self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[2] is not wake]
            heapq.heapify(self._sleepers)
            raise

    @property
    def sleepers(self) -> int:
        """The number of tasks that sleep on this clock now."""
        return len(self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Move time forward by `seconds`.

        Each sleeper wakes at its own deadline, and runs before the next sleeper wakes.
        """
        if seconds < 0:
            raise ValueError(f"advance by {seconds} s: time never goes back")
        target = self._monotonic + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            deadline, _, wake = heapq.heappop(self._sleepers)
            self._move_to(deadline)
            if not wake.done():
                wake.set_result(None)
            await _settle()
        self._move_to(target)

    def _move_to(self, monotonic: float) -> None:
        self._wall_ns += round((monotonic - self._monotonic) * 1_000_000_000)
        self._monotonic = monotonic


async def _settle() -> None:
    """Let ready tasks run until they wait again. Covers chains of up to 16 hand-overs between tasks, without I/O."""
    for _ in range(16):
        await asyncio.sleep(0)
