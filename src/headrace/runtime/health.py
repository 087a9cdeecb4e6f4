"""Readiness of the parts of a process. Each part reports its own state, and `/health/ready` shows all states."""

from typing import Final, NamedTuple

from headrace.model.redact import redact
from headrace.runtime.clock import Clock, SystemClock

_DETAIL_LENGTH_MAX: Final = 200


class ComponentHealth(NamedTuple):
    """State of one part.

    If `required`, `ready` decides the HTTP status. `detail` is one line for a person, without secrets. `since_ms` is
    the wall time of the last change of `ready`. `last_error` is the newest `detail` reported while the part was not
    ready, or None if it was always ready. `last_error_ms` is the wall time at which that detail was first reported.
    """

    ready: bool
    detail: str
    required: bool = True
    since_ms: int = 0
    last_error: str | None = None
    last_error_ms: int | None = None


class Health:
    """States that the parts report and the gateway reads. A part with `required=False` is shown but decides nothing."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._components: dict[str, ComponentHealth] = {}

    def report(self, component: str, *, ready: bool, detail: str = "", required: bool = True) -> None:
        """Set the state of one part in place of its previous state. `detail` becomes one redacted line."""
        line = redact(" ".join(detail[: 4 * _DETAIL_LENGTH_MAX].split()))[:_DETAIL_LENGTH_MAX]
        before, now_ms = self._components.get(component), self._clock.wall_ns() // 1_000_000
        since_ms = before.since_ms if before is not None and before.ready == ready else now_ms
        error, error_ms = (before.last_error, before.last_error_ms) if before is not None else (None, None)
        if not ready and (error != line or since_ms == now_ms):
            error, error_ms = line, now_ms
        self._components[component] = ComponentHealth(ready, line, required, since_ms, error, error_ms)

    def forget(self, component: str) -> None:
        """Remove a part that no longer exists."""
        self._components.pop(component, None)

    @property
    def ready(self) -> bool:
        """Return whether every required part is ready."""
        return all(state.ready for state in self._components.values() if state.required)

    def components(self) -> dict[str, ComponentHealth]:
        """Return all parts by name, sorted."""
        return dict(sorted(self._components.items()))
