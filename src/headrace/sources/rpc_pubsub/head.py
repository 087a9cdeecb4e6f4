"""The highest slot that anybody told of, and which tellings are believed. Pure."""

from typing import Final

JUMP_MAX: Final = 1_000_000
"""Slots; days of chain. A head further ahead than that is another cluster's, or made up."""
STALE_S: Final = 60.0
"""A head that nobody has moved for so long (the machine slept) says nothing against a higher one any more."""


class Head:
    """Gaps are measured from the head, so one wild number must not become it: nothing would be missing ever after."""

    def __init__(self) -> None:
        self.slot = 0
        self._moved_at = 0.0

    def hear(self, slot: int, now: float) -> bool:
        """Somebody told of `slot`; whether that is believed."""
        if self.slot and slot > self.slot + JUMP_MAX and now - self._moved_at < STALE_S:
            return False
        if slot > self.slot:
            self.slot, self._moved_at = slot, now
        return True
