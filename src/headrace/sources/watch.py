"""Tells a living connection from one that is silent, whose slot head stands or is left behind. Pure."""

from typing import Final

PATIENCE: Final = 6
"""While every other witness says that the chain itself stands, a silent connection is kept this many times longer."""


class Watch:
    """Watches one connection. Feed it what happens; `verdict` names the reason to give the connection up.

    `head` is where this connection is, `reference` where others say that the chain is: `getSlot` over HTTP, other
    connections. Both may come down again.
    """

    def __init__(self, now: float, *, stall_s: float, stall_slots: int) -> None:
        self._stall_s, self._stall_slots = stall_s, stall_slots
        self._last_message = self._last_advance = now
        self._reference_at: float | None = None
        self.head = self.reference = 0

    @property
    def lag_slots(self) -> int:
        """How many slots the connection is behind the reference; 0 if it leads or nothing is known."""
        return max(0, self.reference - self.head) if self.head and self.reference else 0

    def message(self, now: float) -> None:
        """Anything arrived, good or bad."""
        self._last_message = now

    def excuse(self, now: float) -> None:
        """Nobody was reading: neither silence nor a standing head says anything about the node."""
        self._last_message = self._last_advance = now

    def slot(self, slot: int, now: float) -> None:
        """Take `slot` for where the connection is. One that is lower takes a claim back, and is no advance."""
        if slot > self.head:
            self._last_advance = now
        self.head = slot

    def witness(self, slot: int, now: float) -> None:
        """Another way to the chain knows of `slot`."""
        self.reference, self._reference_at = slot, now

    def verdict(self, now: float) -> str | None:
        """Why the connection should be given up, or None: `behind`, `silent` or `head_stands`."""
        standing_s = now - self._last_advance
        if self.head and self.lag_slots > self._stall_slots and standing_s > self._stall_s / 2:
            return "behind"
        chain_stands = self._chain_stands(now)
        patience_s = self._stall_s * (PATIENCE if chain_stands else 1)
        if now - self._last_message > patience_s:
            return "silent"
        return "head_stands" if standing_s > patience_s else None

    def _chain_stands(self, now: float) -> bool:
        fresh = self._reference_at is not None and now - self._reference_at <= self._stall_s
        return fresh and self.head > 0 and self.reference <= self.head
