"""Who is ready: each part reports its own state, `/health/ready` shows them all."""

from typing import Final, NamedTuple

from headrace.model.redact import redact
from headrace.runtime.clock import Clock, SystemClock

_DETAIL_LENGTH_MAX: Final = 200


class ComponentHealth(NamedTuple):
    """`ready` decides the HTTP status if `required`, `detail` is one line for a person (no secrets, no internals).

    `since_ms` is the wall time at which it last became, or ceased to be, ready. `last_error` is the newest `detail` of
    a time when it was not, None if it always was, and `last_error_ms` when that was first said.
    """

    ready: bool
    detail: str
    required: bool = True
    since_ms: int = 0
    last_error: str | None = None
    last_error_ms: int | None = None


class Health:
    """The board that parts write and the gateway reads. `required=False` shows without deciding readiness."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._components: dict[str, ComponentHealth] = {}

    def report(self, component: str, *, ready: bool, detail: str = "", required: bool = True) -> None:
        """Set one component's state, replacing what it said before. `detail` becomes one redacted line."""
        line = redact(" ".join(detail[: 4 * _DETAIL_LENGTH_MAX].split()))[:_DETAIL_LENGTH_MAX]
        before, now_ms = self._components.get(component), self._clock.wall_ns() // 1_000_000
        since_ms = before.since_ms if before is not None and before.ready == ready else now_ms
        error, error_ms = (before.last_error, before.last_error_ms) if before is not None else (None, None)
        if not ready and (error != line or since_ms == now_ms):
            error, error_ms = line, now_ms
        self._components[component] = ComponentHealth(ready, line, required, since_ms, error, error_ms)

    def forget(self, component: str) -> None:
        """Remove a component that no longer exists."""
        self._components.pop(component, None)

    @property
    def ready(self) -> bool:
        """Return whether every required component is ready."""
        return all(state.ready for state in self._components.values() if state.required)

    def components(self) -> dict[str, ComponentHealth]:
        """All components by name, sorted."""
        return dict(sorted(self._components.items()))
