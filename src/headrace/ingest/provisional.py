"""What was published from slots that may still die, and the records that settle it. Pure."""

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from headrace.ingest.bodies import promote_body, retract_body
from headrace.ingest.slots import SLOTS_KEPT, Confirmed, Dead, Finalized, Verdict
from headrace.model.events import Publication

MESSAGES_MAX: Final = 200_000
NOT_IN_BLOCK: Final = "not_in_block"
"""Why an event is taken back whose slot stays: its transaction is not in the slot's block."""

Sent: TypeAlias = tuple[str, str]
"""A topic and the id of the event that was published on it."""


class _Slot:
    """What was published of one slot: `sent` for certain if the slot is, `unproven` by signature only if that is in the
    slot's block too. `owed` are the topics of `sent` that had no promote yet, `doubted` those that get none."""

    __slots__ = ("confirmed", "doubted", "final", "owed", "sent", "unproven")

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.unproven: dict[str, list[Sent]] = {}
        self.owed: dict[str, None] = {}
        self.doubted: set[str] = set()
        self.confirmed = self.final = False

    def __len__(self) -> int:
        return len(self.sent) + sum(map(len, self.unproven.values()))

    def payable(self) -> list[str]:
        """The topics that can be promoted now, which then are no longer owed."""
        waiting = {topic for sent in self.unproven.values() for topic, _ in sent} | self.doubted
        topics = [topic for topic in self.owed if topic not in waiting]
        for topic in topics:
            del self.owed[topic]
        return topics


class Provisional:
    """Event ids by slot and topic, until the slot is final and all of its signatures are proven.

    Each topic that had a slot's events gets one promote when the slot is confirmed, or one retract when it dies. While
    a signature with events on the topic is unproven the promote waits; one that is not in the block is retracted by
    itself; one of which nobody says anything leaves the topic without a promote of this slot.
    Beyond the bounds the slot that came first is given up, and `given_up` counts its messages: they stay unsettled.
    """

    def __init__(self, slots_max: int = SLOTS_KEPT, messages_max: int = MESSAGES_MAX) -> None:
        self._slots_max, self._messages_max = slots_max, messages_max
        self._slots: dict[int, _Slot] = {}
        self._count = 0
        self.given_up = 0

    def __len__(self) -> int:
        return self._count

    def is_unproven(self, slot: int, signature: str) -> bool:
        """Return whether events of the signature wait for proof."""
        kept = self._slots.get(slot)
        return kept is not None and signature in kept.unproven

    def is_open(self, slot: int) -> bool:
        """Return whether any signature of the slot waits for proof."""
        kept = self._slots.get(slot)
        return kept is not None and bool(kept.unproven)

    def add(self, slot: int, sent: Sequence[Sent], signature: str = "", *, confirmed: bool = False) -> None:
        """These messages of the slot went out, on the word that `signature` is in its block, if one is given.
        `confirmed` says that the slot is already."""
        kept = self._slots.get(slot)
        if kept is None:
            if len(self._slots) >= self._slots_max:
                self.given_up += self._forget(next(iter(self._slots)))
            kept = self._slots[slot] = _Slot()
            kept.confirmed = confirmed
        if signature:
            kept.unproven.setdefault(signature, []).extend(sent)
        else:
            kept.sent += sent
            kept.owed.update(dict.fromkeys(topic for topic, _ in sent))
        self._count += len(sent)
        while self._count > self._messages_max:
            self.given_up += self._forget(next(iter(self._slots)))

    def settle(self, verdict: Verdict) -> list[Publication]:
        """The records that the verdict calls for, a topic's in the order of its first message."""
        kept = self._slots.get(verdict.slot)
        if kept is None:
            return []
        if isinstance(verdict, Confirmed):
            kept.confirmed = True
            return _promoted(verdict.slot, kept)
        if isinstance(verdict, Finalized) and kept.unproven:
            kept.final = True
            return []
        self._forget(verdict.slot)
        if isinstance(verdict, Dead):
            return _retracted([*kept.sent, *(one for sent in kept.unproven.values() for one in sent)], verdict.reason)
        return []

    def prove(
        self, slot: int, landed: Iterable[str], absent: Iterable[str], unknown: Iterable[str]
    ) -> list[Publication]:
        """The records that follow from what is known of signatures: in the slot's block, not in it, nobody says."""
        kept = self._slots.get(slot)
        if kept is None:
            return []
        records: list[Publication] = []
        for signature in landed:
            sent = kept.unproven.pop(signature, [])
            kept.sent += sent
            kept.owed.update(dict.fromkeys(topic for topic, _ in sent))
        for signature in absent:
            sent = kept.unproven.pop(signature, [])
            self._count -= len(sent)
            records += _retracted(sent, NOT_IN_BLOCK)
        for signature in unknown:
            sent = kept.unproven.pop(signature, [])
            self._count -= len(sent)
            kept.doubted.update(topic for topic, _ in sent)
        if kept.confirmed:
            records += _promoted(slot, kept)
        if kept.final and not kept.unproven:
            self._forget(slot)
        return records

    def _forget(self, slot: int) -> int:
        kept = self._slots.pop(slot, None)
        count = len(kept) if kept is not None else 0
        self._count -= count
        return count


def _promoted(slot: int, kept: _Slot) -> list[Publication]:
    body = promote_body(slot, "confirmed")
    return [Publication(topic, "promote", body) for topic in kept.payable()]


def _retracted(sent: Iterable[Sent], reason: str) -> list[Publication]:
    topics: dict[str, list[str]] = {}
    for topic, event_id in sent:
        topics.setdefault(topic, []).append(event_id)
    return [Publication(topic, "retract", retract_body(ids, reason)) for topic, ids in topics.items()]
