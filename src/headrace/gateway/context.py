"""The gateway's inputs: its options, and the parts of the service that it uses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from litestar.types import ControllerRouterHandler

from headrace.bus import Bus, Lane, Writer
from headrace.cache import Snapshots
from headrace.cluster.members import Members
from headrace.fanout.hub import Demand
from headrace.gateway.auth.authenticator import Authenticator
from headrace.gateway.settings import AdmissionSettings, GatewaySettings, TlsSettings
from headrace.gateway.transports.websocket import EndpointFactory
from headrace.history import History
from headrace.inbox import Inbox
from headrace.orders.intake import Intake
from headrace.protocol.frames import Framer, Head
from headrace.runtime.clock import Clock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor


class GatewayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a gateway.

    `demo` marks a server that plays a recording instead of the live chain. `dashboard` and `expose_metrics` enable the
    page at `/` and `/metrics`.
    """

    server_id: str
    gateway: GatewaySettings = GatewaySettings()
    admission: AdmissionSettings = AdmissionSettings()
    tls: TlsSettings = TlsSettings()
    demo: bool = False
    dashboard: bool = True
    expose_metrics: bool = True


@dataclass(frozen=True, kw_only=True)
class GatewayContext:
    """The parts of the service that a gateway uses. All tasks of the gateway run under `supervisor`.

    - `head`: returns the newest known slots, for heartbeats.
    - `cache`: gives snapshots; the service feeds it.
    - `inbox`: keeps messages to users. Without an inbox, users are sent nothing.
    - `writers`: publish what applications broadcast.
    - `orders`: accepts orders. None: the server accepts none.
    - `quotes`: publishes on topics of quotes. None: the server refuses these topics.
    - `history`: answers questions about the past. None: the server answers none.
    - `auth`: checks credentials. None: no credential is needed.
    - `members`: knows the other servers. None: this server is the only one.
    """

    bus: Bus
    clock: Clock
    health: Health
    metrics: Metrics
    supervisor: Supervisor
    head: Callable[[], Head] = Head
    cache: Snapshots | None = None
    inbox: Inbox | None = None
    writers: Mapping[Lane, Writer] = field(default_factory=dict)
    orders: Intake | None = None
    quotes: Demand | None = None
    history: History | None = None
    auth: Authenticator | None = None
    members: Members | None = None


@dataclass(frozen=True, kw_only=True)
class Extensions:
    """WebSocket endpoints, HTTP handlers and a framer that a benchmark or a test adds to the gateway's own."""

    endpoints: Mapping[str, EndpointFactory] = field(default_factory=dict)
    handlers: Sequence[ControllerRouterHandler] = ()
    framer: Framer | None = None
