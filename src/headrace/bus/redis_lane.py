"""A lane's log on Redis as one process knows it: the last entry in the view, and the entries that are kept there."""

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from headrace.bus import Lane
from headrace.bus.entries import START, Entry, EntryId
from headrace.bus.shared_view import SharedView
from headrace.model.events import Publication
from headrace.runtime.clock import Clock


class _Kept(NamedTuple):
    id: EntryId
    size: int
    at_s: float


class LaneLog:
    """One lane. `at` is the last entry in the view. `stale`: the state on the server must be read before entries are.

    `written_here`: a writer of this process has the lane, so the reader leaves it alone.
    """

    def __init__(self, lane: Lane, prefix: str, view: SharedView, *, bytes_max: int, age_max_s: float) -> None:
        self.lane: Lane = lane
        self.keys = [f"{prefix}:bus:{{{lane}}}:{name}" for name in ("meta", "tops", "log")]
        self.at, self.stale, self.written_here = START, True, False
        self.catching_up = asyncio.Lock()
        self.view = view
        self._kept: deque[_Kept] = deque()
        self._bytes = 0
        self._bytes_max, self._age_max_s = bytes_max, age_max_s

    @property
    def least(self) -> EntryId:
        """The oldest entry to keep."""
        return self._kept[0].id if self._kept else START

    def follows(self, at: EntryId) -> bool:
        """Return whether the entry is the next one, so that nothing is missing before it."""
        return at.seq == (self.at.seq + 1 if at.epoch == self.at.epoch else 1)

    def take(self, at: EntryId, entry: Entry, publications: Sequence[Publication], size: int, now_s: float) -> None:
        """Put an entry into the view, and deliver it. `size` is its length in bytes."""
        self.at = at
        kept = self._kept
        kept.append(_Kept(at, size, now_s))
        self._bytes += size
        while len(kept) > 1 and (self._bytes > self._bytes_max or now_s - kept[0].at_s > self._age_max_s):
            self._bytes -= kept.popleft().size
        self.view.take(self.lane, at, entry, publications)

    def forget(self) -> None:
        """Read the log from its beginning again."""
        self.at, self.stale, self._bytes = START, True, 0
        self._kept.clear()


def new_epoch(clock: Clock, after: EntryId) -> int:
    """Return an epoch for a log: above that of `after`, and not the one that another process makes at the same time.

    Epochs grow with the wall clock; the last ten bits are random. Lua on the server counts up to 2**53 exactly.
    """
    return max(clock.wall_ns() // 1_000_000 << 10 | secrets.randbits(10), after.epoch + 1)
