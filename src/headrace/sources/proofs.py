"""Which delivered transactions are in their slots' blocks: what waits for proof, and what the answers prove. Pure.

A node that tells of a transaction at `processed` has only its own bank behind its word. That the slot is confirmed says
nothing of the transaction: it may have been made up, or told of the wrong slot.
"""

from collections.abc import Callable, Container, Sequence
from typing import Final, NamedTuple

from headrace.sources.subscriptions import ChainSubscription

WAITING_MAX: Final = 100_000
"""Signatures that wait at most; beyond that the oldest slot is given up."""
WINDOW_SLOTS: Final = 500
"""A signature that is this far below the head unproven is given up, before the fork window of 512 slots ends."""
WAIT_S: Final = 300.0
"""Nor does any wait longer than this."""
AHEAD_SLOTS: Final = 8
"""A node that is not this far beyond a slot may not know its transactions yet: its null is no "no"."""
REMEMBERED_SLOTS: Final = 150
"""Nodes remember the signatures of so many slots whether or not they keep a history."""
NOES: Final = 2
"""A signature is absent when nobody knew it so often, a round apart."""


class Status(NamedTuple):
    """A node's word on a signature: the slot it is in, whether it succeeded, whether that is confirmed."""

    slot: int
    succeeded: bool
    confirmed: bool


class Answer(NamedTuple):
    """One endpoint's answer: where it stands, and a word for each signature; None is "not known", "" is unreadable.
    `history`: it looked further back than what nodes remember anyway."""

    slot: int
    words: Sequence[Status | str | None]
    history: bool = False


class Waiting(NamedTuple):
    """A signature that waits for proof, in one slot."""

    slot: int
    signature: str
    noes: int


class Proven(NamedTuple):
    """What became of signatures of a slot. `feeds` are those of the unknown ones."""

    slot: int
    landed: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    feeds: tuple[ChainSubscription, ...] = ()


class _Told:
    __slots__ = ("noes", "since", "subscriptions", "succeeded")

    def __init__(self, succeeded: bool, since: float) -> None:
        self.succeeded, self.since, self.noes = succeeded, since, 0
        self.subscriptions: dict[ChainSubscription, None] = {}


