"""A circuit breaker.

It stops calls to a service that keeps failing, and sends one probe to learn when it works again.
"""

from collections import deque
from typing import Literal, TypeAlias

from headrace.runtime.backoff import Backoff

BreakerState: TypeAlias = Literal["closed", "open", "half_open"]


class Breaker:
    """A state machine that is given the time in monotonic seconds; it has no clock and no task.

    ```
    closed ── failures_max failures within window_s ──> open
    open ── cool-down over, allow() ──> half_open (that one call is the probe)
    half_open ── success ──> closed          half_open ── failure ──> open, with a longer cool-down
    ```

    The cool-down comes from a Backoff, so it has jitter and grows while probes fail. A probe that never reports (its
    task was cancelled) is given up after `window_s`; the next `allow` is then a probe. A report that arrives while the
    breaker is open belongs to an earlier call and changes nothing.
    """

    def __init__(self, failures_max: int = 5, window_s: float = 30.0, cooldown: Backoff | None = None) -> None:
        if failures_max < 1 or not window_s > 0:
            raise ValueError(f"failures_max={failures_max} window_s={window_s}: expected 1 or more, and more than 0")
        self.state: BreakerState = "closed"
        self._failures_max, self._window_s = failures_max, window_s
        self._cooldown = cooldown or Backoff(initial_s=5.0, max_s=60.0)
        self._failures: deque[float] = deque(maxlen=failures_max)
        self._until = 0.0  # open: end of the cool-down; half-open: when the probe is given up

    def allow(self, now: float) -> bool:
        """Return whether a call may be made now. After True, report its end with `success` or `failure`."""
        if self.state == "closed":
            return True
        if now < self._until:
            return False
        self.state = "half_open"
        self._until = now + self._window_s
        return True

    def success(self) -> None:
        """Report a call that worked. Earlier failures are still counted within their window."""
        if self.state == "half_open":
            self.state = "closed"
            self._cooldown.reset()

    def failure(self, now: float) -> None:
        """Report a call that failed because of a problem of the service, not because it refused this one request."""
        if self.state == "open":
            return
        self._failures.append(now)
        full = len(self._failures) == self._failures_max and now - self._failures[0] <= self._window_s
        if self.state == "half_open" or full:
            self.state = "open"
            self._failures.clear()
            self._until = now + self._cooldown.next_s()

    def retry_in_s(self, now: float) -> float:
        """Return the seconds until `allow` may return True; 0 if a call may be made now."""
        return 0.0 if self.state == "closed" else max(0.0, self._until - now)
