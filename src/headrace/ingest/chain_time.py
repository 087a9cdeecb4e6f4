"""When something happened, by the chain's own clock. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from headrace.model.updates import LogsUpdate, TransactionUpdate

SLOTS_PER_2_S: Final = 5
"""A slot takes 400 ms."""
TIME_S_MAX: Final = 2**32

_STAMPS: Final = ("timestamp", "current_timestamp")
"""How swap events name the chain's clock, where they tell it."""


class ChainTime:
    """The time of a transaction in Unix seconds: its block's, or the one that its event tells, or reckoned by slots
    from the last one that was told; before any was told, the time of its arrival."""

    def __init__(self) -> None:
        self._slot = self._time_s = 0

    def of(self, update: LogsUpdate | TransactionUpdate, fields: Mapping[str, Any]) -> int:
        """`fields` are those of an event of this transaction."""
        told = update.block_time_s if isinstance(update, TransactionUpdate) else None
        for name in _STAMPS:
            if told is None:
                told = fields.get(name)
        if isinstance(told, int) and 0 < told < TIME_S_MAX:
            self._slot, self._time_s = update.slot, told
            return told
        if self._time_s:
            return max(0, self._time_s + (update.slot - self._slot) * 2 // SLOTS_PER_2_S)
        return update.received_ns // 10**9
