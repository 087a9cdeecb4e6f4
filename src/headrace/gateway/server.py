"""HTTP and WebSocket on one port: starts, runs and stops the whole gateway."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final, cast

import structlog
from litestar.types import ControllerRouterHandler

from headrace.bus import Bus, Lane, Writer
from headrace.cache import Snapshots
from headrace.fanout.hub import Hub
from headrace.fanout.user_topics import Mailboxes
from headrace.gateway.auth.authenticator import Authenticator
from headrace.gateway.broadcasts import Broadcasts
from headrace.gateway.door.admission import Admission, AdmissionSettings
from headrace.gateway.door.doorkeeper import Doorkeeper
from headrace.gateway.drain import POLL_S, drain
from headrace.gateway.order_commands import OrderVerbs
from headrace.gateway.order_streams import OrderStreams
from headrace.gateway.order_topics import OrderTopics
from headrace.gateway.routes import build
from headrace.gateway.routes import orders as order_routes
from headrace.gateway.routes.context import Context
from headrace.gateway.sessions import Gate, SessionShell
from headrace.gateway.settings import GatewaySettings
from headrace.gateway.transports.handshake import Opening
from headrace.gateway.transports.http import HttpSide
from headrace.gateway.transports.tls import Certificate, Http, TlsDoor, TlsSettings
from headrace.gateway.transports.websocket import Connection, Endpoint, EndpointFactory, has_endpoint
from headrace.inbox import Inbox
from headrace.model.errors import ConfigError
from headrace.orders.intake import Intake
from headrace.protocol.codes import CloseCode
from headrace.protocol.frames import EventFramer, Framer, Head
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor

BACKLOG: Final = 4096

_log = structlog.get_logger("gateway")


class Gateway:
    """Serves clients from `start` to `stop`, with tasks of `supervisor`.

    `cache` is what snapshots come from; whoever made it feeds it. `inbox` keeps what users are sent; without it users
    are sent nothing. `writers` publish what applications broadcast. `head` tells how far the chain is known (shown in
    heartbeats). `demo` marks a server that plays a recording. `dashboard` and `expose_metrics` switch the page at `/`
    and `/metrics` off.
    `orders` takes orders; without it there are none. `auth` says who clients are; without it nobody is asked.
    `endpoints`, `handlers` and `framer` are for benchmarks, which put their own beside or in place of ours.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        bus: Bus,
        health: Health,
        metrics: Metrics,
        clock: Clock,
        *,
        cache: Snapshots | None = None,
        inbox: Inbox | None = None,
        writers: Mapping[Lane, Writer] = MappingProxyType({}),
        supervisor: Supervisor,
        server_id: str,
        head: Callable[[], Head] = Head,
        demo: bool = False,
        dashboard: bool = True,
        expose_metrics: bool = True,
        orders: Intake | None = None,
        auth: Authenticator | None = None,
        endpoints: Mapping[str, EndpointFactory] | None = None,
        handlers: Sequence[ControllerRouterHandler] = (),
        framer: Framer | None = None,
        admission: AdmissionSettings | None = None,
        tls: TlsSettings | None = None,
    ) -> None:
        self._settings, self._bus, self._health, self._clock = settings, bus, health, clock
        self._supervisor, self._demo, self._auth = supervisor, demo, auth
        self.admission = Admission(clock, admission, demo=demo)
        self._keeper = Doorkeeper(settings, clock, metrics, self.admission)
        framer = framer or EventFramer()
        self.hub = Hub(bus, clock, lambda: self._keeper.settings, metrics, supervisor, framer, cache)
        verbs = OrderVerbs(orders, supervisor) if orders is not None else None
        self._mailboxes = Mailboxes(inbox, supervisor, clock, metrics) if inbox is not None else None
        owners = OrderTopics(orders, supervisor) if orders is not None else None
        self.gate = Gate(self.hub, self._keeper, metrics, server_id, head, verbs, self._mailboxes, auth, owners)
        self._endpoints: dict[str, EndpointFactory] = {"/ws": self._session, **(endpoints or {})}
        self.order_streams: OrderStreams | None = None
        if orders is not None:
            self.order_streams = OrderStreams(orders, supervisor, self._keeper, auth)
            self._endpoints |= dict.fromkeys(order_routes.STREAMS, self.order_streams.open)
            handlers = (*order_routes.handlers(orders), *handlers)
        else:
            self._endpoints |= dict.fromkeys(order_routes.STREAMS, order_routes.refuse_stream)
            handlers = (*order_routes.off(), *handlers)
        context = Context(
            bus,
            self.gate,
            self.hub,
            self._keeper,
            health,
            metrics,
            framer,
            Broadcasts(writers, inbox, server_id),
            server_id,
            demo=demo,
            dashboard=dashboard,
            expose_metrics=expose_metrics,
            auth=auth,
        )
        self._certificate = Certificate(tls) if tls is not None and tls.paths() else None
        self._http = HttpSide(build(context, handlers), self._keeper, supervisor, self._websocket)
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[object]] = []
        self._detach = contextlib.ExitStack()
        self._port = 0

    @property
    def port(self) -> int:
        """The TCP port that it listens on; 0 before `start`."""
        return self._port

    async def start(self) -> None:
        """Listen; returns when requests are served. Raises ConfigError when the address can't be had."""
        if self._auth is not None:
            await self._auth.start(self._supervisor)
        listener = self._listen()
        self._port = listener.getsockname()[1]
        self._detach.callback(self.hub.close)
        start = partial(self._supervisor.start, "gateway")
        self._tasks = [start("hub", self.hub.run), start("deadlines", self._keeper.run)]
        self._tasks.append(start("windows", self.hub.windows.run))
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._door, sock=listener, backlog=BACKLOG)
        if self.order_streams is not None:
            self._tasks.insert(0, start("order-streams", self.order_streams.run))
        if self._mailboxes is not None:
            self._detach.callback(self._bus.subscribe(self._mailboxes.sink, kinds=("user",)).close)
            self._tasks.insert(0, start("inbox", self._mailboxes.run, restart=Backoff(1.0, 60.0)))
        loopback = ipaddress.ip_address(listener.getsockname()[0]).is_loopback
        self.admission.local = loopback
        self._health.report("gateway", ready=True, detail=f"listening on port {self._port}")
        if self._auth is None and not (self._demo and loopback):
            _log.warning(
                "no_authentication",
                host=self._settings.host,
                port=self._port,
                meaning="anyone who can connect can read everything; AUTH_MODE changes that",
            )

    def apply(self, settings: GatewaySettings) -> None:
        """Change what may change while running."""
        self._keeper.apply(settings)

    def reload_certificate(self) -> None:
        """Read the certificate's files again, for handshakes to come. Reads files: call it in a thread."""
        if self._certificate is not None:
            self._certificate.reload()

    async def reload_keys(self) -> None:
        """Look at the issuer's keys again; should that fail, the former stay in use."""
        if self._auth is not None:
            await self._auth.reload()

    async def stop(self, deadline_s: float = 10.0) -> None:
        """Let no one in, answer what waits, tell every client to come back elsewhere (4001), end by the deadline."""
        end_s = self._clock.monotonic() + deadline_s
        self._keeper.draining = True
        self._health.report("gateway", ready=False, detail="shutting down")
        if self.order_streams is not None:
            self.order_streams.close()
        try:
            await drain(self.hub, self._keeper, end_s)
            self._close()
            while self._http.connections and self._clock.monotonic() < end_s:
                await self._clock.sleep(POLL_S)
        finally:  # also when this is cancelled: no socket stays open
            self._close()
            self._http.abort()
            for client in list(self.hub.clients):  # whose handshake was under way when the others were told to leave
                client.cut_off(CloseCode.SHUTDOWN)
            self._keeper.drop_all()
            for task in self._tasks:
                task.cancel()
            await self._clock.sleep(0)  # dropped sockets close in the loop's next turn

    def _close(self) -> None:
        """Let no connection in, and end those that wait for nothing. Idempotent."""
        self._detach.close()
        if self._server is not None:
            self._server.close()
        self._http.begin_to_close()

    def _websocket(self, path: str) -> Connection | None:
        return Connection(self._keeper, self._endpoints) if has_endpoint(self._endpoints, path) else None

    def _session(self, connection: Connection, opening: Opening) -> Endpoint:
        return SessionShell(self.gate, connection, opening)

    def _door(self) -> asyncio.Protocol:
        """Return what takes a new connection."""
        if self._certificate is None:
            return self._http()
        return TlsDoor(self._certificate, self._keeper, self._supervisor, cast("Callable[[], Http]", self._http))

    def _listen(self) -> socket.socket:
        host, port = self._settings.host, self._settings.port
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            # Only with the protocol named does asyncio set TCP_NODELAY; else an answer in two writes takes 40 ms more.
            listener = socket.socket(found[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
        except OSError as error:
            raise ConfigError("SERVER_HOST", host, "an address of this machine") from error
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Accepted sockets inherit this: a client that stops reading hides this much in the kernel, not megabytes.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._settings.send_buffer_bytes)
            listener.setblocking(False)
            listener.bind(found[4])
        except OSError as error:
            listener.close()
            raise ConfigError("SERVER_PORT", f"{host}:{port}", "an address that is free here") from error
        return listener
