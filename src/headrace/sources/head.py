"""How far the chain is, by the words of several witnesses, none of which is believed for its height alone. Pure.

Gaps are measured from the head. Were it the highest slot that anybody ever named, one wild number would hide every
later loss. So a slot counts when the witness's next slots bear it out, or when another witness does; a witness that
goes on from where it was before takes back what it said in between, and then the head comes down.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Final

STEP: Final = 8
"""Slots between two heads of one witness that need no bearing out: two leaders who make nothing."""
RATE_PER_S: Final = 6
"""Slots that the chain may make in a second at most; so many more may lie between two heads."""
NEAR: Final = 64
"""A witness that is no further behind another one is borne out by it."""
APART: Final = 512
"""Witnesses that are further apart contradict each other: no node that works is so far behind."""
BORNE_OUT: Final = 3
"""Slots in a row of one witness that bear out a jump, the first one included; 2 while it has no head yet."""
RUNS_MAX: Final = 4


class _Run:
    """Slots of one witness that follow each other."""

    __slots__ = ("at", "count", "last")

    def __init__(self, slot: int, now: float) -> None:
        self.last, self.at, self.count = slot, now, 1

    def reaches(self, slot: int, now: float) -> bool:
        return -STEP <= slot - self.last <= STEP + RATE_PER_S * max(0.0, now - self.at)


class Climb:
    """The heads of one witness. `slot` is the newest that counts, 0 if none does; `wild` counts what was taken back."""

    def __init__(self) -> None:
        self.slot = self.wild = self.wildest = 0
        self.at = 0.0
        self._held: _Run | None = None
        self._runs: list[_Run] = []

    def hear(self, slot: int, now: float, others: int = 0, others_at: float | None = None) -> bool:
        """Return whether `slot` counts; `others` is the head by the other witnesses' word of the time `others_at`, 0 if
        there is none."""
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
            agrees = False  # a late slot, which another late witness does not make the head
        if run is not self._held and not (agrees or self._is_borne_out(run)):
            return self._held is not None and self._held.last - APART <= slot < self._held.last  # late, and not higher
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
        """The witness goes on from where it was: what it said in between does not count towards anything."""
        for run in self._runs:
            if run is not self._held and run.count:
                run.count = 0
                if run.last > self.slot:
                    self._note_wild(run.last)

    def _note_wild(self, slot: int) -> None:
        self.wild += 1
        self.wildest = max(self.wildest, slot)


class Heads:
    """The climbs of all witnesses, by name."""

    def __init__(self) -> None:
        self._climbs: dict[str, Climb] = {}
        self._last, self._last_at = 0, 0.0

    @property
    def slot(self) -> int:
        """The head that is believed; 0 while there is none."""
        return self._agreed(climb.slot for climb in self._climbs.values()) or self._last

    def of(self, witness: str) -> Climb:
        """Return the witness's own climb."""
        return self._climbs.setdefault(witness, Climb())

    def others(self, witness: str, now: float) -> int:
        """Return the head by all other witnesses' word; without any, what was last believed, as it may be now."""
        slot = self._agreed(climb.slot for name, climb in self._climbs.items() if name != witness)
        return slot or (self._last + round(RATE_PER_S / 2 * (now - self._last_at)) if self._last else 0)

    def _others_at(self, witness: str) -> float:
        known = [climb.at for name, climb in self._climbs.items() if name != witness and climb.slot]
        return max(known, default=self._last_at)

    def hear(self, witness: str, slot: int, now: float) -> bool:
        """A witness named `slot`; return whether it counts. It does not where two others agree on another head."""
        counts = self.of(witness).hear(slot, now, self.others(witness, now), self._others_at(witness))
        believed = self.slot
        if believed:
            self._last, self._last_at = believed, now
        return counts and witness not in self.contradicted()

    def forget(self, witness: str) -> None:
        """The witness is gone."""
        self._last = self.slot
        self._climbs.pop(witness, None)

    def ahead(self) -> dict[str, int]:
        """Return by how many slots a witness is ahead of the head that is believed, of those that contradict it."""
        believed = self.slot
        return {name: climb.slot - believed for name, climb in self._climbs.items() if climb.slot > believed + APART}

    def contradicted(self) -> set[str]:
        """Return the witnesses that are far ahead of a head on which two others agree."""
        believed = self.slot
        agree = sum(abs(climb.slot - believed) <= APART for climb in self._climbs.values() if climb.slot)
        return set(self.ahead()) if agree >= 2 else set()

    def can_be(self, slot: int, witness: str, now: float) -> bool:
        """Return whether something that the witness delivered can be of `slot`."""
        base = self.of(witness).slot or self.others(witness, now)
        return not base or slot <= base + APART + RATE_PER_S * max(0.0, now - self._last_at)

    @staticmethod
    def _agreed(slots: Iterable[int]) -> int:
        """The highest slot that another one is not far below; where none agree, the lowest: too low a head declares too
        much, too high a one nothing."""
        known = sorted((slot for slot in slots if slot), reverse=True)
        for slot, below in pairwise(known):
            if slot - below <= APART:
                return slot
        return known[-1] if known else 0
