"""The application's state from which handlers get everything that they need."""

from dataclasses import dataclass
from typing import Any

from litestar.connection import ASGIConnection

from headrace.gateway.broadcasts import Broadcasts
from headrace.gateway.context import GatewayContext, GatewayOptions
from headrace.gateway.sessions import SessionContext
from headrace.protocol.frames import Framer


@dataclass(frozen=True)
class Context:
    """The gateway's options and parts, and the objects that its sessions share with its handlers."""

    options: GatewayOptions
    parts: GatewayContext
    sessions: SessionContext
    framer: Framer
    broadcasts: Broadcasts


def context_of(request: ASGIConnection[Any, Any, Any, Any]) -> Context:
    """Return the context of the application that serves the request."""
    context: Context = request.app.state["context"]
    return context
