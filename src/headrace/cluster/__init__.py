"""The servers of one deployment: their heartbeats, and the leases by which they share the work. Port and register."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Annotated, Final, NamedTuple, Protocol, TypeAlias

import msgspec
from msgspec import Meta

from headrace.adapters import Register
from headrace.config import Setting

CHANNEL: Final = "websocket_messages"
"""Name of the channel on which other programs send and get messages."""

BOX_MAX: Final = 1_000
"""Maximum number of requests that wait in a box."""

SERVE_S: Final = 1.0
"""Seconds that a server waits for a request before it looks whether it still serves."""

BEATS_MISSED: Final = 2
"""Number of heartbeats after which a silent server is removed, so that others notice within three."""


class ClusterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[cluster]`: how servers find each other. Used on a shared bus only."""

    beat_s: Annotated[
        float, Meta(ge=0.05, le=60), Setting("seconds between two heartbeats of a server", env=("SERVER_BEAT_S",))
    ] = 1.0
    lease_s: Annotated[
        float,
        Meta(ge=0.2, le=60),
        Setting("seconds after which another server takes over from one that was killed", env=("SERVER_LEASE_S",)),
    ] = 2.0
    address: Annotated[
        str, Setting("host:port under which other machines reach this server; only shown", env=("SERVER_ADDRESS",))
    ] = ""
    id_file: Annotated[
        str,
        Setting("file that keeps the name that a server without SERVER_ID made for itself", env=("SERVER_ID_FILE",)),
    ] = "headrace-server.id"


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server as it describes itself. `incarnation` is unique for each start; `lanes` are those that it publishes on.

    `started_ms` is the wall time of the start. A server may be without clients: then its counts are 0.
    """

    server_id: str
    incarnation: str
    version: str
    address: str = ""
    started_ms: int = 0
    ready: bool = True
    connections: int = 0
    users: int = 0
    subscriptions: int = 0
    lanes: tuple[str, ...] = ()


class Member(NamedTuple):
    """A server in the directory, and the milliseconds since its last heartbeat."""

    server: Server
    silent_ms: int


class Grant(NamedTuple):
    """A lease that was taken. `token` is greater than all earlier tokens. `note` was left by the last holder."""

    token: int
    note: bytes


Answer: TypeAlias = Callable[[bytes], Awaitable[bytes]]
"""Returns the answer to a request; must not raise."""


class Cluster(Protocol):
    """The directory of servers, and leases. A lease has one holder, whose token the bus and the cache check.

    Time: ages and ends of leases are measured by one clock for all servers, so their own clocks need not agree.
    Away: every method raises TransientError if the outcome is unknown. A holder may keep its lease later than it ended,
    as long as nobody else took it.
    """

    @property
    def shared(self) -> bool:
        """Return whether there may be other servers."""

    async def beat(self, server: Server, silence_s: float) -> Sequence[Member]:
        """Announce a server, remove servers that were silent for `silence_s`, and return the others, sorted by name."""

    async def leave(self, server: Server) -> None:
        """Remove a server at once. Idempotent."""

    async def take(self, lease: str, holder: str, ttl_s: float) -> Grant | None:
        """Take a lease that is free or has ended. Return None while another holder has it."""

    async def keep(self, lease: str, holder: str, token: int, ttl_s: float, note: bytes) -> bool:
        """Prolong a lease, and leave a note for the next holder. Return False if another holder took the lease."""

    async def release(self, lease: str, token: int, note: bytes) -> None:
        """End a lease now, unless another holder took it. A `keep` that arrives later is refused."""

    async def ask(self, box: str, request: bytes, patience_s: float) -> bytes:
        """Put a request into a box, and return the answer of the server that serves the box.

        Raises TransientError if no answer came in time, or the box is full. The request may still be served, and may be
        served twice, so it has to name itself.
        """

    async def serve(self, box: str, answer: Answer) -> None:
        """Answer the next request in a box. Return after about a second if none comes."""

    async def publish(self, message: bytes) -> None:
        """Publish a message on the channel for other programs; whoever reads the channel at the moment gets it."""

    def messages(self) -> AsyncGenerator[bytes, None]:
        """Return the messages that are published on the channel from the first step on, those of this server too.

        What is published while the directory can't be reached is missing. Raises TransientError if it is away for long.
        """

    async def close(self) -> None:
        """Release what the directory holds."""


CLUSTERS: Final = Register[Cluster](
    "cluster", {"memory": "headrace.cluster.memory:MemoryCluster", "redis": "headrace.cluster.redis:RedisCluster"}
)
"""All directories. The one with the name of the bus is used."""
