"""Starts, runs and stops the whole gateway: HTTP and WebSocket on one port."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable
from functools import partial
from typing import Final, cast

import structlog

from headrace.fanout.hub import Hub
from headrace.fanout.user_topics import UserTopics
from headrace.gateway.broadcasts import Broadcasts
from headrace.gateway.context import Extensions, GatewayContext, GatewayOptions
from headrace.gateway.door.admission import Admission
from headrace.gateway.door.doorkeeper import Doorkeeper
from headrace.gateway.order_commands import OrderCommands
from headrace.gateway.order_streams import OrderStreams
from headrace.gateway.order_topics import OrderTopics
from headrace.gateway.routes import build
from headrace.gateway.routes import orders as order_routes
from headrace.gateway.routes.context import Context
from headrace.gateway.sessions import SessionContext, StreamEndpoint
from headrace.gateway.settings import GatewaySettings
from headrace.gateway.transports.handshake import Opening
from headrace.gateway.transports.http import HttpSide
from headrace.gateway.transports.tls import Certificate, Http, TlsConnection
from headrace.gateway.transports.websocket import Connection, Endpoint, EndpointFactory, has_endpoint
from headrace.model.errors import ConfigError
from headrace.protocol.codes import CloseCode
from headrace.protocol.frames import event_frame
from headrace.runtime.backoff import Backoff

BACKLOG: Final = 4096

CLOSES_PER_S: Final = 2000
"""Number of clients closed per second at a stop, if the deadline allows. They reconnect elsewhere at the same rate."""

ANSWERING_SHARE: Final = 0.3
"""Share of a stop's time that may pass until the commands already received are answered."""

CLOSING_SHARE: Final = 0.6
"""Share of the time left after that which may pass until the last client is closed.

The remainder is for their answers.
"""

POLL_S: Final = 0.02
ACCEPTING: Final = 5
"""Iterations of the loop in which an accepted socket gets its connection.

A server of asyncio that is closed in between leaves the socket open (Python 3.11).
"""

_log = structlog.get_logger("gateway")


