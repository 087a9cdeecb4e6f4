"""What the handlers need, put into the application's state."""

from dataclasses import dataclass
from typing import Any

from litestar import Request

from headrace.bus import Bus
from headrace.gateway.hub import Hub
from headrace.gateway.limits import Doorkeeper
from headrace.gateway.session_shell import Gate
from headrace.protocol.frames import Framer
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics


@dataclass(frozen=True)
class Context:
    """`demo`: a recording is played, not the live chain; the dashboard says so. The last two say what is served."""

    bus: Bus
    gate: Gate
    hub: Hub
    keeper: Doorkeeper
    health: Health
    metrics: Metrics
    framer: Framer
    server_id: str
    demo: bool
    dashboard: bool = True
    expose_metrics: bool = True


def context_of(request: Request[Any, Any, Any]) -> Context:
    context: Context = request.app.state["context"]
    return context
