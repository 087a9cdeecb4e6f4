"""The chain's head, from the slots that several witnesses report; a high slot alone proves nothing. Pure.

Gaps are measured from the head. If the head were the highest slot that any witness ever reported, one wrong number
would hide every later loss. Therefore a slot counts only if the witness's next slots confirm it, or another witness
does. If a witness continues from an earlier slot, the slots that it reported in between are taken back, and the head
falls.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Final

STEP: Final = 8
"""Maximum number of slots from one head of a witness to its next without a confirmation: two leaders make no block."""
RATE_PER_S: Final = 6
"""Maximum number of slots that the chain produces in a second.

For each second, this many more may lie between two heads.
"""
NEAR: Final = 64
"""Maximum number of slots by which a slot may be below another witness's head that confirms it."""
APART: Final = 512
"""Maximum number of slots between two witnesses that agree. No working node is further behind."""
BORNE_OUT: Final = 3
"""Number of consecutive slots of one witness that confirm a jump, the first included; one less if it has no head
yet."""
RUNS_MAX: Final = 4


class _Run:
    """Slots of one witness that follow each other."""

    __slots__ = ("at", "count", "last")

    def __init__(self, slot: int, now: float) -> None:
        self.last, self.at, self.count = slot, now, 1

    def reaches(self, slot: int, now: float) -> bool:
        return -STEP <= slot - self.last <= STEP + RATE_PER_S * max(0.0, now - self.at)


class Climb:
    """Heads of one witness. `slot` is the newest that counts (0: none). `wild` is the number of slots taken back."""

    def __init__(self) -> None:
        self.slot = self.wild = self.wildest = 0
        self.at = 0.0
        self._held: _Run | None = None
        self._runs: list[_Run] = []

    def hear(self, slot: int, now: float, others: int = 0, others_at: float | None = None) -> bool:
        """Take a slot. Return whether it counts.

        `others` is the head according to all other witnesses at the time `others_at`; 0 if there is none.
        """
        fits = [run for run in self._runs if run.reaches(slot, now)]
        if not fits:
            run = self._begin(slot, now)
        else:
            run = min(fits, key=lambda each: abs(slot - each.last))
            if slot > run.last:
                run.last, run.at, run.count = slot, now, run.count + 1
        passed_s = 0.0 if others_at is None else now - others_at
        agrees = others and -NEAR <= slot - others <= STEP + RATE_PER_S * passed_s
        if self._held is not None and self._held.last - APART <= slot < self._held.last:
            agrees = False  # a late slot: even if another late witness agrees, it is not the head
        if run is not self._held and not (agrees or self._is_borne_out(run)):
            # late but valid, though not higher
            return self._held is not None and self._held.last - APART <= slot < self._held.last
        if self._held is not None and self._held is not run and self._held.last > run.last:
            self._note_wild(self._held.last)
            self._held.count = 0
        self._held, self.slot, self.at = run, run.last, run.at
        self._drop_others()
        return True

    def _begin(self, slot: int, now: float) -> _Run:
        run = _Run(slot, now)
        self._runs.append(run)
        if len(self._runs) > RUNS_MAX:
            self._runs.remove(next(each for each in self._runs if each is not self._held))
        return run

    def _is_borne_out(self, run: _Run) -> bool:
        return run.count >= (BORNE_OUT if self._held is not None else BORNE_OUT - 1)

    def _drop_others(self) -> None:
        """Forget the slots reported in between: the witness continues from its head."""
        for run in self._runs:
            if run is not self._held and run.count:
                run.count = 0
                if run.last > self.slot:
                    self._note_wild(run.last)

    def _note_wild(self, slot: int) -> None:
        self.wild += 1
        self.wildest = max(self.wildest, slot)


class Heads:
    """Heads of all witnesses, by name."""

    def __init__(self) -> None:
        self._climbs: dict[str, Climb] = {}
        self._last, self._last_at = 0, 0.0

    @property
    def slot(self) -> int:
        """The head of the chain; 0 while it is unknown."""
        return self._agreed(climb.slot for climb in self._climbs.values()) or self._last

    def of(self, witness: str) -> Climb:
        """Return the heads of one witness."""
        return self._climbs.setdefault(witness, Climb())

    def others(self, witness: str, now: float) -> int:
        """Return the head according to all other witnesses. Without any, estimate it from the last known head."""
        slot = self._agreed(climb.slot for name, climb in self._climbs.items() if name != witness)
        return slot or (self._last + round(RATE_PER_S / 2 * (now - self._last_at)) if self._last else 0)

    def _others_at(self, witness: str) -> float:
        known = [climb.at for name, climb in self._climbs.items() if name != witness and climb.slot]
        return max(known, default=self._last_at)

    def hear(self, witness: str, slot: int, now: float) -> bool:
        """Take a slot that a witness reports. Return whether it counts. Two witnesses that agree overrule a third."""
        counts = self.of(witness).hear(slot, now, self.others(witness, now), self._others_at(witness))
        believed = self.slot
        if believed:
            self._last, self._last_at = believed, now
        return counts and witness not in self.contradicted()

    def forget(self, witness: str) -> None:
        """Forget a witness that is gone."""
        self._last = self.slot
        self._climbs.pop(witness, None)

    def ahead(self) -> dict[str, int]:
        """Return, for each witness that contradicts the head, by how many slots it is ahead."""
        believed = self.slot
        return {name: climb.slot - believed for name, climb in self._climbs.items() if climb.slot > believed + APART}

    def contradicted(self) -> set[str]:
        """Return the witnesses that are far ahead of a head on which at least two witnesses agree."""
        believed = self.slot
        agree = sum(abs(climb.slot - believed) <= APART for climb in self._climbs.values() if climb.slot)
        return set(self.ahead()) if agree >= 2 else set()

    def can_be(self, slot: int, witness: str, now: float) -> bool:
        """Return whether an update that the witness delivered can be from `slot`."""
        base = self.of(witness).slot or self.others(witness, now)
        return not base or slot <= base + APART + RATE_PER_S * max(0.0, now - self._last_at)

    @staticmethod
    def _agreed(slots: Iterable[int]) -> int:
        """Return the highest slot that another slot confirms; if no two agree, the lowest.

        A head that is too low declares too many gaps; a head that is too high hides all of them.
        """
        known = sorted((slot for slot in slots if slot), reverse=True)
        for slot, below in pairwise(known):
            if slot - below <= APART:
                return slot
        return known[-1] if known else 0
