"""Clocks of the contract suites whose verbs go by age."""

from headrace.runtime.clock import ManualClock


class WrongClock(ManualClock):
    """A clock whose wall time somebody sets."""

    off_s = 0.0

    def wall_ns(self) -> int:
        return super().wall_ns() + round(self.off_s * 1e9)
