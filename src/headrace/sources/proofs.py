"""Uses nodes' answers to prove that delivered transactions are in the blocks of their slots. Pure.

A transaction sent at `processed` has been seen by one node only. The confirmation of its slot proves nothing: the node
may have made the transaction up, or named the wrong slot.
"""

from collections.abc import Callable, Container, Sequence
from typing import Final, NamedTuple

from headrace.sources.subscriptions import ChainSubscription

WAITING_MAX: Final = 100_000
"""Maximum number of signatures that wait. If there are more, the oldest slot is given up."""
WINDOW_SLOTS: Final = 500
"""Number of slots below the head at which an unproven signature is given up.

It is less than the fork window of 512 slots.
"""
WAIT_S: Final = 300.0
"""Maximum time in seconds that a signature waits."""
AHEAD_SLOTS: Final = 8
"""Number of slots by which a node must be past a slot before its null counts.

Earlier it may not know the transactions.
"""
REMEMBERED_SLOTS: Final = 150
"""Number of recent slots whose signatures a node without a history remembers."""
DENIALS: Final = 2
"""Number of rounds in which no node knew a signature, after which the signature is absent."""


class Status(NamedTuple):
    """Status of a signature at a node: its slot, whether it succeeded, whether the slot is confirmed."""

    slot: int
    succeeded: bool
    confirmed: bool


class Answer(NamedTuple):
    """One endpoint's answer: its slot, and a status for each signature. None is "not known", "" is unreadable.

    With `history`, the endpoint searched further back than nodes without a history remember.
    """

    slot: int
    words: Sequence[Status | str | None]
    history: bool = False


class Waiting(NamedTuple):
    """A signature that waits for proof, in one slot."""

    slot: int
    signature: str
    denials: int


class Proven(NamedTuple):
    """Outcome of checking a slot's signatures. `feeds` are the feeds of the signatures whose status is unknown."""

    slot: int
    landed: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    feeds: tuple[ChainSubscription, ...] = ()


class _Unproven:
    __slots__ = ("denials", "since", "subscriptions", "succeeded")

    def __init__(self, succeeded: bool, since: float) -> None:
        self.succeeded, self.since, self.denials = succeeded, since, 0
        self.subscriptions: dict[ChainSubscription, None] = {}


class Proofs:
    """Signatures that wait for proof: `due` returns the signatures to ask for, `answered` takes the answers.

    A result is remembered for WINDOW_SLOTS, so that a repeated transaction need not wait.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, dict[str, _Unproven]] = {}
        self._known: dict[int, dict[str, bool]] = {}
        self._reached = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def known(self, slot: int, signature: str) -> bool | None:
        """Return whether the signature is in the slot's block; None if that is not known."""
        known = self._known.get(slot)
        return None if known is None else known.get(signature)

    def delivered(
        self, slot: int, signature: str, succeeded: bool, subscriptions: Sequence[ChainSubscription], now: float
    ) -> list[Proven]:
        """Add a signature that is delivered unproven. Return the signatures that are given up to make room."""
        told = self._waiting.setdefault(slot, {}).get(signature)
        if told is None:
            told = self._waiting[slot][signature] = _Unproven(succeeded, now)
            self._count += 1
        told.subscriptions.update(dict.fromkeys(subscriptions))
        return [self._give_up(next(iter(self._waiting)))] if self._count > WAITING_MAX else []

    def oldest(self) -> int | None:
        """Return the lowest slot with a signature that waits; None without one."""
        return min(self._waiting, default=None)

    def reached(self, slot: int) -> None:
        """Record that slots up to `slot` are confirmed or dead, so that their signatures may be asked for."""
        self._reached = max(self._reached, slot)

    def come_down(self, head: int) -> None:
        """Take back slots beyond `head`, the chain's real head."""
        self._reached = min(self._reached, head)

    def died(self, slot: int) -> None:
        """Forget a dead slot: everything in it is retracted."""
        self._count -= len(self._waiting.pop(slot, ()))
        self._known.pop(slot, None)

    def due(self, limit: int) -> list[Waiting]:
        """Return at most `limit` signatures that can be asked for now, the oldest slots first."""
        found: list[Waiting] = []
        for slot in sorted(self.slots_due()):
            found += self.due_in(slot)
            if len(found) >= limit:
                break
        return found[:limit]

    def slots_due(self) -> list[int]:
        """Return the slots with signatures that can be asked for now."""
        return [slot for slot in self._waiting if slot <= self._reached]

    def due_in(self, slot: int) -> list[Waiting]:
        """Return the signatures that wait in one slot."""
        return [Waiting(slot, signature, told.denials) for signature, told in self._waiting.get(slot, {}).items()]

    def answered(self, asked: Sequence[Waiting], answers: Sequence[Answer]) -> list[Proven]:
        """Take the answers of one or several endpoints to one request. Return the results."""

        def judge(number: int, slot: int, told: _Unproven) -> bool | str | None:
            return _is_there(slot, told.succeeded, [(answer, answer.words[number]) for answer in answers])

        return self._settle(asked, judge)

    def listed(self, asked: Sequence[Waiting], signatures: Container[str]) -> list[Proven]:
        """Take all signatures that endpoints list for the block of the slot. Return the results.

        Whether a transaction succeeded is left open.
        """
        return self._settle(asked, lambda number, _slot, _told: asked[number].signature in signatures)

    def _settle(
        self, asked: Sequence[Waiting], judge: Callable[[int, int, _Unproven], bool | str | None]
    ) -> list[Proven]:
        """Remove the signatures that `judge` decides, and return them. A first denial is only counted."""
        landed: dict[int, list[str]] = {}
        absent: dict[int, list[str]] = {}
        for number, (slot, signature, _) in enumerate(asked):
            told = self._waiting.get(slot, {}).get(signature)
            if told is None:
                continue
            there = judge(number, slot, told)
            if there is False:
                told.denials += 1
            if there is None or (there is False and told.denials < DENIALS):
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
        """Return the signatures that waited too long, and forget results too old to be repeated."""
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
    """Return whether a signature is in the slot's block, by the statuses of several endpoints; None if unknown.

    - "elsewhere": it is in another block, or has another outcome.
    - False: an endpoint that must know it does not.
    """
    statuses = [word for _, word in words if isinstance(word, Status) and word.confirmed]
    if any(status.slot == slot and status.succeeded == succeeded for status in statuses):
        return True
    if statuses:
        return "elsewhere"
    if any(isinstance(word, Status) for _, word in words):
        return None  # not confirmed at these nodes yet
    return False if any(word is None and _must_know(answer, slot) for answer, word in words) else None


def _must_know(answer: Answer, slot: int) -> bool:
    is_past = answer.slot >= slot + AHEAD_SLOTS
    return is_past and (answer.history or answer.slot <= slot + REMEMBERED_SLOTS)
