"""Whether the process lives, whether it is ready, and its metrics."""

from typing import Any, Final, Literal

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.openapi.datastructures import ResponseSpec

from headrace.gateway.routes import guards
from headrace.gateway.routes.context import context_of
from headrace.runtime.metrics import Metrics


class Component(msgspec.Struct, frozen=True):
    """One part's own word on its state. Times are wall time in milliseconds since 1970.

    `required`: readiness needs it. `since`: when `ready` last changed. `last_error`, and `last_error_at`: why it was
    last not ready; null if it always was.
    """

    ready: bool
    required: bool
    since: int
    detail: str
    last_error: str | None
    last_error_at: int | None


class Readiness(msgspec.Struct, frozen=True):
    """`ready` when every part that is required is; then the HTTP status is 200, else 503."""

    status: Literal["ready", "not ready"]
    components: dict[str, Component]


class Liveness(msgspec.Struct, frozen=True):
    status: str = "live"


@get("/health/live", operation_id="isAlive", summary="Liveness", tags=["server"], opt=guards.OPEN, sync_to_thread=False)
def liveness() -> Liveness:
    """The process answers."""
    return Liveness()


@get(
    "/health/ready",
    operation_id="isReady",
    summary="Readiness",
    tags=["server"],
    opt=guards.OPEN,
    sync_to_thread=False,
    responses={503: ResponseSpec(Readiness, description="Not ready")},
)
def readiness(request: Request[Any, Any, Any]) -> Response[Readiness]:
    """Every part's state; 503 while one that is required is not ready."""
    parts = context_of(request).parts.health.components()
    components = {
        name: Component(it.ready, it.required, it.since_ms, it.detail, it.last_error, it.last_error_ms)
        for name, it in parts.items()
    }
    ready = all(it.ready for it in parts.values() if it.required)
    return Response(Readiness("ready" if ready else "not ready", components), status_code=200 if ready else 503)


@get(
    "/metrics",
    operation_id="readMetrics",
    summary="Metrics",
    tags=["server"],
    opt=guards.OPEN,
    guards=[guards.metrics_reader],
    sync_to_thread=True,
    media_type=MediaType.TEXT,
)  # it reads files under /proc
def prometheus(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Prometheus text."""
    media_type, _, _charset = Metrics.content_type.rpartition("; ")  # Litestar adds it
    return Response(context_of(request).parts.metrics.render(), media_type=media_type)


HANDLERS: Final = (liveness, readiness)
METRICS_HANDLERS: Final = (prometheus,)
