"""The time of transactions, by the chain's own clock. Pure."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from headrace.model.updates import LogsUpdate, TransactionUpdate
from headrace.programs.meanings import STAMPS

TIME_S_MAX: Final = 2**32
SLOT_S_MIN: Final = 0.05
SLOT_S_MAX: Final = 0.6
"""Longest slot in seconds: on mainnet a slot took 400 ms for years, and in 2026 takes 200 to 350 ms and falling."""
SLOT_S_FIRST: Final = 0.3
"""Length of a slot in seconds that is assumed until a length is learned."""

SPAN_MIN: Final = 256
"""Fewest slots from which a length is learned: block times are whole seconds, so with fewer the error exceeds 2 %."""
SPAN_MAX: Final = 4_096
"""Number of slots after which older ones no longer count."""

SLACK_S: Final = 120
"""Maximum difference in seconds between a block's time and its expected time: validators' clocks differ, and the chain
may halt."""


class _Mark(NamedTuple):
    """A slot and its time in Unix seconds."""

    slot: int
    time_s: int


class ChainTime:
    """The time of a transaction in Unix seconds.

    That is its block's time or its event's time. Without either, it is computed from the last known time by the number
    of slots since. Before any time is known, it is the time of arrival.

    The length of a slot is learned from the times of slots at least SPAN_MIN apart. A time is wild if no slot length
    between SLOT_S_MIN and SLOT_S_MAX explains it. A wild time counts for its own transaction, but no other time is
    computed from it. If a second wild time, from another slot, agrees with it, the chain had halted or the earlier
    times were wrong: then what was learned is discarded.
    """

    def __init__(self) -> None:
        self.slot_s = SLOT_S_FIRST
        self._last: _Mark | None = None
        self._since: _Mark | None = None
        self._wild: _Mark | None = None

    def of(self, update: LogsUpdate | TransactionUpdate, fields: Mapping[str, Any], *, learn: bool = True) -> int:
        """Return the time of a transaction with an event that has these fields.

        Without `learn`, no later time is computed from it.
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
        """Learn the length of slots from the mark, if its time can be true."""
        if mark == self._last and self._wild is None:
            return  # most transactions of a slot have the same time
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
    """Return whether a possible slot length explains the time between the two."""
    slots = abs(other.slot - one.slot)
    passed = (other.time_s - one.time_s) * (1 if other.slot >= one.slot else -1)
    return slots * SLOT_S_MIN - SLACK_S <= passed <= slots * SLOT_S_MAX + SLACK_S
