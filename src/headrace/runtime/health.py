"""Readiness of the parts of a process. Each part reports its own state, and `/health/ready` shows all states."""

import re
from typing import Final, NamedTuple

from headrace.model.redact import HIDDEN, redact
from headrace.runtime.clock import Clock, SystemClock

NOT_ASKED: Final = "not asked yet"
"""Detail of a part before its first report."""

_DETAIL_LENGTH_MAX: Final = 200

_PLACE: Final = re.compile(
    r"""
    (?:(?<=host[ ]name[ ])|(?<=server[ ]at[ ]))["'][^"']+["']  # PostgreSQL and look-ups quote names
    | (?<=://)[^\s"'<>]+                                       # all of a URL but its scheme
    | \[[0-9A-Fa-f:.]+\](?::\d{1,5})?                          # IPv6
    | (?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}\b
    | \b\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?\b                # IPv4
    | (?<![\w.-])[A-Za-z][\w.-]*:\d{2,5}\b                    # host:port
    | (?<![\w.:/])(?:~|\.{1,2})?/[^\s"'<>:;,()]+              # a path
    | (?<![\w.-])\w[\w-]*(?:\.[\w-]+)*\.[A-Za-z][\w-]*        # a name with dots: of a host or a file
    """,
    re.VERBOSE,
)


class ComponentHealth(NamedTuple):
    """State of one part.

    If `required`, `ready` decides the HTTP status. `detail` is one line for a person, without secrets, hosts and files.
    `since_ms` is the wall time of the last change of `ready`. `last_error` is the newest `detail` reported while the
    part was not ready, or None if it was always ready or not asked yet. `last_error_ms` is the wall time at which that
    detail was first reported.
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

    def expect(self, component: str, *, required: bool = True) -> None:
        """Add a part that is not ready until its first report. No error is noted, as none is known."""
        now_ms = self._clock.wall_ns() // 1_000_000
        self._components[component] = ComponentHealth(False, NOT_ASKED, required, now_ms)

    def report(self, component: str, *, ready: bool, detail: str = "", required: bool = True) -> None:
        """Set the state of one part in place of its previous state.

        `detail` becomes one line in which secrets, hosts and files are hidden, because anyone may read it.
        """
        line = redact(" ".join(detail[: 4 * _DETAIL_LENGTH_MAX].split()))
        line = _PLACE.sub(HIDDEN, line)[:_DETAIL_LENGTH_MAX]
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
