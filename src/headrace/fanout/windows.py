"""Windows of conflation: where messages wait, and the clock that ends each window in time."""

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from headrace.protocol.selection import KEYS_MAX, Conflate, Latest
from headrace.runtime.clock import Clock

GRAIN_S: Final = 0.01
"""Maximum delay in seconds of a window's end. The clock never ends a window early."""

HELD_MAX: Final = 500_000
"""Maximum number of messages that wait in all windows together, about 250 bytes each. Above it, windows end early."""

V = TypeVar("V")


class Windowed(Protocol):
    """A group, as the clock of the windows uses it."""

    def end_window(self) -> bool:
        """Make the window's messages ready to send. Return whether nothing was ready before."""


G = TypeVar("G", bound=Windowed)


class Window(Generic[V]):
    """Waiting messages of one conflated group, each with its number among all messages of the group.

    The first message opens the window. `promote`, `retract` and `gap` messages also wait, to keep the topic's order,
    and none of them is left out. `numbers` are the numbers of the messages that the group still has to send.
    """

    __slots__ = ("_windows", "every_s", "numbers", "tick", "waiting")

    def __init__(self, conflate: Conflate, windows: "Windows[Any]") -> None:
        self.every_s = conflate.every_ms / 1000
        self._windows = windows
        self.waiting: Latest[tuple[int, V]] = Latest()
        self.numbers: list[int] = []
        self.tick: int | None = None
        """Time at which the window ends, in units of GRAIN_S of the monotonic clock; None while it is not open."""

    def put(self, key: str | None, number: int, value: V) -> bool:
        """Replace the value of `key`. Return whether too many messages wait, in this window or in all windows."""
        waiting, windows = self.waiting, self._windows
        before = len(waiting)
        waiting.put(key, (number, value))
        windows.held += len(waiting) - before
        return len(waiting) > KEYS_MAX or windows.held > windows.held_max

    def take(self) -> list[tuple[int, V]]:
        """Return all waiting messages in order, and empty the window."""
        kept = self.waiting.take()
        self._windows.held -= len(kept)
        return kept


class Windows(Generic[G]):
    """All open windows, ordered by their end. Opening and closing a window cost O(1).

    `ended` is called with each group that now has something to send and had nothing before.
    """

    def __init__(self, clock: Clock, ended: Callable[[G], None], held_max: int = HELD_MAX) -> None:
        self._clock, self._ended = clock, ended
        self.held, self.held_max = 0, held_max
        """Number of messages that wait in all windows together, and its limit."""
        self._ticks: dict[int, dict[Window[Any], G]] = {}
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return sum(map(len, self._ticks.values()))

    def open(self, window: Window[Any], group: G) -> None:
        """Make the group's window end `every_s` from now."""
        tick = window.tick = math.ceil((self._clock.monotonic() + window.every_s) / GRAIN_S)
        self._ticks.setdefault(tick, {})[window] = group
        self._some.set()

    def close(self, window: Window[Any]) -> None:
        """Cancel the window's end. Idempotent."""
        if window.tick is not None:
            windows = self._ticks[window.tick]
            del windows[window]
            if not windows:
                del self._ticks[window.tick]
            window.tick = None

    async def run(self) -> None:
        """End windows when they are due, until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._ticks:
                await self._clock.sleep(GRAIN_S)
                self.round()

    def round(self) -> None:
        """End the windows that are due now."""
        now = math.floor(self._clock.monotonic() / GRAIN_S)
        for tick in sorted(tick for tick in self._ticks if tick <= now):
            self._end(tick)

    def end_all(self) -> None:
        """End every window now."""
        for tick in sorted(self._ticks):
            self._end(tick)

    def _end(self, tick: int) -> None:
        for window, group in self._ticks.pop(tick).items():
            window.tick = None
            if group.end_window():
                self._ended(group)
