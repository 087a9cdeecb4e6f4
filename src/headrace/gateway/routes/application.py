"""Puts the handlers together: problem details for every error, security headers on every answer, HEAD as GET."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final, cast

import structlog
from litestar import Litestar, MediaType, Request, Response, get
from litestar.datastructures import State
from litestar.enums import HttpMethod, ScopeType
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.config import OpenAPIConfig
from litestar.types import ASGIApp, ControllerRouterHandler, Message, Receive, Scope, Send

from headrace import __version__
from headrace.gateway.problems import PROBLEM_TYPE, Refused, problem
from headrace.gateway.routes import dashboard, health, live, topics
from headrace.gateway.routes.context import Context
from headrace.gateway.routes.cross_origin import CrossOrigin
from headrace.gateway.routes.order_shapes import describe
from headrace.model.orders import OrderRefused

HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
STRICT_CSP: Final = b"default-src 'none'; frame-ancestors 'none'"

_log = structlog.get_logger("gateway")


def build(context: Context, more: Sequence[ControllerRouterHandler] = ()) -> ASGIApp:
    """The ASGI application; `more` are handlers that a benchmark or a test adds."""
    switched: list[ControllerRouterHandler] = []
    if context.dashboard:
        switched += dashboard.HANDLERS
    if context.expose_metrics:
        switched += health.METRICS_HANDLERS
    app = Litestar(
        route_handlers=[*health.HANDLERS, *topics.HANDLERS, *live.HANDLERS, *switched, _schema, *more],
        exception_handlers={
            HTTPException: _on_http,
            Refused: _on_refused,
            OrderRefused: _on_order_refused,
            Exception: _on_defect,
        },
        openapi_config=OpenAPIConfig(title="Headrace", version=__version__, render_plugins=[], path="/schema/_"),
        state=State({"context": context}),
        logging_config=None,
        request_max_body_size=context.keeper.settings.body_bytes_max,
    )
    return _Outer(CrossOrigin(app, context.keeper.admission), context)


class _Outer:
    """What every request passes: the body's limit, HEAD answered as GET, and the headers of every answer."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app, self._context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                if not any(name == b"content-security-policy" for name, _ in headers):
                    headers.append((b"content-security-policy", STRICT_CSP))
                message = {**message, "headers": [*headers, *HEADERS]}
            await send(message)

        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not length.isdigit() or int(length) > self._context.keeper.settings.body_bytes_max:
            await _too_large(send_guarded)
            return
        if scope["method"] == "HEAD":
            scope = cast("Scope", {**scope, "method": HttpMethod.GET})  # uvicorn leaves the body out
        await self._app(scope, receive, send_guarded)


@get("/schema", include_in_schema=False, sync_to_thread=False)
def _schema(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
    """The OpenAPI description of this API."""
    return Response(describe(request.app.openapi_schema.to_schema()), media_type=MediaType.JSON)


def answer(status: int, detail: str = "", headers: dict[str, str] | None = None, **more: object) -> Response[bytes]:
    return Response(problem(status, detail, **more), status_code=int(status), media_type=PROBLEM_TYPE, headers=headers)


def _on_http(_request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Litestar's own: routing, validation, body size. Only what is wrong with the caller's parameters is shown."""
    status = error.status_code
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        wrong = [{"name": str(one.get("key", "")), "message": str(one.get("message", ""))} for one in error.extra]
        return answer(status, "a parameter is wrong", errors=wrong)
    return answer(status, headers=error.headers)


def _on_refused(_request: Request[Any, Any, Any], error: Refused) -> Response[bytes]:
    headers = {"Upgrade": "websocket"} if error.status == HTTPStatus.UPGRADE_REQUIRED else None
    return answer(error.status, error.detail, headers)


def _on_order_refused(_request: Request[Any, Any, Any], error: OrderRefused) -> Response[bytes]:
    """The members of an order's problem, beside those of RFC 9457, are a promise to clients."""
    wait_ms = error.retry_after_ms
    headers = None if wait_ms is None else {"Retry-After": str(-(-wait_ms // 1000))}
    return answer(
        error.status,
        error.message,
        headers,
        code=error.reason,
        retryable=error.temporary,
        retryAfterMs=wait_ms,
        fate=error.fate,
        errors=[{"name": name, "message": message} for name, message in error.fields.items()],
    )


def _on_defect(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    _log.error("request_failed", path=request.url.path, error=repr(error), exc_info=error)
    return answer(HTTPStatus.INTERNAL_SERVER_ERROR)


async def _too_large(send: Send) -> None:
    body = problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    headers = [
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
