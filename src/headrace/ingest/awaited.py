"""Log lines whose trade waits until its pool's mints are known. Pure and bounded."""

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from headrace.model.updates import LogsUpdate

HELD_MAX: Final = 4_096
HELD_BYTES_MAX: Final = 16 * 1024 * 1024
REFUSED_MAX: Final = 10_000

Ask: TypeAlias = Callable[[str, str], None]
"""Requests the mints of a pool, by its key and its program's id. The answer is always sent, as a PoolUpdate."""


class AwaitedPools:
    """Holds log lines by the pools that they wait for. Without `ask` nothing waits.

    `takes` is False beyond HELD_MAX transactions or HELD_BYTES_MAX bytes of lines, and for a key that is known to be no
    pool. The trade is then published without its mints.
    """

    def __init__(self, ask: Ask | None) -> None:
        self.ask = ask
        self._held: dict[str, dict[tuple[int, str], LogsUpdate]] = {}
        self._count = self._bytes = 0
        self._refused: dict[str, None] = {}

    def __len__(self) -> int:
        return self._count

    def takes(self, pool: str) -> bool:
        """Return whether a trade of the pool may wait for its mints."""
        room = self._count < HELD_MAX and self._bytes < HELD_BYTES_MAX
        return self.ask is not None and room and pool not in self._refused

    def hold(self, pool: str, program_id: str, update: LogsUpdate) -> None:
        """Keep the lines until the pool's mints are answered; request them if no line waits for the pool yet."""
        held = self._held.get(pool)
        if held is None:
            held = self._held[pool] = {}
            if self.ask is not None:
                self.ask(pool, program_id)
        key = (update.slot, update.signature)
        if key not in held:
            held[key] = update
            self._count += 1
            self._bytes += _size(update)

    def answered(self, pool: str, state: Literal["known", "none", "unanswered"]) -> list[LogsUpdate]:
        """Return the lines that waited for the pool, in their order, and stop holding them."""
        if state == "none":
            if len(self._refused) >= REFUSED_MAX:
                del self._refused[next(iter(self._refused))]
            self._refused[pool] = None
        held = list(self._held.pop(pool, {}).values())
        self._count -= len(held)
        self._bytes -= sum(map(_size, held))
        return held


def _size(update: LogsUpdate) -> int:
    return sum(map(len, update.logs))
