"""Where conflated messages wait for the end of their window, and the clock that ends the windows."""

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from headrace.protocol.conflation import KEYS_MAX, Conflate, Latest

if TYPE_CHECKING:
    from headrace.fanout.groups import Group, Item, Subscription
    from headrace.runtime.clock import Clock

GRAIN_S: Final = 0.01
"""How exactly windows end: not before their time, and at most about so long after it."""


HELD_MAX: Final = 500_000
"""Messages that may wait in all windows together, some 250 bytes each; beyond it windows end early."""


class Window:
    """What of a conflated group waits. The first message opens the window, and its end sends all that is left of it.

    Messages that are no events wait too, so that the order stays that of the topic; none of them is ever left out.
    `numbers` are those of the group's `pending`: each message's number among all that came here.
    """

    __slots__ = ("_windows", "every_s", "joining", "numbers", "tick", "waiting")

    def __init__(self, conflate: Conflate, windows: "Windows") -> None:
        self.every_s = conflate.every_ms / 1000
        self._windows = windows
        self.waiting: Latest[tuple[int, Item]] = Latest()
        self.numbers: list[int] = []
        self.joining: dict[Subscription, int] = {}
        """Newcomers since the window opened, with the number of the last message that is not for them."""
        self.tick: int | None = None
        """When it ends; None while it is not open."""

    def put(self, group: "Group", item: "Item") -> bool:
        """Take a message; returns whether the group has something to send now, and had nothing before."""
        windows, before = self._windows, len(self.waiting)
        self.waiting.put(group.sieve.key(item.message, item.view), (group.passed, item))
        windows.held += len(self.waiting) - before
        if len(self.waiting) > KEYS_MAX or windows.held > windows.held_max:
            windows.close(group)
            return group.end_window()
        if self.tick is None:
            windows.open(group)
        return False

    def take(self) -> "list[tuple[int, Item]]":
        """All that waits; nothing does then."""
        kept = self.waiting.take()
        self._windows.held -= len(kept)
        return kept


class Windows:
    """All open windows, by the moment of their end; opening and closing one costs O(1)."""

    def __init__(self, clock: "Clock", ended: "Callable[[Group], None]", held_max: int = HELD_MAX) -> None:
        self._clock, self._ended = clock, ended
        self.held, self.held_max = 0, held_max
        """Messages that wait, in all windows together, and how many may."""
        self._ticks: dict[int, dict[Group, None]] = {}
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return sum(map(len, self._ticks.values()))

    def open(self, group: "Group") -> None:
        """Its window ends `every_s` from now."""
        assert group.window is not None
        tick = group.window.tick = math.ceil((self._clock.monotonic() + group.window.every_s) / GRAIN_S)
        self._ticks.setdefault(tick, {})[group] = None
        self._some.set()

    def forget(self, group: "Group") -> None:
        """Nobody is left to whom its messages could be sent."""
        self.close(group)
        if group.window is not None:
            group.window.take()

    def close(self, group: "Group") -> None:
        """It has no window any more."""
        window = group.window
        if window is not None and window.tick is not None:
            groups = self._ticks[window.tick]
            del groups[group]
            if not groups:
                del self._ticks[window.tick]
            window.tick = None

    async def run(self) -> None:
        """End windows when they are due, for ever."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._ticks:
                await self._clock.sleep(GRAIN_S)
                self.round()

    def round(self) -> None:
        """End those that are due now."""
        now = math.floor(self._clock.monotonic() / GRAIN_S)
        for tick in sorted(tick for tick in self._ticks if tick <= now):
            self._end(tick)

    def end_all(self) -> None:
        """End all of them now."""
        for tick in sorted(self._ticks):
            self._end(tick)

    def _end(self, tick: int) -> None:
        for group in self._ticks.pop(tick):
            assert group.window is not None
            group.window.tick = None
            if group.end_window():
                self._ended(group)
