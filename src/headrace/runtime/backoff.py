"""How long to wait before the next try: exponential with jitter, so that a thousand clients do not return at once."""

import random


class Backoff:
    """Delays in seconds: uniform between half and all of `initial_s * factor**tries`, capped at `max_s`.

    `rng` is given by tests; one Backoff belongs to one thing that is retried.
    """

    def __init__(
        self, initial_s: float = 0.5, max_s: float = 30.0, factor: float = 2.0, rng: random.Random | None = None
    ) -> None:
        if not 0 < initial_s <= max_s or factor < 1:
            raise ValueError(
                f"initial_s={initial_s} max_s={max_s} factor={factor}: expected 0 < initial_s <= max_s, factor >= 1"
            )
        self.initial_s, self.max_s, self.factor = initial_s, max_s, factor
        self._rng = rng or random.Random()  # noqa: S311  (jitter, not a secret)
        self.tries = 0

    def next_s(self) -> float:
        """The next delay; each call without `reset` waits longer, up to `max_s`."""
        ceiling = self.initial_s
        for _ in range(self.tries):
            ceiling *= self.factor
            if ceiling >= self.max_s:
                break
        self.tries += 1
        ceiling = min(ceiling, self.max_s)
        return self._rng.uniform(ceiling / 2, ceiling)

    def reset(self) -> None:
        """It worked: the next failure starts from `initial_s` again."""
        self.tries = 0
