"""Translates the status that ended a gRPC stream into the reason why the connection ended. Pure."""

from typing import Final

from headrace.model.redact import redact
from headrace.sources.connection import DETAIL_MAX, Parting

_DENIED: Final = frozenset({"INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "NOT_FOUND"})
"""Statuses after which another attempt would fail, too."""
_REST_S: Final = {"RESOURCE_EXHAUSTED": 5.0}
"""Pauses in seconds before the next attempt, by status. RESOURCE_EXHAUSTED: a limit of the node was reached."""


class WireEnd(Exception):  # noqa: N818  (an ending, not an error)
    """End of a stream: the name of a gRPC status, and the node's message."""

    def __init__(self, status: str, detail: str = "") -> None:
        self.status, self.detail = status, detail
        super().__init__(f"{status} {detail}".strip())


def parting_of(end: WireEnd, *, began: bool) -> Parting:
    """Return why a connection ended. `began` is True where the connection had delivered anything."""
    detail = redact(str(end))[:DETAIL_MAX]
    if end.status in _DENIED:
        return Parting("denied", detail)
    if end.status == "INTERNAL" and "lagged" in end.detail:
        return Parting("lagged", detail)
    if end.status == "RESOURCE_EXHAUSTED" and "larger than max" in end.detail:
        return Parting("too_large", detail)
    return Parting("closed" if began else "refused", detail, _REST_S.get(end.status, 0.0))
