"""When something happened, by the chain's own clock. Pure."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from headrace.model.updates import LogsUpdate, TransactionUpdate
from headrace.programs.meanings import STAMPS

TIME_S_MAX: Final = 2**32
SLOT_S_MIN: Final = 0.05
SLOT_S_MAX: Final = 0.6
"""What a slot can take: mainnet's were 400 ms for years, in 2026 they are 200 to 350 ms and shrinking."""
SLOT_S_FIRST: Final = 0.3
"""What a slot is taken to last before any length was learned."""

SPAN_MIN: Final = 256
"""Slots over which a length is learned: block times are whole seconds, so over fewer the error is above 2 %."""
SPAN_MAX: Final = 4_096
"""Slots after which older ones no longer count."""

SLACK_S: Final = 120
"""How far a block's time may be from what its slot allows: validators' clocks, a short halt of the chain."""


class _Mark(NamedTuple):
    """A slot and its time in Unix seconds."""

    slot: int
    time_s: int


class ChainTime:
    """The time of a transaction in Unix seconds.

    That is its block's time, or that of its event, or reckoned by slots from the last one given; before any was given,
    the time of its arrival.

    The length of a slot is learned from the times of slots that are SPAN_MIN or more apart. A time that no slot length
    between SLOT_S_MIN and SLOT_S_MAX explains is wild: it holds for its own transaction, but nothing is reckoned from
    it, unless a second one in another slot agrees with it (then the chain stood still, or the first one was wild); then
    what was learned is given up.
    """

    def __init__(self) -> None:
        self.slot_s = SLOT_S_FIRST
        self._last: _Mark | None = None
        self._since: _Mark | None = None
        self._wild: _Mark | None = None

    def of(self, update: LogsUpdate | TransactionUpdate, fields: Mapping[str, Any], *, learn: bool = True) -> int:
        """Return the time of a transaction of which one event has these fields.

        Without `learn` nothing is reckoned from this time later.
        """
        given = update.block_time_s if isinstance(update, TransactionUpdate) else None
        for name in STAMPS:
            if given is None:
                given = fields.get(name)
        if isinstance(given, int) and 0 < given < TIME_S_MAX:
            if learn:
                self._learn(_Mark(update.slot, given))
            return given
        if self._last is None:
            return update.received_ns // 10**9
        return max(0, self._last.time_s + round((update.slot - self._last.slot) * self.slot_s))

    def _learn(self, mark: _Mark) -> None:
        """Learn what the mark says of the length of slots, if it can be true."""
        if mark == self._last and self._wild is None:
            return  # most transactions of a slot say the same
        if self._last is not None and not _agree(self._last, mark):
            if self._wild is None or self._wild.slot == mark.slot or not _agree(self._wild, mark):
                self._wild = mark
                return
            self._since, self.slot_s = None, SLOT_S_FIRST
        self._last, self._wild = mark, None
        if self._since is None:
            self._since = mark
            return
        span = mark.slot - self._since.slot
        if span >= SPAN_MIN:
            length = (mark.time_s - self._since.time_s) / span
            self.slot_s = min(SLOT_S_MAX, max(SLOT_S_MIN, length))
        if span >= SPAN_MAX or span < 0:
            self._since = mark


def _agree(one: _Mark, other: _Mark) -> bool:
    """Return whether slots of some length lie between the two."""
    slots = abs(other.slot - one.slot)
    passed = (other.time_s - one.time_s) * (1 if other.slot >= one.slot else -1)
    return slots * SLOT_S_MIN - SLACK_S <= passed <= slots * SLOT_S_MAX + SLACK_S
