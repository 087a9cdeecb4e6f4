"""What the fate of slots means for what was published from them: slot messages, promotes and retracts. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from headrace.ingest.bodies import slot_body
from headrace.ingest.dedupe import TransactionDedupe
from headrace.ingest.provisional import Provisional, Sent
from headrace.ingest.slots import Confirmed, Dead, Finalized, SlotTracker, Verdict
from headrace.model.events import Publication
from headrace.model.updates import Commitment, LandingUpdate, SlotStatus, SlotUpdate

SLOTS_TOPIC = "slots"


class Settlement(NamedTuple):
    """The messages; the slots of which all that was seen is `void` (should they happen anew, all of it is new); and
    those that are `final`."""

    messages: list[Publication]
    void: list[int]
    final: list[int]


class Forks:
    """Follows the slots and settles what was published while they could still die."""

    def __init__(self) -> None:
        self.slots = SlotTracker()
        self.provisional = Provisional()
        self._told = TransactionDedupe()  # by slot and status: two nodes tell the same

    def commitment(self, slot: int, told: Commitment) -> Commitment | None:
        """How sure a fact of this slot is, whatever its source `told`; None if the slot died: it is no fact."""
        status = self.slots.status(slot)
        if status == "dead":
            return None
        return status if told == "processed" and (status == "confirmed" or status == "finalized") else told

    def apply(self, update: SlotUpdate) -> Settlement:
        """What follows from the news of a slot."""
        verdicts = self.slots.apply(update)
        messages: list[Publication] = []
        void = [verdict.slot for verdict in verdicts if isinstance(verdict, Dead)]
        for slot in void:
            self._told.forget(slot)
        if update.status in ("processed", "created_bank") and self._told.admit(update.slot, update.status, 1):
            messages.append(self._message(update.slot, update.status, update.source))
        for verdict in verdicts:
            messages.append(self._message(verdict.slot, _status(verdict), update.source))
            messages += self.provisional.settle(verdict)
        final = [v.slot for v in verdicts if isinstance(v, Finalized) and not self.provisional.is_open(v.slot)]
        return Settlement(messages, void, final)

    def prove(self, update: LandingUpdate) -> Settlement:
        """What follows from the news of signatures of a slot; the slot is `final` if only they kept it from that."""
        was_open = self.provisional.is_open(update.slot)
        messages = self.provisional.prove(update.slot, update.landed, update.absent, update.unknown)
        closed = was_open and not self.provisional.is_open(update.slot)
        is_final = closed and self.slots.status(update.slot) == "finalized"
        return Settlement(messages, [], [update.slot] if is_final else [])

    def note(self, slot: int, sent: Sequence[Sent], signature: str = "") -> None:
        """These messages of the slot went out as processed; `signature` if it is yet to be proven."""
        self.provisional.add(slot, sent, signature, confirmed=self.slots.status(slot) in ("confirmed", "finalized"))

    def _message(self, slot: int, status: SlotStatus, source: str) -> Publication:
        return Publication(SLOTS_TOPIC, "event", slot_body(slot, status, self.slots.parent(slot), source))


def _status(verdict: Verdict) -> SlotStatus:
    match verdict:
        case Confirmed():
            return "confirmed"
        case Finalized():
            return "finalized"
        case Dead():
            return "dead"