class Gateway:
    """Serves clients from `start` to `stop`."""

    def __init__(self, options: GatewayOptions, context: GatewayContext, extensions: Extensions | None = None) -> None:
        extensions = extensions or Extensions()
        self._options, self._context, self._clock = options, context, context.clock
        metrics, supervisor = context.metrics, context.supervisor
        self.admission = Admission(context.clock, options.admission, demo=options.demo)
        self.keeper = Doorkeeper(options.gateway, context.clock, metrics, self.admission)
        framer = extensions.framer or event_frame
        self.hub = Hub(
            context.bus, context.clock, lambda: self.keeper.settings, metrics, supervisor, framer, context.cache
        )
        self.hub.quotes = context.quotes
        self._user_topics: UserTopics | None = None
        if context.inbox is not None:
            self._user_topics = UserTopics(context.inbox, supervisor, context.clock, metrics)
        sessions = SessionContext(self.hub, self.keeper, metrics, options.server_id, context.head)
        sessions.user_topics, sessions.auth = self._user_topics, context.auth
        self.sessions = sessions
        self._endpoints: dict[str, EndpointFactory] = {"/ws": self._stream, **extensions.endpoints}
        self.order_streams: OrderStreams | None = None
        open_order_stream: EndpointFactory = order_routes.refuse_stream
        order_handlers = order_routes.off()
        if context.orders is not None:
            sessions.orders = OrderCommands(context.orders, supervisor)
            sessions.order_topics = OrderTopics(context.orders, supervisor)
            self.order_streams = OrderStreams(context.orders, supervisor, self.keeper, context.auth)
            open_order_stream, order_handlers = self.order_streams.open, order_routes.handlers(context.orders)
        self._endpoints |= dict.fromkeys(order_routes.STREAMS, open_order_stream)
        broadcasts = Broadcasts(context.writers, context.inbox, options.server_id)
        routes = Context(options, context, sessions, framer, broadcasts)
        self._certificate = Certificate(options.tls) if options.tls.paths() else None
        app = build(routes, (*order_handlers, *extensions.handlers))
        self._http = HttpSide(app, self.keeper, supervisor, self._websocket)
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[object]] = []
        self._detach = contextlib.ExitStack()
        self._port = 0

    @property
    def port(self) -> int:
        """Return the TCP port of the gateway; 0 before `start`."""
        return self._port

    @staticmethod
    def bind(settings: GatewaySettings) -> socket.socket:
        """Return a socket with the address of the settings. Nobody can connect before `Gateway.start`.

        Raises ConfigError if the address is not one of this machine, or not free.
        """
        host, port = settings.host, settings.port
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            # asyncio sets TCP_NODELAY only if the protocol is named in this call. Without TCP_NODELAY, an answer in two
            # writes takes 40 ms longer.
            listener = socket.socket(found[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
        except OSError as error:
            raise ConfigError("SERVER_HOST", host, "an address of this machine") from error
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Accepted sockets inherit this limit. Without it, the kernel buffers megabytes for a client that stops
            # reading.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer_bytes)
            listener.setblocking(False)
            listener.bind(found[4])
        except OSError as error:
            listener.close()
            raise _taken(settings) from error
        return listener

    async def start(self, listener: socket.socket | None = None) -> None:
        """Listen. Return once requests are served.

        `listener` is what `bind` returned for these settings; without it, the address is bound now. Raises ConfigError
        if the address is not available.
        """
        context, auth = self._context, self._context.auth
        if auth is not None:
            await auth.start(context.supervisor)
        listener = listener or self.bind(self._options.gateway)
        self._port = listener.getsockname()[1]
        self._detach.callback(self.hub.close)
        start = partial(context.supervisor.start, "gateway")
        self._tasks = [start("hub", self.hub.run), start("deadlines", self.keeper.run)]
        self._tasks.append(start("windows", self.hub.windows.run))
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._connection, sock=listener, backlog=BACKLOG)
        except OSError as error:  # another program bound the address too, and was the first to listen
            listener.close()
            raise _taken(self._options.gateway) from error
        if self.order_streams is not None:
            self._tasks.insert(0, start("order-streams", self.order_streams.run))
        if self._user_topics is not None:
            self._detach.callback(context.bus.subscribe(self._user_topics.sink, kinds=("user",)).close)
            self._tasks.insert(0, start("inbox", self._user_topics.run, restart=Backoff(1.0, 60.0)))
        loopback = ipaddress.ip_address(listener.getsockname()[0]).is_loopback
        self.admission.local = loopback
        context.health.report("gateway", ready=True, detail=f"listening on port {self._port}")
        if auth is None and not (self._options.demo and loopback):
            _log.warning(
                "no_authentication",
                host=self._options.gateway.host,
                port=self._port,
                meaning="anyone who can connect can read everything; AUTH_MODE changes that",
            )

    def apply(self, settings: GatewaySettings) -> None:
        """Change the settings that may change while running."""
        self.keeper.apply(settings)

    def reload_certificate(self) -> None:
        """Read the certificate's files again, for later handshakes. Blocks on files: call it in a thread."""
        if self._certificate is not None:
            self._certificate.reload()

    async def reload_keys(self) -> None:
        """Read the issuer's keys again. If that fails, the earlier keys stay in use."""
        if self._context.auth is not None:
            await self._context.auth.reload()

    async def stop(self, deadline_s: float = 10.0) -> None:
        """Accept no more clients, answer what was received, close every client (4001), and end by the deadline.

        The close code makes clients reconnect elsewhere.
        """
        end_s = self._clock.monotonic() + deadline_s
        self.keeper.draining = True
        self._context.health.report("gateway", ready=False, detail="shutting down")
        if self.order_streams is not None:
            self.order_streams.close()
        try:
            await self._drain(end_s)
            await self._close()
            while self._http.connections and self._clock.monotonic() < end_s:
                await self._clock.sleep(POLL_S)
        finally:  # even if the stop is cancelled: no socket stays open
            await self._close()
            self._http.abort()
            for client in list(self.hub.clients):  # their handshake was in progress when the other clients were closed
                client.cut_off(CloseCode.SHUTDOWN)
            self.keeper.drop_all()
            for task in self._tasks:
                task.cancel()
            await self._clock.sleep(0)  # dropped sockets close in the loop's next iteration

    async def _drain(self, end_s: float) -> None:
        """Answer what was received, then close every client with 4001, spread over time.

        All clients are gone at `end_s` (monotonic). Clients that are not closed yet get messages as before. No client
        is accepted once `keeper.draining` is set.
        """
        hub, closing, clock = self.hub, self.keeper.closing, self._clock
        now_s = clock.monotonic()
        answered_s = now_s + (end_s - now_s) * ANSWERING_SHARE
        hub.windows.end_all()
        while (hub.busy or hub.owing) and clock.monotonic() < answered_s:
            await hub.flush()
            await clock.sleep(0 if hub.busy else POLL_S)
        began_s, clients = clock.monotonic(), list(hub.clients)
        spread_s = min(len(clients) / CLOSES_PER_S, max(0.0, end_s - began_s) * CLOSING_SHARE)
        closed = 0
        while closed < len(clients):
            elapsed_s = clock.monotonic() - began_s
            due = len(clients) if elapsed_s >= spread_s else int(len(clients) * elapsed_s / spread_s) + 1
            for client in clients[closed:due]:
                client.cut_off(CloseCode.SHUTDOWN)
            closed = due
            await clock.sleep(POLL_S if closed < len(clients) else 0)
        while closing and clock.monotonic() < end_s:
            await clock.sleep(POLL_S)
        for late in closing.due(float("inf")):
            late.abort()

    async def _close(self) -> None:
        """Accept no more connections, and end connections without a request. Idempotent."""
        self._detach.close()
        if self._server is not None and self._server.is_serving():
            for listener in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listener.fileno())
            for _ in range(ACCEPTING):
                await self._clock.sleep(0)
            self._server.close()
        self._http.begin_to_close()

    def _websocket(self, path: str) -> Connection | None:
        return Connection(self.keeper, self._endpoints) if has_endpoint(self._endpoints, path) else None

    def _stream(self, connection: Connection, opening: Opening) -> Endpoint:
        return StreamEndpoint(self.sessions, connection, opening)

    def _connection(self) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        if self._certificate is None:
            return self._http()
        http = cast("Callable[[], Http]", self._http)
        return TlsConnection(self._certificate, self.keeper, self._context.supervisor, http)


def _taken(settings: GatewaySettings) -> ConfigError:
    return ConfigError("SERVER_PORT", f"{settings.host}:{settings.port}", "an address that is free here")
