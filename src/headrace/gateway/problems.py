"""Errors over HTTP: RFC 9457 problem details, which reveal nothing about the server's internals."""

from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from typing import NamedTuple

import msgspec

from headrace.model.orders import OrderRefused

PROBLEM_TYPE = "application/problem+json"

_GIVEN_MAX = 128


def problem(status: int, detail: str = "", **more: object) -> bytes:
    """Return the body for `status`. `detail` is shown to the caller and must be safe to show."""
    body: dict[str, object] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    if detail:
        body["detail"] = detail
    return msgspec.json.encode(body | more)


def wrong(name: str, message: str, given: object = None) -> dict[str, str]:
    """Return an entry of a problem's `errors`: a parameter, its fault, and the beginning of its value."""
    entry = {"name": name, "message": message}
    return entry if given is None else {**entry, "given": str(given)[:_GIVEN_MAX]}


class Refused(Exception):  # noqa: N818  (an answer)
    """Request that can't be served: an HTTP status and a generic sentence.

    `more` are additional members of the problem.
    """

    def __init__(self, status: int, detail: str = "", headers: Mapping[str, str] | None = None, **more: object) -> None:
        self.status, self.detail, self.more = status, detail, more
        self.headers = dict(headers or {})
        super().__init__(f"{status} {detail}")


class Answer(NamedTuple):
    """Answer to a request: status, body, headers other than the body's, and the body's content type."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    kind: str = PROBLEM_TYPE


def answer_to(error: Refused | OrderRefused) -> Answer:
    """Return the answer to a refused request.

    The answer to a refused order has members beyond those of RFC 9457. They are also part of the API.
    """
    if isinstance(error, Refused):
        return Answer(error.status, problem(error.status, error.detail, **error.more), error.headers)
    wait_ms = error.retry_after_ms
    body = problem(
        error.status,
        error.message,
        code=error.reason,
        retryable=error.temporary,
        retryAfterMs=wait_ms,
        fate=error.fate,
        errors=[{"name": name, "message": message} for name, message in error.fields.items()],
    )
    return Answer(error.status, body, {} if wait_ms is None else retry_after(wait_ms / 1000))


def retry_after(seconds: float) -> dict[str, str]:
    """Return the header that asks the client to try again after `seconds`, rounded up to whole seconds."""
    return {"Retry-After": str(ceil(seconds))}
