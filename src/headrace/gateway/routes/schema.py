"""The OpenAPI document at `/schema`: what Litestar knows of the handlers, and what it can't know."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import msgspec
from litestar import Litestar, MediaType, Response, get
from litestar.openapi.config import OpenAPIConfig
from litestar.types import ControllerRouterHandler

from headrace import __version__
from headrace.gateway.problems import PROBLEM_TYPE
from headrace.gateway.routes import broadcast, guards
from headrace.gateway.routes.described import Problem, with_anchors, with_bodies
from headrace.gateway.routes.order_shapes import describe
from headrace.protocol import shapes

ABOUT: Final = (
    "What Headrace answers over HTTP. The streams are described by /schema/asyncapi.json. u64 and larger integers are "
    "strings. Errors are RFC 9457 problem details."
)

_REF: Final = "#/components/schemas/{name}"


def openapi(described: Sequence[ControllerRouterHandler]) -> ControllerRouterHandler:
    """The handler of `/schema`, which tells of these.

    The document is made by an application that serves nothing: one that does has pages beside it, with scripts from
    elsewhere.
    """

    @cache
    def document() -> bytes:
        config = OpenAPIConfig("Headrace", __version__, description=ABOUT, use_handler_docstrings=True)
        told = Litestar(described, openapi_config=config, logging_config=None)
        return msgspec.json.encode(complete(told.openapi_schema.to_schema()))

    @get("/schema", opt=guards.OPEN, include_in_schema=False, sync_to_thread=True)  # the first takes a while
    def answer() -> Response[bytes]:
        return Response(document(), media_type=MediaType.JSON)

    return answer


def complete(document: dict[str, Any]) -> Any:
    """The document made whole, in place: frames have shapes, and whatever else is answered is a problem."""
    (frame, problem), components = msgspec.json.schema_components([shapes.Logged, Problem], ref_template=_REF)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= components
    schemas["HistoryPage"]["properties"]["items"]["items"] = frame
    unforeseen = {"description": "Anything else that went wrong", "content": {PROBLEM_TYPE: {"schema": problem}}}
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].setdefault("default", unforeseen)
    return with_anchors(describe(with_bodies(document, broadcast.BODIES)))
