"""Who is ready: each component reports its own state, `/health/ready` shows them all."""

from typing import Final, NamedTuple

from headrace.model.redact import redact

_DETAIL_LENGTH_MAX: Final = 200


class ComponentHealth(NamedTuple):
    """`ready` decides the HTTP status if `required`, `detail` is one line for a person (no secrets, no internals)."""

    ready: bool
    detail: str
    required: bool = True


class Health:
    """The board that components write and the gateway reads. `required=False` shows without deciding readiness."""

    def __init__(self) -> None:
        self._components: dict[str, ComponentHealth] = {}

    def report(self, component: str, *, ready: bool, detail: str = "", required: bool = True) -> None:
        """Set one component's state, replacing what it said before. `detail` becomes one redacted line."""
        line = redact(" ".join(detail[: 4 * _DETAIL_LENGTH_MAX].split()))[:_DETAIL_LENGTH_MAX]
        self._components[component] = ComponentHealth(ready, line, required)

    def forget(self, component: str) -> None:
        """Remove a component that no longer exists."""
        self._components.pop(component, None)

    @property
    def ready(self) -> bool:
        """Whether every required component is ready."""
        return all(state.ready for state in self._components.values() if state.required)

    def components(self) -> dict[str, ComponentHealth]:
        """All components by name, sorted."""
        return dict(sorted(self._components.items()))
