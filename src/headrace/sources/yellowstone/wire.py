"""Port of a gRPC stream, as a session needs it."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from headrace.runtime.clock import Clock
from headrace.sources.yellowstone.settings import YellowstoneSettings


class Wire(Protocol):
    """One subscription on one connection.

    Messages wait here until they are received. When too many bytes wait, flow control keeps the remainder at the node.
    """

    async def run(self) -> None:
        """Do the background work of the stream until it ends. Run this as a task beside `receive`."""

    async def receive(self) -> list[bytes]:
        """Return the waiting messages, at least one. Raises WireEnd after the last message."""

    async def send(self, request: bytes) -> None:
        """Send one request. Does nothing once the stream has ended."""

    async def close(self) -> None:
        """End the connection at once."""


OpenWire: TypeAlias = Callable[[str, YellowstoneSettings, Clock], Awaitable[Wire]]
"""Function that connects to a URL. Raises WireEnd if connecting fails."""
