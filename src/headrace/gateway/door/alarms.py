"""Things that each have a time of their own at which something is due."""

import math
from typing import Final, Generic, TypeVar

K = TypeVar("K")

HORIZON_S: Final = 3600
"""An alarm further away rings now and then before its time, so that the number of seconds looked at is bounded."""


class Alarms(Generic[K]):
    """One alarm a key, to the second and never early; setting and clearing cost O(1) and leave nothing behind.

    Who is rung must look at what is due, and set the alarm anew: it may have been rung before its time.
    """

    def __init__(self) -> None:
        self._second_of: dict[K, int] = {}
        self._due: dict[int, dict[K, None]] = {}

    def __len__(self) -> int:
        return len(self._second_of)

    def set(self, key: K, at_s: float, now_s: float) -> None:
        """Ring at `at_s`, in place of any earlier alarm of this key; infinity clears it."""
        self.clear(key)
        if at_s < math.inf:
            second = math.ceil(min(at_s, now_s + HORIZON_S))
            self._second_of[key] = second
            self._due.setdefault(second, {})[key] = None

    def clear(self, key: K) -> None:
        second = self._second_of.pop(key, None)
        if second is not None:
            keys = self._due[second]
            del keys[key]
            if not keys:
                del self._due[second]

    def due(self, now_s: float) -> list[K]:
        """Those whose time has come, earliest first; they are cleared."""
        rung = [key for second in sorted(self._due) if second <= now_s for key in self._due[second]]
        for key in rung:
            self.clear(key)
        return rung
