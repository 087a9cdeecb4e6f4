"""Errors over HTTP: RFC 9457 problem details, with nothing of our insides in them."""

from http import HTTPStatus

import msgspec

PROBLEM_TYPE = "application/problem+json"


def problem(status: int, detail: str = "", **more: object) -> bytes:
    """The body for `status`; `detail` is for the caller's eyes and must be safe to show."""
    body: dict[str, object] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    if detail:
        body["detail"] = detail
    return msgspec.json.encode(body | more)


class Refused(Exception):  # noqa: N818  (an answer)
    """The request can't be served: an HTTP status, a generic sentence, and when to come back, if that helps."""

    def __init__(self, status: int, detail: str = "", *, retry_after_s: int | None = None) -> None:
        self.status, self.detail, self.retry_after_s = status, detail, retry_after_s
        super().__init__(f"{status} {detail}")
