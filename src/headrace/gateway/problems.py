"""Errors over HTTP: RFC 9457 problem details, with nothing of our insides in them."""

from collections.abc import Mapping
from http import HTTPStatus
from math import ceil

import msgspec

PROBLEM_TYPE = "application/problem+json"

_GIVEN_MAX = 128


def problem(status: int, detail: str = "", **more: object) -> bytes:
    """The body for `status`; `detail` is for the caller's eyes and must be safe to show."""
    body: dict[str, object] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    if detail:
        body["detail"] = detail
    return msgspec.json.encode(body | more)


def wrong(name: str, message: str, given: object = None) -> dict[str, str]:
    """An entry of a problem's `errors`: a parameter, what is wrong with it, and how what was given begins."""
    told = {"name": name, "message": message}
    return told if given is None else {**told, "given": str(given)[:_GIVEN_MAX]}


class Refused(Exception):  # noqa: N818  (an answer)
    """The request can't be served: an HTTP status and a generic sentence, with `more` members of the problem."""

    def __init__(self, status: int, detail: str = "", headers: Mapping[str, str] | None = None, **more: object) -> None:
        self.status, self.detail, self.more = status, detail, more
        self.headers = dict(headers or {})
        super().__init__(f"{status} {detail}")


def retry_after(seconds: float) -> dict[str, str]:
    """The header that says when to come back: in whole seconds, never too soon."""
    return {"Retry-After": str(ceil(seconds))}
