"""From `getBlocks` answers to slot statuses: which processed slots were confirmed and which died. Pure."""

from typing import Final, NamedTuple

from headrace.model.updates import SlotStatus
from headrace.sources.head import NEAR

SPAN_MAX: Final = 500
"""Slots asked for at once, and the most that are kept waiting: ten times as long as confirmation normally takes."""


class SlotOutcome(NamedTuple):
    """A slot reached a status; `parent` where it is known."""

    slot: int
    status: SlotStatus
    parent: int | None


class Confirmations:
    """Keeps the processed slots that wait for a verdict.

    A slot is confirmed when a node lists it, or when a listed slot stands on it; it is dead when a later slot is listed
    and neither is so.
    """

    def __init__(self) -> None:
        self._parents: dict[int, int | None] = {}
        self._settled = 0

    def processed(self, slot: int, parent: int | None = None) -> None:
        """A node began `slot` on top of `parent`, or delivered something of it."""
        if slot <= self._settled:
            return
        if parent is not None or slot not in self._parents:
            self._parents[slot] = parent
        if len(self._parents) > SPAN_MAX:  # also where nobody asks for verdicts
            self._give_up()

    def come_down(self, head: int) -> None:
        """The chain is only at `head`: what was said of slots beyond it is forgotten."""
        self._parents = {slot: parent for slot, parent in self._parents.items() if slot <= head + NEAR}
        if self._settled > head + NEAR:
            self._settled = 0

    def span(self) -> tuple[int, int] | None:
        """The range to ask for, ends included; None if nothing waits. What is older than SPAN_MAX is given up."""
        self._give_up()
        if not self._parents:
            return None
        return (max(self._settled + 1, self._oldest) if self._settled else min(self._parents)), self._head

    def listed(self, blocks: list[int], span: tuple[int, int]) -> list[SlotOutcome]:
        """The node says that of `span` these slots are on the confirmed chain. Ascending verdicts."""
        chain = {slot for slot in blocks if span[0] <= slot <= span[1]}
        if not chain:
            return []
        newest = max(chain)
        for slot in range(newest, span[0] - 1, -1):  # downwards: an ancestor of a confirmed slot is confirmed
            parent = self._parents.get(slot)
            if slot in chain and parent is not None and parent >= span[0]:
                chain.add(parent)
        verdicts: list[SlotOutcome] = []
        below: int | None = None
        for slot in sorted(chain | {slot for slot in self._parents if slot < newest}):
            if slot in chain:
                parent = self._parents.get(slot)
                verdicts.append(SlotOutcome(slot, "confirmed", below if parent is None else parent))
                below = slot
            else:
                verdicts.append(SlotOutcome(slot, "dead", self._parents.get(slot)))
        self._parents = {slot: parent for slot, parent in self._parents.items() if slot > newest}
        self._settled = newest
        return verdicts

    @property
    def _head(self) -> int:
        return max(self._parents, default=0)

    @property
    def _oldest(self) -> int:
        return self._head - SPAN_MAX + 1

    def _give_up(self) -> None:
        if self._parents and min(self._parents) < self._oldest:
            self._parents = {slot: parent for slot, parent in self._parents.items() if slot >= self._oldest}
