"""Observed time, by which ages are measured: the time that a database has seen go by, whatever any clock says."""

from typing import Final

from headrace.runtime.clock import Clock

READ: Final = "select ms from observed where name = 'time'"
SEEN: Final = """insert into observed as o (name, ms) values ('time', ?1)
    on conflict (name) do update set ms = case when ?1 > o.ms then ?1 else o.ms end returning ms"""
"""SQL that writes down how far time is for a process, `?1`, and returns how far it is for the database, in ms."""


class ObservedTime:
    """Milliseconds that go on, by this process's monotonic clock, from where the database was.

    Processes on one database are together as far as the furthest of them, and none runs faster than time. While no
    process runs, observed time stands. So a wall clock that is set wrong, on any machine, makes nothing older.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ms: int | None = None
        self._at_s = 0.0

    def now_ms(self) -> int:
        """Return the observed time in ms. Before `learn`: the wall clock's, from which a new database begins."""
        if self._ms is None:
            return self._clock.wall_ns() // 1_000_000
        return self._ms + round((self._clock.monotonic() - self._at_s) * 1000)

    def learn(self, ms: int) -> None:
        """Go on from the database's time, unless this process is further."""
        if self._ms is None or ms > self.now_ms():
            self._ms, self._at_s = ms, self._clock.monotonic()
