"""Joins the handlers to one application: problem details for errors, security headers everywhere, HEAD as GET."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from traceback import clear_frames, walk_tb
from typing import Any, Final, cast

from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.enums import HttpMethod, ScopeType
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ASGIApp, ControllerRouterHandler, Message, Receive, Scope, Send

from headrace.gateway.problems import Refused, answer_to, wrong
from headrace.gateway.routes import (
    asyncapi,
    broadcast,
    dashboard,
    events,
    guards,
    health,
    history,
    live,
    schema,
    tickets,
    topics,
)
from headrace.gateway.routes.context import Context
from headrace.gateway.routes.middleware import Counted, CrossOrigin, answer_to_defect, refuse
from headrace.gateway.routes.orders import respond
from headrace.gateway.routes.placing import Placing
from headrace.model.orders import OrderRefused

HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"vary", b"origin"),  # even if the request has no origin: a cache could give that answer to a page
)
_HANDLERS: Final = (
    *health.HANDLERS,
    *topics.HANDLERS,
    *events.HANDLERS,
    *history.HANDLERS,
    *live.HANDLERS,
    *broadcast.HANDLERS,
    *asyncapi.HANDLERS,
    *dashboard.CLIENT_HANDLERS,
)
DEFAULTS: Final = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),  # an answer is valid only now, and often only for its caller
)
"""Headers of answers that do not set these headers themselves."""

_MISSING: Final = re.compile(r"Missing required query parameter '(\w+)' for path ")
"""Litestar's message about a missing parameter without a default."""

_NAMES: Final = {"from_s": "from", "to_s": "to", "from_slot": "from", "to_slot": "to", "from_seq": "fromSeq"}
"""Argument of a handler → the name of the parameter, where that is not a valid name in Python."""

_TOO_LARGE: Final = Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, headers={"Connection": "close"})


def build(context: Context, more: Sequence[ControllerRouterHandler] = ()) -> ASGIApp:
    """Return the ASGI application. `more` are handlers that a benchmark or a test adds."""
    handlers: list[ControllerRouterHandler] = [*_HANDLERS, *more]
    if context.options.dashboard:
        handlers += dashboard.HANDLERS
    if context.options.expose_metrics:
        handlers += health.METRICS_HANDLERS
    if context.parts.auth is not None:
        handlers += tickets.HANDLERS
    app = Litestar(
        route_handlers=[*handlers, schema.openapi(handlers)],
        exception_handlers={
            HTTPException: _on_http,
            Refused: _on_refused,
            OrderRefused: _on_refused,
            Exception: _on_defect,
        },
        guards=[guards.authenticated],
        before_request=_refuse_repeats,
        openapi_config=None,
        state=State({"context": context}),
        logging_config=None,
        request_max_body_size=context.sessions.keeper.settings.body_bytes_max,
    )
    quick: ASGIApp = app if context.parts.orders is None else Placing(app, context.parts.orders, context)
    counted = Counted(quick, context.sessions.keeper)
    return _Outer(CrossOrigin(counted, context.sessions.keeper.admission), context)


class _Outer:
    """The outermost layer: limits the size of bodies, answers HEAD as GET, and adds the headers of every answer."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app, self._context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in message["headers"]}
                more = [header for header in DEFAULTS if header[0] not in names]
                message = {**message, "headers": [*message["headers"], *more, *HEADERS]}
            await send(message)

        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not length.isdigit() or int(length) > self._context.sessions.keeper.settings.body_bytes_max:
            await refuse(send_guarded, _TOO_LARGE)
            return
        if scope["method"] == "HEAD":
            scope = cast("Scope", {**scope, "method": HttpMethod.GET})  # the connection omits the body
        await self._app(scope, receive, send_guarded)


async def _refuse_repeats(request: Request[Any, Any, Any]) -> None:
    """Refuse a request that gives a parameter twice. Async, because Litestar runs other functions in a thread."""
    counts = Counter(name for name, _ in request.query_params.multi_items())
    errors = [wrong(name, "is given more than once") for name, count in counts.items() if count > 1]
    if errors:
        raise Refused(HTTPStatus.BAD_REQUEST, "a parameter is wrong", errors=errors[:8])


def _on_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Build the response for a request that Litestar itself rejected (routing, validation, body size).

    Only parameter errors are described to the client.
    """
    status = error.status_code
    # Their frames refer to the request, and the request to its answer: a reference cycle.
    error.__cause__ = error.__context__ = None
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        _clear_frames(error)
        errors = [_wrong(request, one) for one in error.extra]
        return _on_refused(request, Refused(status, "a parameter is wrong", errors=errors))
    if (missing := _MISSING.match(error.detail)) is not None:
        errors = [wrong(missing[1], "is missing")]
        return _on_refused(request, Refused(status, "a parameter is wrong", errors=errors))
    return _on_refused(request, Refused(status, headers=error.headers))


def _clear_frames(error: ValidationException) -> None:
    """Clear the frames of the exceptions that caused `error`.

    Litestar collects these exceptions in a list. The frame that caught them keeps the list, and their tracebacks keep
    the frame. Without clearing, each wrong parameter would leave a cycle for the garbage collector.
    """
    *_, (last, _) = walk_tb(error.__traceback__)
    fault = last.f_locals.get("exc")
    if isinstance(fault, Exception):
        clear_frames(fault.__traceback__)
        fault.__context__ = fault.__traceback__ = None
    clear_frames(error.__traceback__)


def _wrong(request: Request[Any, Any, Any], error: dict[str, Any]) -> dict[str, str]:
    """Return a fault that Litestar found in one parameter, with the parameter's value."""
    name = str(error.get("key", ""))
    name = _NAMES.get(name, name)
    sources: dict[str, Mapping[str, Any]] = {"query": request.query_params, "header": request.headers}
    given = sources.get(error.get("source", ""), {}).get(name)
    return wrong(name, str(error.get("message", "")), given)


def _on_refused(_request: Request[Any, Any, Any], error: Refused | OrderRefused) -> Response[bytes]:
    return respond(answer_to(error))


def _on_defect(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    return respond(answer_to_defect(request.url.path, error))
