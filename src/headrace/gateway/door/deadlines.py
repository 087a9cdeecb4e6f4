"""Timeouts of one fixed duration for many keys, and alarms at arbitrary times for each key. Pure."""

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """Deadlines of equal duration, one for each key. Setting, clearing and finding a due deadline cost O(1)."""

    def __init__(self, after_s: float) -> None:
        self.after_s = after_s
        self._due_s: OrderedDict[K, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._due_s)

    def __contains__(self, key: object) -> bool:
        return key in self._due_s

    def set(self, key: K, now_s: float) -> None:
        """Set the deadline of `key` to `after_s` from now. Replaces an earlier deadline."""
        self._due_s[key] = now_s + self.after_s
        self._due_s.move_to_end(key)

    def clear(self, key: K) -> None:
        """Remove the deadline of `key`. Idempotent."""
        self._due_s.pop(key, None)

    def due(self, now_s: float) -> list[K]:
        """Return the keys whose deadlines have passed, oldest first, and clear these deadlines."""
        over: list[K] = []
        while self._due_s:
            key, due_s = next(iter(self._due_s.items()))
            if due_s > now_s:
                break
            self._due_s.popitem(last=False)
            over.append(key)
        return over


HORIZON_S: Final = 3600
"""Maximum seconds until an alarm is due.

A later alarm is due early, after this time, to limit the seconds to search.
"""


class Alarms(Generic[K]):
    """One alarm for each key, to the second. Setting and clearing cost O(1).

    An alarm later than HORIZON_S is due early. Its owner then checks what is due, and sets the alarm again.
    """

    def __init__(self) -> None:
        self._second_of: dict[K, int] = {}
        self._due: dict[int, dict[K, None]] = {}

    def __len__(self) -> int:
        return len(self._second_of)

    def set(self, key: K, at_s: float, now_s: float) -> None:
        """Set the key's alarm to `at_s`, in place of its earlier alarm. Infinity clears the alarm."""
        self.clear(key)
        if at_s < math.inf:
            second = math.ceil(min(at_s, now_s + HORIZON_S))
            self._second_of[key] = second
            self._due.setdefault(second, {})[key] = None

    def clear(self, key: K) -> None:
        """Remove the alarm of this key. Idempotent."""
        second = self._second_of.pop(key, None)
        if second is not None:
            keys = self._due[second]
            del keys[key]
            if not keys:
                del self._due[second]

    def due(self, now_s: float) -> list[K]:
        """Return the keys whose alarm is due, earliest first, and clear their alarms."""
        rung = [key for second in sorted(self._due) if second <= now_s for key in self._due[second]]
        for key in rung:
            self.clear(key)
        return rung
