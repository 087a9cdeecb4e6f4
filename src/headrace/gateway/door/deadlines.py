"""Times that run out."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """Things that must happen within the same time each; setting, clearing and finding what is due cost O(1)."""

    def __init__(self, after_s: float) -> None:
        self.after_s = after_s
        self._due_s: OrderedDict[K, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._due_s)

    def __contains__(self, key: object) -> bool:
        return key in self._due_s

    def set(self, key: K, now_s: float) -> None:
        """Start the time of `key`, anew if it runs already."""
        self._due_s[key] = now_s + self.after_s
        self._due_s.move_to_end(key)

    def clear(self, key: K) -> None:
        self._due_s.pop(key, None)

    def due(self, now_s: float) -> list[K]:
        """Those whose time is over, oldest first; they are cleared."""
        over: list[K] = []
        while self._due_s:
            key, due_s = next(iter(self._due_s.items()))
            if due_s > now_s:
                break
            self._due_s.popitem(last=False)
            over.append(key)
        return over
