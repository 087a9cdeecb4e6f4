"""Counts and deadlines of everything that has a socket in the gateway."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Hashable
from http import HTTPStatus
from typing import Final, Protocol

from headrace.gateway.door.admission import Admission
from headrace.gateway.door.deadlines import Alarms, Deadlines
from headrace.gateway.door.request_rates import RequestRates
from headrace.gateway.settings import GatewaySettings
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics

RETRY_AFTER_S: Final = (1, 5)
"""Range in seconds of the wait that a refused client is asked for. Drawn at random, so that not all return at once."""

KEEP_ALIVE_S: Final = 5.0
"""Seconds that a connection stays open after its last answer without a new request."""


class Abortable(Hashable, Protocol):
    """Connection that can be dropped at once."""

    def abort(self) -> None:
        """Drop the connection, or send an answer that its time is over."""


class Filling(Hashable, Protocol):
    """Connection whose socket may be full."""

    def still_full(self) -> None:
        """Handle a socket that was full for the whole time."""


class Stalling:
    """Socket that may be full. After `_watch_unsent` it must accept some of the unsent bytes in time, or it is dropped.

    `_unsent` is the number of unsent bytes at the last check. The subclasses define the attributes and their slots.
    """

    __slots__ = ()

    transport: asyncio.Transport
    _keeper: "Doorkeeper"
    _unsent: int

    def still_full(self) -> None:
        """Drop the connection unless it accepted some of the unsent bytes, because a slow client is not a dead one."""
        if self.transport.get_write_buffer_size() < self._unsent:
            self._watch_unsent()
        else:
            self.transport.abort()

    def _watch_unsent(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()  # type: ignore[misc]
        self._keeper.stuck.set(self, self._keeper.clock.monotonic())


class Beating(Hashable, Protocol):
    """Connection that gets heartbeats."""

    def ping(self) -> None:
        """Send a heartbeat."""

    def no_pong(self) -> None:
        """Handle a heartbeat without an answer."""


class Idling(Hashable, Protocol):
    """Connection that may be unused."""

    def idle(self) -> None:
        """Handle a connection that has had no command for the whole time."""


class Waking(Hashable, Protocol):
    """Connection with an alarm of its own."""

    def wake(self) -> None:
        """Do what is due now, and set the next alarm."""


class Doorkeeper:
    """Counts connections and keeps their deadlines: for requests, heartbeats, slow clients and closing handshakes."""

    def __init__(
        self, settings: GatewaySettings, clock: Clock, metrics: Metrics, admission: Admission | None = None
    ) -> None:
        self.settings = settings
        self.admission = admission or Admission(clock)
        self.clock = clock
        self.draining = False
        self.refused = metrics.counter("gateway_refused", "Handshakes and requests refused at the door", ("status",))
        most = metrics.gauge("gateway_connections_max", "Most WebSocket connections at once")
        most.set_function(lambda: float(self.settings.connections_max))
        self.rates = RequestRates(clock, lambda: self.admission.settings.requests_per_s, self.refused)
        self.waiting: Counter[str] = Counter()
        """Number of connections that are not WebSockets (or not yet), by peer."""
        self._waiting_all = 0
        self.requests: Deadlines[Abortable] = Deadlines(settings.request_s)
        self.kept: Deadlines[Abortable] = Deadlines(KEEP_ALIVE_S)
        self.stuck: Deadlines[Filling] = Deadlines(settings.slow_abort_s)
        self.closing: Deadlines[Abortable] = Deadlines(settings.close_s)
        self.pings: Deadlines[Beating] = Deadlines(settings.ping_s)
        self.pongs: Deadlines[Beating] = Deadlines(settings.pong_s)
        self.idle: Deadlines[Idling] = Deadlines(self.admission.settings.idle_s)
        self.alarms: Alarms[Waking] = Alarms()
        shortest_s = min(settings.request_s, settings.slow_abort_s, settings.close_s, settings.ping_s, settings.pong_s)
        self._round_s = min(0.25, shortest_s / 4)

    def apply(self, settings: GatewaySettings) -> None:
        """Change the settings that may change while running."""
        self.settings = settings

    def begin_waiting(self, peer: str) -> HTTPStatus | None:
        """Count a connection that is not a WebSocket (yet).

        If there are too many, return a status with which to refuse it.
        """
        self.waiting[peer] += 1
        self._waiting_all += 1
        if self._waiting_all > self.settings.http_connections_max:
            return HTTPStatus.SERVICE_UNAVAILABLE
        admission = self.admission
        if self.waiting[peer] > admission.settings.http_per_address_max and not admission.is_proxy(peer):
            return HTTPStatus.TOO_MANY_REQUESTS
        return None

    def overrun(self, peer: str) -> bool:
        """Return whether so many refused connections are open that even an answer costs too much."""
        return (
            self._waiting_all > 2 * self.settings.http_connections_max
            or self.waiting[peer] > 2 * self.admission.settings.http_per_address_max
        )

    def stop_waiting(self, peer: str) -> None:
        """Count one connection less: it ended, or is now a WebSocket."""
        self._waiting_all -= 1
        self.waiting[peer] -= 1
        if not self.waiting[peer]:
            del self.waiting[peer]

    def retry_after_s(self) -> int:
        """Return the seconds after which a refused client may try again."""
        return random.randint(*RETRY_AFTER_S)  # noqa: S311  (spreads load, protects nothing)

    async def run(self) -> None:
        """Handle deadlines until cancelled."""
        while True:
            await self.clock.sleep(self._round_s)
            self.round()

    def drop_all(self) -> None:
        """Drop connections that were asked to end or have not sent a whole request, even before their deadlines."""
        for deadlines in (self.requests, self.kept, self.closing):
            for waiting in deadlines.due(math.inf):
                waiting.abort()

    def round(self) -> None:
        """Handle everything that is due now."""
        now_s = self.clock.monotonic()
        for deadlines in (self.requests, self.kept, self.closing):
            for late in deadlines.due(now_s):
                late.abort()
        for full in self.stuck.due(now_s):
            full.still_full()
        for silent in self.pongs.due(now_s):
            silent.no_pong()
        for unused in self.idle.due(now_s):
            unused.idle()
        for waking in self.alarms.due(now_s):
            waking.wake()
        for client in self.pings.due(now_s):
            self.pings.set(client, now_s)
            client.ping()
