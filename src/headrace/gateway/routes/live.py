"""Numbers of connections and subscriptions, and the name and version of the server."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import Request, get

from headrace import __version__
from headrace.cluster import Member, Server
from headrace.gateway.problems import Refused
from headrace.gateway.routes import guards
from headrace.gateway.routes.context import Context, context_of
from headrace.gateway.routes.guards import is_listed
from headrace.gateway.transports.handshake import SUBPROTOCOL

TOPICS_SHOWN: Final = 1000


class Cluster(msgspec.Struct, frozen=True):
    """All servers together, as of their last heartbeats."""

    servers: int
    total_connections: int


class Connections(msgspec.Struct, frozen=True):
    """Numbers of clients; event streams count as connections.

    `topics` are the 1,000 topics with the most subscriptions, without topics of users.
    """

    total_connections: int
    active_users: int
    subscriptions: int
    server_id: str
    topics: dict[str, int]
    cluster: Cluster


class ServerState(msgspec.Struct, frozen=True):
    """A server: its name and version, where it is reached, its load, and the lanes that it publishes on.

    `seen_ms` is the time since the others heard of it; `self`: this server answers.
    """

    server_id: str
    version: str
    address: str
    started_ms: int
    ready: bool
    connections: int
    users: int
    subscriptions: int
    lanes: list[str]
    seen_ms: int
    self_: bool = msgspec.field(name="self")


class ServerList(msgspec.Struct, frozen=True):
    """All servers that live. `current` is false while the directory can't be reached, and others may have changed."""

    servers: list[ServerState]
    current: bool


class Info(msgspec.Struct, frozen=True):
    """Name and version of the server. `demo`: the server plays a recording, not the live chain."""

    name: str
    version: str
    server_id: str
    protocol: str
    demo: bool


@get(
    "/api/ws/connections",
    operation_id="countConnections",
    summary="Count connections",
    tags=["server"],
    sync_to_thread=False,
    guards=[guards.admin_only],
)
def connections(request: Request[Any, Any, Any]) -> Connections:
    """Count the connections, users and subscriptions of this server."""
    context = context_of(request)
    hub = context.sessions.hub
    public = {topic: count for topic, count in hub.topics().items() if is_listed(topic)}
    known = _known(context)
    busiest = sorted(public.items(), key=lambda entry: (-entry[1], entry[0]))[:TOPICS_SHOWN]
    return Connections(
        total_connections=len(hub.clients),
        active_users=len(context.sessions.keeper.admission.users),
        subscriptions=hub.subscriptions,
        server_id=context.options.server_id,
        topics=dict(busiest),
        cluster=Cluster(len(known), sum(each.server.connections for each in known)),
    )


@get(
    "/api/servers",
    operation_id="listServers",
    summary="List the servers",
    tags=["server"],
    sync_to_thread=False,
    guards=[guards.admin_only],
)
def servers(request: Request[Any, Any, Any]) -> ServerList:
    """List the servers of the deployment that live, with their load; one that died is gone within three heartbeats."""
    context = context_of(request)
    members, known = context.parts.members, _known(context)
    own = known[-1].server if members is None else members.own
    found = [
        ServerState(
            server_id=each.server.server_id,
            version=each.server.version,
            address=each.server.address,
            started_ms=each.server.started_ms,
            ready=each.server.ready,
            connections=each.server.connections,
            users=each.server.users,
            subscriptions=each.server.subscriptions,
            lanes=list(each.server.lanes),
            seen_ms=each.silent_ms,
            self_=each.server.incarnation == own.incarnation,
        )
        for each in known
    ]
    return ServerList(found, current=members is None or members.current)


def _known(context: Context) -> Sequence[Member]:
    """Return the servers that live; without a directory only this one."""
    if context.parts.members is not None:
        return context.parts.members.servers
    hub, users = context.sessions.hub, context.sessions.keeper.admission.users
    own = Server(
        server_id=context.options.server_id,
        incarnation="",
        version=__version__,
        ready=context.parts.health.ready,
        connections=len(hub.clients),
        users=len(users),
        subscriptions=hub.subscriptions,
    )
    return [Member(own, 0)]


@get("/api/info", operation_id="getInfo", summary="Name and version", tags=["server"], sync_to_thread=False)
def info(request: Request[Any, Any, Any]) -> Info:
    """Get the name and version of this server."""
    context = context_of(request)
    return Info("headrace", __version__, context.options.server_id, SUBPROTOCOL, context.options.demo)


@get("/ws", opt=guards.OPEN, status_code=426, include_in_schema=False, sync_to_thread=False)
def needs_upgrade() -> None:
    """Refuse a request for the stream that does not upgrade to a WebSocket."""
    raise Refused(HTTPStatus.UPGRADE_REQUIRED, "connect with a WebSocket client", headers={"Upgrade": "websocket"})


HANDLERS: Final = (connections, servers, info, needs_upgrade)
