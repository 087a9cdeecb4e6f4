"""What a session needs of a gRPC stream, and how its end is read."""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias

from headrace.model.redact import redact
from headrace.sources.connection import DETAIL_MAX, Parting
from headrace.sources.yellowstone.settings import YellowstoneSettings

METHOD: Final = "/geyser.Geyser/Subscribe"

_DENIED: Final = frozenset({"INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "NOT_FOUND"})
"""Statuses after which another attempt would fail too."""
_REST_S: Final = {"RESOURCE_EXHAUSTED": 5.0}
"""Pause before the next attempt where a limit of the node was reached."""


class WireEnd(Exception):  # noqa: N818  (an ending, not an error)
    """The stream is over: a gRPC status by its name, and the node's words."""

    def __init__(self, status: str, detail: str = "") -> None:
        self.status, self.detail = status, detail
        super().__init__(f"{status} {detail}".strip())


class Wire(Protocol):
    """One subscription on one connection. Messages that nobody receives wait within a bound, the rest at the node."""

    async def run(self) -> None:
        """Move bytes until the end; run as a task beside `receive`."""

    async def receive(self) -> list[bytes]:
        """Return the messages that wait, at least one. Raises WireEnd after the last one."""

    async def send(self, request: bytes) -> None:
        """Send one request. Does nothing after the end."""

    async def close(self) -> None:
        """End the connection at once."""


OpenWire: TypeAlias = Callable[[str, YellowstoneSettings], Awaitable[Wire]]
"""Connect to a URL. Raises WireEnd where that fails."""


def parting_of(end: WireEnd, *, began: bool) -> Parting:
    """Return why a connection ended; `began`: it had brought something before."""
    detail = redact(str(end))[:DETAIL_MAX]
    if end.status in _DENIED:
        return Parting("denied", detail)
    if end.status == "INTERNAL" and "lag" in end.detail.lower():
        return Parting("lagged", detail)
    if end.status == "RESOURCE_EXHAUSTED" and "larger than max" in end.detail:
        return Parting("too_large", detail)
    return Parting("closed" if began else "refused", detail, _REST_S.get(end.status, 0.0))
