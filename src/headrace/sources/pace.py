"""How fast one node may be asked: faster while it answers, half as fast when it says that this is too much. Pure."""

from typing import Final

START_PER_S: Final = 10.0
LEAST_PER_S: Final = 0.5


class Pace:
    """Give out calls at a rate that follows the node: at first it doubles within about a second of full use, after
    the first refusal it grows by about one call a second each second; a refusal halves it. Never above `most_per_s`.
    """

    def __init__(self, most_per_s: float) -> None:
        self._most_per_s = most_per_s
        self.per_s = min(START_PER_S, most_per_s)
        self._refused = False
        self._credit, self._since = 1.0, 0.0
        self._halved_at = float("-inf")

    def take(self, wanted: int, now: float) -> int:
        """Return how many of the `wanted` calls may be made now, and count them as made."""
        self._credit = min(max(1.0, self.per_s / 2), self._credit + self.per_s * max(0.0, now - self._since))
        self._since = max(self._since, now)
        taken = min(wanted, int(self._credit))
        self._credit -= taken
        return taken

    def answered(self, calls: int) -> None:
        """Go faster: the node answered so many calls."""
        step = calls / self.per_s if self._refused else calls
        self.per_s = min(self._most_per_s, self.per_s + step)

    def refused(self, now: float) -> None:
        """Go half as fast: the node wants less. Refusals of calls that were under way together count as one."""
        self._refused = True
        self._credit = 0.0
        if now - self._halved_at >= 1.0:
            self._halved_at = now
            self.per_s = max(LEAST_PER_S, self.per_s / 2)
