"""Whether the process lives, whether it is ready, and its metrics."""

from typing import Any, Final

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.openapi.datastructures import ResponseSpec

from headrace.gateway.routes import guards
from headrace.gateway.routes.context import context_of
from headrace.runtime.metrics import Metrics


class Component(msgspec.Struct, frozen=True):
    """One part's own word on its state."""

    ready: bool
    detail: str


class Readiness(msgspec.Struct, frozen=True):
    """`ready` when every part that is needed is; then the HTTP status is 200, else 503."""

    status: str
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
    """Every part's state; 503 while one that is needed is not ready."""
    health = context_of(request).health
    components = {name: Component(state.ready, state.detail) for name, state in health.components().items()}
    body = Readiness("ready" if health.ready else "not ready", components)
    return Response(body, status_code=200 if health.ready else 503)


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
    return Response(context_of(request).metrics.render(), media_type=media_type)


HANDLERS: Final = (liveness, readiness)
METRICS_HANDLERS: Final = (prometheus,)
