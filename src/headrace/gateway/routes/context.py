"""What the handlers need, put into the application's state."""

from dataclasses import dataclass
from typing import Any

from litestar.connection import ASGIConnection

from headrace.bus import Bus
from headrace.fanout.hub import Hub
from headrace.gateway.auth.authenticator import Authenticator
from headrace.gateway.broadcasts import Broadcasts
from headrace.gateway.door.doorkeeper import Doorkeeper
from headrace.gateway.sessions import Gate
from headrace.protocol.frames import Framer
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics


@dataclass(frozen=True)
class Context:
    """`demo`: a recording is played, not the live chain; the dashboard says so. The next two say what is served.

    `auth` is None on a server that asks nobody who they are.
    """

    bus: Bus
    gate: Gate
    hub: Hub
    keeper: Doorkeeper
    health: Health
    metrics: Metrics
    framer: Framer
    broadcasts: Broadcasts
    server_id: str
    demo: bool
    dashboard: bool = True
    expose_metrics: bool = True
    auth: Authenticator | None = None


def context_of(request: ASGIConnection[Any, Any, Any, Any]) -> Context:
    context: Context = request.app.state["context"]
    return context
