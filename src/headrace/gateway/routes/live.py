"""Numbers of connections and subscriptions, and the name and version of the server."""

from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import Request, get

from headrace import __version__
from headrace.gateway.problems import Refused
from headrace.gateway.routes import guards
from headrace.gateway.routes.context import context_of
from headrace.gateway.routes.guards import is_listed
from headrace.gateway.transports.handshake import SUBPROTOCOL

TOPICS_SHOWN: Final = 1000


class Cluster(msgspec.Struct, frozen=True):
    """All servers together; so far this server is the only one."""

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
    busiest = sorted(public.items(), key=lambda entry: (-entry[1], entry[0]))[:TOPICS_SHOWN]
    return Connections(
        total_connections=len(hub.clients),
        active_users=len(context.sessions.keeper.admission.users),
        subscriptions=hub.subscriptions,
        server_id=context.options.server_id,
        topics=dict(busiest),
        cluster=Cluster(servers=1, total_connections=len(hub.clients)),
    )


@get("/api/info", operation_id="getInfo", summary="Name and version", tags=["server"], sync_to_thread=False)
def info(request: Request[Any, Any, Any]) -> Info:
    """Get the name and version of this server."""
    context = context_of(request)
    return Info("headrace", __version__, context.options.server_id, SUBPROTOCOL, context.options.demo)


@get("/ws", opt=guards.OPEN, status_code=426, include_in_schema=False, sync_to_thread=False)
def needs_upgrade() -> None:
    """Refuse a request for the stream that does not upgrade to a WebSocket."""
    raise Refused(HTTPStatus.UPGRADE_REQUIRED, "connect with a WebSocket client", headers={"Upgrade": "websocket"})


HANDLERS: Final = (connections, info, needs_upgrade)
