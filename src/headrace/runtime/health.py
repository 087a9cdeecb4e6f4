"""Who is ready: each component reports its own state, `/health/ready` shows them all."""

from typing import NamedTuple


class ComponentHealth(NamedTuple):
    """`ready` decides the HTTP status, `detail` is one line for a person (no secrets, no internals)."""

    ready: bool
    detail: str


class Health:
    """The board that components write and the gateway reads. `required=False` shows without deciding readiness."""

    def __init__(self) -> None:
        self._components: dict[str, ComponentHealth] = {}
        self._optional: set[str] = set()

    def report(self, component: str, *, ready: bool, detail: str = "", required: bool = True) -> None:
        """Set one component's state, replacing what it said before."""
        self._components[component] = ComponentHealth(ready, detail)
        if required:
            self._optional.discard(component)
        else:
            self._optional.add(component)

    def forget(self, component: str) -> None:
        """Remove a component that no longer exists."""
        self._components.pop(component, None)
        self._optional.discard(component)

    @property
    def ready(self) -> bool:
        """Whether every required component is ready."""
        return all(state.ready for name, state in self._components.items() if name not in self._optional)

    def components(self) -> dict[str, ComponentHealth]:
        """All components by name, sorted."""
        return dict(sorted(self._components.items()))
