"""One topic as server-sent events. The socket of an HTTP request becomes a client of the hub, like a WebSocket."""

import asyncio
import math
import random
import socket
from collections.abc import Callable
from typing import Final, TypeAlias, cast

import structlog

from headrace.fanout.client import Client
from headrace.fanout.framing import chunk, events
from headrace.gateway.door.doorkeeper import Stalling
from headrace.gateway.sessions import SessionContext
from headrace.model.events import Position
from headrace.model.identity import Identity
from headrace.protocol import frames, sse
from headrace.protocol.codes import CloseCode
from headrace.protocol.session import Subscribe

TakeOver: TypeAlias = Callable[[asyncio.Protocol], bool]
"""Hands the socket to another protocol after the answer's header block.

Returns False if the answer may have no body.
"""

TAKE_OVER: Final = "headrace.take_over"
"""The ASGI extension whose `call` is a TakeOver."""

RETRY_MS: Final = (1000, 3000)
RETRY_AFTER_STOP_MS: Final = (3000, 12_000)
"""Ranges in ms of the random wait before a client reconnects: short after a fault, spread out after a restart."""

_LOST: Final = 1006

_log = structlog.get_logger("gateway")
_rng: Final = random.SystemRandom()


class EventStream(Client, Stalling, asyncio.Protocol):
    """One client that reads a topic over HTTP, with the same rules as a WebSocket.

    The first event is `subscribed`, the last is `close` with the reason. Clients of an event stream do not answer
    heartbeats. The kernel notices that a client has vanished, because its TCP no longer acknowledges data.
    """

    def __init__(
        self, sessions: SessionContext, topic: str, recover: Position | None, identity: Identity | None, address: str
    ) -> None:
        """Follow `topic` after `recover`.

        The caller has entered `address` in the admission. The stream leaves it at its end.
        """
        self._sessions, self._keeper, self._address = sessions, sessions.keeper, address
        self._user_id = None if identity is None else identity.subject
        self._ends_s = math.inf
        if sessions.auth is not None and identity is not None:
            self._ends_s = (
                self._keeper.clock.monotonic() + sessions.auth.valid_s(identity) + sessions.auth.settings.grace_s
            )
        self._wanted = Subscribe(topic, None, recover)
        self._heard_bytes = self._unsent = 0
        self._began_s, self._code = self._keeper.clock.monotonic(), _LOST

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        super().__init__(self.transport, framing=events)
        settings = self._keeper.settings
        self.transport.set_write_buffer_limits(high=settings.write_buffer_bytes)
        _give_up_after(self.transport, settings.ping_s + settings.pong_s)
        self._sessions.hub.add(self)
        if self._user_id is not None:
            self._keeper.admission.users[self._user_id] += 1
        self._keeper.pings.set(self, self._keeper.clock.monotonic())
        self.wire.write(chunk(sse.retry(_rng.randint(*RETRY_MS))))
        self._sessions.hub.subscribe(self, self._wanted)
        _log.debug("client_connected", user=self._user_id, address=self._address, topic=self._wanted.topic)
        self.wake()

    def data_received(self, data: bytes) -> None:
        """Drop the remaining bytes of a body, and later requests. Too many bytes end the connection."""
        self._heard_bytes += len(data)
        if self._heard_bytes > self._keeper.settings.body_bytes_max:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._keeper.closing.clear(self)
        self._keeper.stuck.clear(self)
        self._keeper.admission.leave(self._address)
        seconds = round(self._keeper.clock.monotonic() - self._began_s, 3)
        _log.debug("client_left", user=self._user_id, address=self._address, code=self._code, seconds=seconds)

    def pause_writing(self) -> None:
        self._watch_unsent()
        self._sessions.hub.pause(self)

    def resume_writing(self) -> None:
        self._keeper.stuck.clear(self)
        self._sessions.hub.resume(self)

    def abort(self) -> None:
        self.transport.abort()

    def wake(self) -> None:
        """Close the stream if the credential has expired. The client reconnects with a new credential."""
        now_s = self._keeper.clock.monotonic()
        if now_s >= self._ends_s:
            self.cut_off(CloseCode.EXPIRED)
        else:
            self._keeper.alarms.set(self, self._ends_s, now_s)

    def ping(self) -> None:
        if not self.paused:
            ts_ms = self._keeper.clock.wall_ns() // 1_000_000
            self.send(frames.ping(ts_ms, self._sessions.head(), self._sessions.hub.tops(self)))

    def no_pong(self) -> None:
        """Do nothing: clients of an event stream do not answer heartbeats."""

    def cut_off(self, code: CloseCode) -> None:
        if not self.open:
            return
        self.flush()
        self._code = int(code)
        last = sse.close(code)
        if code is CloseCode.SHUTDOWN:
            last = sse.retry(_rng.randint(*RETRY_AFTER_STOP_MS)) + last
        self.wire.write(chunk(last) + chunk(b""))
        self._sessions.closed.labels(str(int(code))).inc()
        self._leave()
        self._keeper.closing.set(self, self._keeper.clock.monotonic())
        self.transport.close()

    def not_subscribed(self, topic: str) -> None:
        """End the stream, which has no other topic. The client reconnects and asks again."""
        self.cut_off(CloseCode.INSUFFICIENT_STATE)

    def _leave(self) -> None:
        self.open = False
        self._keeper.alarms.clear(self)
        self._keeper.pings.clear(self)
        if self in self._sessions.hub.clients:
            self._sessions.hub.remove(self)
            if self._user_id is not None:
                self._keeper.admission.leave_user(self._user_id)


def _give_up_after(transport: asyncio.Transport, silent_s: float) -> None:
    """Make the kernel drop the connection if data is not acknowledged for `silent_s` seconds (RFC 5482)."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # macOS lacks this option and uses TCP's own time-outs
        plug = transport.get_extra_info("socket")
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(silent_s * 1000)))
