"""The time by which ages are measured: what a database has seen go by, whatever any clock says."""

from typing import Final

from headrace.runtime.clock import Clock

READ: Final = "select ms from observed where name = 'time'"
SEEN: Final = """insert into observed as o (name, ms) values ('time', ?1)
    on conflict (name) do update set ms = case when ?1 > o.ms then ?1 else o.ms end returning ms"""
"""Writes down how far time is for one process; returns how far it is for the database, in ms. `?1` as in SQLite."""


class ObservedTime:
    """Milliseconds that go on from where the database was by this process's monotonic clock.

    Processes on one database are together as far as the furthest of them, and none runs faster than time. While none
    runs it stands. So a wall clock that is set wrong, here or on another machine, makes nothing older.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ms: int | None = None
        self._at_s = 0.0

    def now_ms(self) -> int:
        """The time now. Before `learn`: the wall clock's, from which a new database begins."""
        if self._ms is None:
            return self._clock.wall_ns() // 1_000_000
        return self._ms + round((self._clock.monotonic() - self._at_s) * 1000)

    def learn(self, ms: int) -> None:
        """The database is this far; nothing happens when this process is further."""
        if self._ms is None or ms > self.now_ms():
            self._ms, self._at_s = ms, self._clock.monotonic()
