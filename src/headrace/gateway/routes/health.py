"""HTTP routes for liveness, readiness and metrics."""

from typing import Any, Final, Literal

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.openapi.datastructures import ResponseSpec

from headrace.gateway.routes import guards
from headrace.gateway.routes.context import context_of
from headrace.runtime.metrics import Metrics


class Component(msgspec.Struct, frozen=True):
    """The state of one part. Times are wall time in milliseconds since 1970.

    `required`: the server is ready only while this part is. `since`: when `ready` last changed. `last_error` and
    `last_error_at`: why and when the part was last not ready; null if it was always ready.
    """

    ready: bool
    required: bool
    since: int
    detail: str
    last_error: str | None
    last_error_at: int | None


class Readiness(msgspec.Struct, frozen=True):
    """`ready` if every required part is ready, with HTTP status 200; otherwise the status is 503."""

    status: Literal["ready", "not ready"]
    components: dict[str, Component]


class Liveness(msgspec.Struct, frozen=True):
    """The process answers."""

    status: str = "live"


@get("/health/live", operation_id="isAlive", summary="Liveness", tags=["server"], opt=guards.OPEN, sync_to_thread=False)
def liveness() -> Liveness:
    """Answer whenever the process is alive."""
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
    """Get the state of every part; 503 while a required part is not ready."""
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
    """Get metrics as Prometheus text."""
    media_type, _, _charset = Metrics.content_type.rpartition("; ")  # Litestar adds the charset
    return Response(context_of(request).parts.metrics.render(), media_type=media_type)


HANDLERS: Final = (liveness, readiness)
METRICS_HANDLERS: Final = (prometheus,)