class Proofs:
    """Feed it what is delivered and which slots are decided; `due` names what to ask for, `answered` takes the answers.
    What is known of a signature is remembered for WINDOW_SLOTS, so that a repeat need not wait."""

    def __init__(self) -> None:
        self._waiting: dict[int, dict[str, _Told]] = {}
        self._known: dict[int, dict[str, bool]] = {}
        self._reached = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def known(self, slot: int, signature: str) -> bool | None:
        """Return whether the signature is in the slot's block, None if that is not known."""
        known = self._known.get(slot)
        return None if known is None else known.get(signature)

    def delivered(
        self, slot: int, signature: str, succeeded: bool, subscriptions: Sequence[ChainSubscription], now: float
    ) -> list[Proven]:
        """It goes out unproven. Return what is given up to make room."""
        told = self._waiting.setdefault(slot, {}).get(signature)
        if told is None:
            told = self._waiting[slot][signature] = _Told(succeeded, now)
            self._count += 1
        told.subscriptions.update(dict.fromkeys(subscriptions))
        return [self._give_up(next(iter(self._waiting)))] if self._count > WAITING_MAX else []

    def reached(self, slot: int) -> None:
        """Slots up to here are confirmed or dead."""
        self._reached = max(self._reached, slot)

    def come_down(self, head: int) -> None:
        """The chain is only at `head`."""
        self._reached = min(self._reached, head)

    def died(self, slot: int) -> None:
        """The slot is dead, and all of it retracted."""
        self._count -= len(self._waiting.pop(slot, ()))
        self._known.pop(slot, None)

    def due(self, limit: int) -> list[Waiting]:
        """Return what can be asked for now, the oldest slots first; `limit` at most."""
        found: list[Waiting] = []
        for slot in sorted(self.slots_due()):
            found += self.due_in(slot)
            if len(found) >= limit:
                break
        return found[:limit]

    def slots_due(self) -> list[int]:
        """Return the slots of which something can be asked for now."""
        return [slot for slot in self._waiting if slot <= self._reached]

    def due_in(self, slot: int) -> list[Waiting]:
        """Return what waits in one slot."""
        return [Waiting(slot, signature, told.noes) for signature, told in self._waiting.get(slot, {}).items()]

    def answered(self, asked: Sequence[Waiting], answers: Sequence[Answer]) -> list[Proven]:
        """Return what follows from the answers of one or several endpoints to one question."""

        def judge(number: int, slot: int, told: _Told) -> bool | str | None:
            return _is_there(slot, told.succeeded, [(answer, answer.words[number]) for answer in answers])

        return self._settle(asked, judge)

    def listed(self, asked: Sequence[Waiting], signatures: Container[str]) -> list[Proven]:
        """Return what follows from all signatures that endpoints list for the block of the slot. Whether a transaction
        succeeded is left as it was told."""
        return self._settle(asked, lambda number, _slot, _told: asked[number].signature in signatures)

    def _settle(self, asked: Sequence[Waiting], judge: Callable[[int, int, _Told], bool | str | None]) -> list[Proven]:
        """Give those that `judge` decides their end; a first "no" only counts."""
        landed: dict[int, list[str]] = {}
        absent: dict[int, list[str]] = {}
        for number, (slot, signature, _) in enumerate(asked):
            told = self._waiting.get(slot, {}).get(signature)
            if told is None:
                continue
            there = judge(number, slot, told)
            if there is False:
                told.noes += 1
            if there is None or (there is False and told.noes < NOES):
                continue
            if there == "elsewhere":
                there = False
            (landed if there else absent).setdefault(slot, []).append(signature)
            self._known.setdefault(slot, {})[signature] = bool(there)
            self._remove(slot, signature)
        return [
            Proven(slot, tuple(landed.get(slot, ())), tuple(absent.get(slot, ())))
            for slot in sorted(landed.keys() | absent.keys())
        ]

    def overdue(self, head: int, now: float) -> list[Proven]:
        """Return what waited too long, and forget what is too old to be repeated."""
        for slot in [slot for slot in self._known if slot < head - WINDOW_SLOTS]:
            del self._known[slot]
        late = [
            slot
            for slot, told in self._waiting.items()
            if slot <= head - WINDOW_SLOTS or now - next(iter(told.values())).since > WAIT_S
        ]
        return [self._give_up(slot) for slot in sorted(late)]

    def _give_up(self, slot: int) -> Proven:
        told = self._waiting.pop(slot)
        self._count -= len(told)
        feeds = dict.fromkeys(subscription for each in told.values() for subscription in each.subscriptions)
        return Proven(slot, unknown=tuple(told), feeds=tuple(feeds))

    def _remove(self, slot: int, signature: str) -> None:
        waiting = self._waiting[slot]
        del waiting[signature]
        self._count -= 1
        if not waiting:
            del self._waiting[slot]


def _is_there(slot: int, succeeded: bool, words: Sequence[tuple[Answer, Status | str | None]]) -> bool | str | None:
    """True: it is in the slot's block. "elsewhere": it is in another, or failed although it was told otherwise. False:
    nobody who must know it does. None: not known."""
    statuses = [word for _, word in words if isinstance(word, Status) and word.confirmed]
    if any(status.slot == slot and status.succeeded == succeeded for status in statuses):
        return True
    if statuses:
        return "elsewhere"
    if any(isinstance(word, Status) for _, word in words):
        return None  # not confirmed there yet
    return False if any(word is None and _must_know(answer, slot) for answer, word in words) else None


def _must_know(answer: Answer, slot: int) -> bool:
    is_past = answer.slot >= slot + AHEAD_SLOTS
    return is_past and (answer.history or answer.slot <= slot + REMEMBERED_SLOTS)
