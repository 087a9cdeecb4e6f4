"""Decides from the answers to `getBlocks` which slots are confirmed and which are dead. Pure."""

from typing import Final, NamedTuple

from headrace.model.updates import SlotStatus
from headrace.sources.head import NEAR

SPAN_MAX: Final = 500
"""Maximum number of slots in one `getBlocks`, and of slots that wait: ten times as many as confirmation normally
takes."""


class SlotOutcome(NamedTuple):
    """The status that a slot has reached, and its `parent` if known."""

    slot: int
    status: SlotStatus
    parent: int | None


class Confirmations:
    """Processed slots that are neither confirmed nor dead yet.

    A slot is confirmed if a node lists it, or if a listed slot descends from it. A slot is dead if neither is true and
    a later slot is listed.
    """

    def __init__(self) -> None:
        self._parents: dict[int, int | None] = {}
        self._settled = 0

    def processed(self, slot: int, parent: int | None = None) -> None:
        """Add a slot that a node began on top of `parent`, or from which a node delivered an update."""
        if slot <= self._settled:
            return
        if parent is not None or slot not in self._parents:
            self._parents[slot] = parent
        if len(self._parents) > SPAN_MAX:  # even if `span` is never called
            self._give_up()

    def decided(self, slot: int) -> None:
        """Forget a slot whose status a node has reported."""
        self._parents.pop(slot, None)

    def come_down(self, head: int) -> None:
        """Forget slots beyond `head`, the chain's real head."""
        self._parents = {slot: parent for slot, parent in self._parents.items() if slot <= head + NEAR}
        if self._settled > head + NEAR:
            self._settled = 0

    def span(self) -> tuple[int, int] | None:
        """Return the range of slots to ask for, both ends included; None if no slot waits.

        Slots more than SPAN_MAX old are given up.
        """
        self._give_up()
        if not self._parents:
            return None
        return (max(self._settled + 1, self._oldest) if self._settled else min(self._parents)), self._head

    def listed(self, blocks: list[int], span: tuple[int, int]) -> list[SlotOutcome]:
        """Take the list of confirmed slots in `span` from a node.

        Return the outcomes that follow from it, sorted by slot.
        """
        chain = {slot for slot in blocks if span[0] <= slot <= span[1]}
        if not chain:
            return []
        newest = max(chain)
        for slot in range(newest, span[0] - 1, -1):  # descending, because an ancestor of a confirmed slot is confirmed
            parent = self._parents.get(slot)
            if slot in chain and parent is not None and parent >= span[0]:
                chain.add(parent)
        outcomes: list[SlotOutcome] = []
        below: int | None = None
        for slot in sorted(chain | {slot for slot in self._parents if slot < newest}):
            if slot in chain:
                parent = self._parents.get(slot)
                outcomes.append(SlotOutcome(slot, "confirmed", below if parent is None else parent))
                below = slot
            else:
                outcomes.append(SlotOutcome(slot, "dead", self._parents.get(slot)))
        self._parents = {slot: parent for slot, parent in self._parents.items() if slot > newest}
        self._settled = newest
        return outcomes

    @property
    def _head(self) -> int:
        return max(self._parents, default=0)

    @property
    def _oldest(self) -> int:
        return self._head - SPAN_MAX + 1

    def _give_up(self) -> None:
        oldest = self._oldest  # a local, because the property scans all waiting slots
        if self._parents and min(self._parents) < oldest:
            self._parents = {slot: parent for slot, parent in self._parents.items() if slot >= oldest}
