"""Lets a repeating log event through now and then, so that a source that keeps retrying does not fill the disk."""

from collections import OrderedDict
from typing import Final

from headrace.runtime.clock import Clock

_KEYS_MAX: Final = 1024


class Quiet:
    """One line per key every `every_s` seconds.

    ``if (held_back := quiet.due("connect_failed:rpc-0")) is not None: log.warning("connect_failed", …)``
    """

    def __init__(self, clock: Clock, every_s: float = 60.0) -> None:
        self._clock, self._every_s = clock, every_s
        self._last: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def due(self, key: str) -> int | None:
        """None: stay silent. Else say it, and how often it was held back since it was last said (0 the first time).

        At most 1,024 keys are remembered; beyond, the one said longest ago is forgotten, thus due again.
        """
        now = self._clock.monotonic()
        last = self._last.get(key)
        if last is not None and now - last[0] < self._every_s:
            self._last[key] = (last[0], last[1] + 1)
            return None
        self._last[key] = (now, 0)
        self._last.move_to_end(key)
        if len(self._last) > _KEYS_MAX:
            self._last.popitem(last=False)
        return last[1] if last else 0

    def reset(self, key: str) -> None:
        """It is well again: the next time is news."""
        self._last.pop(key, None)
