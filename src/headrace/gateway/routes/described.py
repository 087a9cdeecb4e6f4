"""What the OpenAPI description says about the answers that are not 200."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from litestar.openapi.datastructures import ResponseSpec

from headrace.gateway.problems import PROBLEM_TYPE


class Wrong(msgspec.Struct, frozen=True):
    """One parameter that is wrong."""

    name: str
    message: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457 problem details; `errors` where it is the parameters that are wrong."""

    type: str
    title: str
    status: int
    detail: str = ""
    errors: list[Wrong] = []


def problems(*statuses: HTTPStatus) -> dict[int, ResponseSpec]:
    """The `responses` of a handler that refuses with these."""
    return {
        int(status): ResponseSpec(Problem, description=status.phrase, media_type=PROBLEM_TYPE, generate_examples=False)
        for status in statuses
    }


def with_bodies(document: dict[str, Any], bodies: Mapping[str, type[msgspec.Struct]]) -> dict[str, Any]:
    """Add what is posted to these paths to an OpenAPI document, in place."""
    for path, shape in bodies.items():
        (_,), components = msgspec.json.schema_components([shape], ref_template="#/components/schemas/{name}")
        document.setdefault("components", {}).setdefault("schemas", {}).update(components)
        schema = {"$ref": f"#/components/schemas/{shape.__name__}"}
        document["paths"][path]["post"]["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return document
