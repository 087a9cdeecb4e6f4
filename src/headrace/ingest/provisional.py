"""What was published from slots that may still die, and the records that settle it. Pure."""

from collections.abc import Sequence
from typing import Final

from headrace.ingest.bodies import promote_body, retract_body
from headrace.ingest.slots import Confirmed, Dead, Verdict
from headrace.model.events import Publication

SLOTS_MAX: Final = 1_024
EVENTS_MAX: Final = 200_000


class Provisional:
    """Event ids by slot and topic, until the slot is final.

    Each topic that had a slot's events gets one promote when the slot is confirmed, or one retract when it dies.
    Beyond the bounds the slot that came first is given up, and `given_up` counts its events: they stay unsettled.
    """

    def __init__(self, slots_max: int = SLOTS_MAX, events_max: int = EVENTS_MAX) -> None:
        self._slots_max, self._events_max = slots_max, events_max
        self._slots: dict[int, dict[str, list[str]]] = {}
        self._counts: dict[int, int] = {}
        self._count = 0
        self.given_up = 0

    def __len__(self) -> int:
        return self._count

    def add(self, slot: int, publications: Sequence[Publication], event_ids: Sequence[str]) -> None:
        """These messages of the slot went out; `event_ids` are their events."""
        topics = self._slots.get(slot)
        if topics is None:
            if len(self._slots) >= self._slots_max:
                self.given_up += self._forget(next(iter(self._slots)))
            topics = self._slots[slot] = {}
            self._counts[slot] = 0
        for publication, event_id in zip(publications, event_ids, strict=True):
            ids = topics.get(publication.topic)
            if ids is None:
                topics[publication.topic] = [event_id]
            else:
                ids.append(event_id)
        self._counts[slot] += len(event_ids)
        self._count += len(event_ids)
        while self._count > self._events_max:
            self.given_up += self._forget(next(iter(self._slots)))

    def settle(self, verdict: Verdict) -> list[Publication]:
        """The records that the verdict calls for."""
        topics = self._slots.get(verdict.slot, {})
        match verdict:
            case Confirmed():
                body = promote_body(verdict.slot, "confirmed")
                return [Publication(topic, "promote", body) for topic in topics]
            case Dead():
                self._forget(verdict.slot)
                return [
                    Publication(topic, "retract", retract_body(ids, verdict.reason)) for topic, ids in topics.items()
                ]
            case _:
                self._forget(verdict.slot)
                return []

    def _forget(self, slot: int) -> int:
        self._slots.pop(slot, None)
        count = self._counts.pop(slot, 0)
        self._count -= count
        return count
