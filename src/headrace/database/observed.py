"""Observed time, by which ages are measured: how long a database was in use, whatever any clock shows."""

from typing import Final

from headrace.runtime.clock import Clock

READ: Final = "select ms from observed where name = 'time'"
SEEN: Final = """insert into observed as o (name, ms) values ('time', ?1)
    on conflict (name) do update set ms = case when ?1 > o.ms then ?1 else o.ms end returning ms"""
"""SQL that stores a process's observed time, `?1` in ms, if it is later than the database's, and returns the later
one."""


class ObservedTime:
    """Milliseconds that continue from the database's stored time by this process's monotonic clock.

    Processes on one database all follow the one that is furthest ahead, and none runs faster than real time. While no
    process runs, observed time stops. A wall clock that is set wrong on any machine therefore makes no stored row
    older.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ms: int | None = None
        self._at_s = 0.0

    def now_ms(self) -> int:
        """Return the observed time in ms.

        Before `learn` it is the wall clock's time, with which a new database begins.
        """
        if self._ms is None:
            return self._clock.wall_ns() // 1_000_000
        return self._ms + round((self._clock.monotonic() - self._at_s) * 1000)

    def learn(self, ms: int) -> None:
        """Continue from the database's time if it is later than this process's."""
        if self._ms is None or ms > self.now_ms():
            self._ms, self._at_s = ms, self._clock.monotonic()
