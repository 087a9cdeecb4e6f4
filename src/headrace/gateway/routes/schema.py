"""The OpenAPI document at `/schema`: generated from Litestar's handlers, completed with facts that Litestar lacks."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import msgspec
from litestar import Litestar, MediaType, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import License
from litestar.routes import HTTPRoute
from litestar.types import ControllerRouterHandler

from headrace import __version__
from headrace.gateway.problems import PROBLEM_TYPE
from headrace.gateway.routes import broadcast, guards
from headrace.gateway.routes.order_shapes import describe
from headrace.gateway.routes.schema_parts import Problem, portable, with_bodies
from headrace.protocol import shapes

ABOUT: Final = (
    "What Headrace answers over HTTP. The streams are described by /schema/asyncapi.json. u64 and larger integers are "
    "strings. Errors are RFC 9457 problem details."
)

LICENSE: Final = License("Apache-2.0", identifier="Apache-2.0")

BEARER: Final = "bearer"
TICKET: Final = "ticket"
SCHEMES: Final = {
    BEARER: {"type": "http", "scheme": "bearer", "description": "A JSON Web Token, where AUTH_MODE is set"},
    TICKET: {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "From POST /api/ws/tickets, for one use, by clients that can't set headers",
    },
}

_REF: Final = "#/components/schemas/{name}"


def openapi(described: Sequence[ControllerRouterHandler]) -> ControllerRouterHandler:
    """Return the handler of `/schema`, which describes the handlers in `described`.

    The document is made by a separate application that serves nothing. Otherwise Litestar would add pages with scripts
    from other sites.
    """

    @cache
    def document() -> bytes:
        config = OpenAPIConfig("Headrace", __version__, description=ABOUT, license=LICENSE, use_handler_docstrings=True)
        application = Litestar(described, openapi_config=config, logging_config=None)
        security = {
            str(handler.operation_id): security_of(handler)
            for route in application.routes
            if isinstance(route, HTTPRoute)
            for handler in route.route_handlers
        }
        return msgspec.json.encode(complete(application.openapi_schema.to_schema(), security))

    @get("/schema", opt=guards.OPEN, include_in_schema=False, sync_to_thread=True)  # the first call takes long
    def answer() -> Response[bytes]:
        return Response(document(), media_type=MediaType.JSON)

    return answer


def security_of(handler: HTTPRouteHandler) -> list[dict[str, list[str]]]:
    """Return the alternative credentials of a route. The empty alternative means that authentication may be off."""
    if handler.opt.get("open") and not handler.guards:
        return []
    credentials = [BEARER, TICKET] if handler.opt.get("ticket") else [BEARER]
    return [{}, *({credential: list[str]()} for credential in credentials)]


def complete(document: dict[str, Any], security: Mapping[str, list[dict[str, list[str]]]]) -> Any:
    """Complete the document in place: shapes of frames, credentials, and a problem for every other answer."""
    (frame, problem), components = msgspec.json.schema_components([shapes.Logged, Problem], ref_template=_REF)
    parts = document.setdefault("components", {})
    parts["securitySchemes"] = SCHEMES
    schemas = parts.setdefault("schemas", {})
    schemas |= components
    schemas["HistoryPage"]["properties"]["items"]["items"] = frame
    refusal = {PROBLEM_TYPE: {"schema": problem}}
    document = describe(with_bodies(document, broadcast.BODIES))
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["security"] = security.get(
                operation["operationId"], [{}, {BEARER: []}]
            )  # a credential is needed unless the handler says otherwise
            answers = operation["responses"]
            answers.setdefault("default", {"description": "Anything else that went wrong", "content": refusal})
            if operation["security"]:
                answers.setdefault("401", {"description": "No credential, or none that is valid", "content": refusal})
            answers.setdefault("429", {"description": "Too many requests; see `Retry-After`", "content": refusal})
    return portable(document)
