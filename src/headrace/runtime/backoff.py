"""Delays between tries: exponential with jitter, so that a thousand clients do not return at the same moment."""

import math
import random


class Backoff:
    """Delays in seconds between tries.

    After `n` tries a delay is uniform between half and all of `initial_s * factor**n`, at most `max_s`. Use one Backoff
    for each thing that is retried. `rng` is for tests.
    """

    def __init__(
        self, initial_s: float = 0.5, max_s: float = 30.0, factor: float = 2.0, rng: random.Random | None = None
    ) -> None:
        if not (0 < initial_s <= max_s and math.isfinite(max_s) and factor >= 1):
            raise ValueError(
                f"initial_s={initial_s} max_s={max_s} factor={factor}: expected 0 < initial_s <= max_s, factor >= 1"
            )
        self.initial_s, self.max_s, self.factor = initial_s, max_s, factor
        self.tries = 0
        self._ceiling_s = initial_s
        self._uniform = rng.uniform if rng is not None else random.uniform

    def next_s(self) -> float:
        """Return the next delay. Each call without `reset` may return a longer delay, up to `max_s`."""
        ceiling_s = self._ceiling_s
        self._ceiling_s = min(self.max_s, ceiling_s * self.factor)
        self.tries += 1
        return self._uniform(ceiling_s / 2, ceiling_s)

    def reset(self) -> None:
        """Go back to `initial_s` for the next failure. Call it after a success."""
        self.tries = 0
        self._ceiling_s = self.initial_s
