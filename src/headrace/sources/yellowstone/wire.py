"""What a session needs of a gRPC stream."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from headrace.runtime.clock import Clock
from headrace.sources.yellowstone.settings import YellowstoneSettings


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


OpenWire: TypeAlias = Callable[[str, YellowstoneSettings, Clock], Awaitable[Wire]]
"""Connect to a URL. Raises WireEnd where that fails."""
