"""What the OpenAPI description says about the answers that are not 200."""

from http import HTTPStatus

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
