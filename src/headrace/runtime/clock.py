"""Time comes from a clock that tests can hold: wall time in integer ns, durations in monotonic seconds."""

import asyncio
import heapq
import itertools
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time, monotonic time and sleep. One clock per process; passed in, never imported by pure rooms."""

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of monotonic time; zero or less yields to the loop once."""


class SystemClock:
    """The machine's clocks."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


class ManualClock:
    """A clock that stands until `advance` moves it; sleepers wake in order of their deadline."""

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
        """How many tasks sleep on this clock now."""
        return len(self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Move time on by `seconds`, waking each sleeper at its own moment and letting it run before the next."""
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
    """Let tasks that are ready run until they wait again: chains of up to 16 hand-overs, no input or output."""
    for _ in range(16):
        await asyncio.sleep(0)
