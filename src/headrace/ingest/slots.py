"""Decides which slots the chain kept: a fork tracker that takes statuses and returns verdicts. Pure."""

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from typing import Final

from headrace.ingest.dedupe import TransactionDedupe
from headrace.model.facts import Confirmed, Dead, DeadReason, Finalized, News, SlotChanged, Verdict
from headrace.model.updates import Commitment, SlotStatus, SlotUpdate

SLOTS_KEPT: Final = 512


@dataclass(slots=True)
class _Slot:
    """Knowledge of one slot. `said`: the verdicts given in its current life; `creators`: who built its bank."""

    status: SlotStatus = "processed"
    parent: int | None = None
    said: set[type[Verdict]] = field(default_factory=set)
    creators: set[str] = field(default_factory=set)


class SlotTracker:
    """Pass every SlotUpdate to `apply`; statuses may be missing, repeated or in any order.

    If a slot is confirmed, so are its ancestors, and slots between a confirmed slot and its parent are dead. A
    confirmed slot dies only if a finalized chain leaves it out. If the cluster confirms a dead slot, another version of
    that slot had died: from then on the slot is confirmed. Each verdict is returned at most once in a slot's life. A
    source that creates the bank of an unconfirmed slot again begins a new life. Only the `kept` highest slots are
    remembered; statuses of lower slots decide nothing.
    """

    def __init__(self, kept: int = SLOTS_KEPT) -> None:
        self.head: dict[SlotStatus, int] = {}
        """The highest slot reported as processed, confirmed and finalized."""
        self._kept = kept
        self._slots: dict[int, _Slot] = {}
        self._numbers: list[int] = []  # the keys of _slots, ascending
        self._floor = -1  # the highest slot that was dropped
        self._verdicts: list[Verdict] = []

    def status(self, number: int) -> SlotStatus | None:
        """Return processed, confirmed, finalized or dead; None for an unknown slot."""
        slot = self._slots.get(number)
        return slot.status if slot else None

    def parent(self, number: int) -> int | None:
        """Return the slot's parent; None if no source reported it."""
        slot = self._slots.get(number)
        return slot.parent if slot else None

    def apply(self, update: SlotUpdate) -> list[Verdict]:
        """Return the verdicts that follow from an update, ancestors before descendants."""
        slot = self._know(update.slot)
        if slot is not None:
            if update.status == "created_bank":
                self._create(update.slot, slot, update.source)
            if update.parent is not None:
                self._link(update.slot, slot, update.parent)
            if update.status == "dead":
                self._bury(update.slot, slot, "dead_slot")
            elif update.status != "created_bank":
                self.head[update.status] = max(update.slot, self.head.get(update.status, 0))
                self._keep(update.slot, update.status)
        verdicts, self._verdicts = self._verdicts, []
        return sorted(verdicts, key=lambda verdict: verdict.slot)

    def _create(self, number: int, slot: _Slot, source: str) -> None:
        if source in slot.creators and slot.status in ("processed", "dead"):
            self._bury(number, slot, "equivocation")
            slot.status, slot.parent, slot.said, slot.creators = "processed", None, set(), set()
        slot.creators.add(source)

    def _link(self, number: int, slot: _Slot, parent: int) -> None:
        """Set the first parent that is reported; a later, different parent would be another version of the slot."""
        if slot.parent is None and parent < number:
            slot.parent = parent
            if slot.status in ("confirmed", "finalized"):
                self._pass_by(number, slot)
                self._keep(parent, slot.status)

    def _keep(self, number: int | None, status: SlotStatus) -> None:
        """Confirm or finalize the slot and all of its known ancestors."""
        reached = ("finalized",) if status == "finalized" else ("finalized", "confirmed")
        while status != "processed" and number is not None:
            slot = self._know(number)
            if slot is None or slot.status in reached:
                return
            slot.status = status
            self._say(slot, Confirmed(number))
            if status == "finalized":
                self._say(slot, Finalized(number))
            self._pass_by(number, slot)
            number = slot.parent

    def _pass_by(self, number: int, slot: _Slot) -> None:
        """Declare the slots between a kept slot and its parent dead."""
        if slot.parent is None:
            return
        killed = ("processed", "confirmed") if slot.status == "finalized" else ("processed",)
        between = slice(bisect_right(self._numbers, slot.parent), bisect_left(self._numbers, number))
        for passed in self._numbers[between]:
            if self._slots[passed].status in killed:
                self._slots[passed].status = "processed"
                self._bury(passed, self._slots[passed], "fork")

    def _bury(self, number: int, slot: _Slot, reason: DeadReason) -> None:
        if slot.status == "processed":
            slot.status = "dead"
            self._say(slot, Dead(number, reason))

    def _say(self, slot: _Slot, verdict: Verdict) -> None:
        if type(verdict) not in slot.said:
            slot.said.add(type(verdict))
            self._verdicts.append(verdict)

    def _know(self, number: int) -> _Slot | None:
        """Return the slot's record, created if it is new; None for a slot below those that are remembered."""
        slot = self._slots.get(number)
        if slot is None and number > self._floor:
            slot = self._slots[number] = _Slot()
            insort(self._numbers, number)
            if len(self._numbers) > self._kept:
                self._floor = self._numbers.pop(0)
                del self._slots[self._floor]
            self._bury_if_passed(number, slot)
        return slot if number > self._floor else None

    def _bury_if_passed(self, number: int, slot: _Slot) -> None:
        """Declare a slot dead if its first update comes after the chain left it out."""
        for above in self._numbers[bisect_right(self._numbers, number) :]:
            child = self._slots[above]
            if child.status in ("confirmed", "finalized"):
                if child.parent is not None and child.parent < number:
                    self._bury(number, slot, "fork")
                return


class Forks:
    """Follows the slots: how certain their facts are, and what follows from their statuses."""

    def __init__(self) -> None:
        self.slots = SlotTracker()
        self._seen = TransactionDedupe()  # by slot and status, because two nodes report the same

    def commitment(self, slot: int, given: Commitment) -> Commitment | None:
        """Return how certain a fact of this slot is, whatever its source gave; None if the slot is dead."""
        status = self.slots.status(slot)
        if status == "dead":
            return None
        return status if given == "processed" and (status == "confirmed" or status == "finalized") else given

    def apply(self, update: SlotUpdate) -> list[News]:
        """Return what follows from an update of a slot: each verdict directly after the status that leads to it."""
        verdicts = self.slots.apply(update)
        for verdict in verdicts:
            if isinstance(verdict, Dead):
                self._seen.forget(verdict.slot)
        news: list[News] = []
        if update.status in ("processed", "created_bank") and self._seen.admit(update.slot, update.status, 1):
            news.append(self._changed(update.slot, update.status, update.source))
        for verdict in verdicts:
            news.append(self._changed(verdict.slot, _STATUSES[type(verdict)], update.source))
            news.append(verdict)
        return news

    def _changed(self, slot: int, status: SlotStatus, source: str) -> SlotChanged:
        return SlotChanged(slot, status, self.slots.parent(slot), source)


_STATUSES: Final[dict[type[Verdict], SlotStatus]] = {Confirmed: "confirmed", Finalized: "finalized", Dead: "dead"}
