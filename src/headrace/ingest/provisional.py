"""What was published from slots that may still die, and the records that settle it. Pure."""

from collections.abc import Sequence
from typing import Final, TypeAlias

from headrace.ingest.bodies import promote_body, retract_body
from headrace.ingest.slots import SLOTS_KEPT, Confirmed, Dead, Finalized, Verdict
from headrace.model.events import Publication

MESSAGES_MAX: Final = 200_000

Sent: TypeAlias = tuple[str, str]
"""A topic and the id of the event that was published on it."""


class Provisional:
    """Event ids by slot and topic, until the slot is final.

    Each topic that had a slot's events gets one promote when the slot is confirmed, or one retract when it dies.
    Beyond the bounds the slot that came first is given up, and `given_up` counts its messages: they stay unsettled.
    """

    def __init__(self, slots_max: int = SLOTS_KEPT, messages_max: int = MESSAGES_MAX) -> None:
        self._slots_max, self._messages_max = slots_max, messages_max
        self._slots: dict[int, list[Sent]] = {}
        self._count = 0
        self.given_up = 0

    def __len__(self) -> int:
        return self._count

    def add(self, slot: int, sent: Sequence[Sent]) -> None:
        """These messages of the slot went out."""
        kept = self._slots.get(slot)
        if kept is None:
            if len(self._slots) >= self._slots_max:
                self.given_up += self._forget(next(iter(self._slots)))
            kept = self._slots[slot] = []
        kept += sent
        self._count += len(sent)
        while self._count > self._messages_max:
            self.given_up += self._forget(next(iter(self._slots)))

    def settle(self, verdict: Verdict) -> list[Publication]:
        """The records that the verdict calls for, a topic's in the order of its first message."""
        topics: dict[str, list[str]] = {}
        if not isinstance(verdict, Finalized):
            for topic, event_id in self._slots.get(verdict.slot, ()):
                topics.setdefault(topic, []).append(event_id)
        if isinstance(verdict, Confirmed):
            body = promote_body(verdict.slot, "confirmed")
            return [Publication(topic, "promote", body) for topic in topics]
        self._forget(verdict.slot)
        if isinstance(verdict, Dead):
            return [Publication(topic, "retract", retract_body(ids, verdict.reason)) for topic, ids in topics.items()]
        return []

    def _forget(self, slot: int) -> int:
        count = len(self._slots.pop(slot, ()))
        self._count -= count
        return count
