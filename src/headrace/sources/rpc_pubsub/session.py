"""One WebSocket connection to one node, from the handshake to its end."""

import ssl
from collections import Counter as Count
from typing import Final

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.http11 import Response

from headrace import __version__
from headrace.model.errors import BadInputError
from headrace.model.redact import redact
from headrace.runtime.http_answers import is_final, retry_after_s
from headrace.runtime.supervise import Supervisor
from headrace.sources.connection import DETAIL_MAX, Connection, Parting, SignatureNotice, Unreadable
from headrace.sources.merge import MergedStream
from headrace.sources.progress import Watch
from headrace.sources.rpc_pubsub.frames import Ack, Heard, Refusal, Stamp, Unknown, read
from headrace.sources.rpc_pubsub.registry import Registry
from headrace.sources.rpc_pubsub.salvage import salvage
from headrace.sources.rpc_pubsub.settings import RpcPubSubSettings
from headrace.sources.rpc_pubsub.websocket import BoundedWebSocket, ConnectStraight
from headrace.sources.subscriptions import ChainSubscription

_CLOSE_S = 0.25
"""Seconds to wait for the answer to a close frame. A node that floods sends much before the answer."""
_TURN = 64
"""Maximum number of messages read in a row while more are waiting. Then other tasks run."""
_GIVEN_UP: Final = {1008: "flood", 1009: "too_large"}
_REST_S_MAX = 300.0
_OF_SUBSCRIPTIONS: Final = (Ack, Refusal, Unknown, SignatureNotice, Unreadable)

_log = structlog.get_logger("source")


class PubSubSession:
    """Subscribes on one connection and passes its arrivals to `stream`. Call `run` once.

    With `ask_whole`, whole transactions are requested first.
    """

    def __init__(
        self,
        connection: Connection,
        stream: MergedStream,
        url: str,
        *,
        tls: ssl.SSLContext | None,
        settings: RpcPubSubSettings,
        ask_whole: bool = False,
    ) -> None:
        self.connection, self._stream, self._url, self._tls = connection, stream, url, tls
        self._settings, self._clock = settings, stream.clock
        self.registry = Registry(
            connection.wanted, settings.commitment, settings.encoding, retry_s=settings.refused_retry_s, whole=ask_whole
        )
        connection.refused = self.registry.refused
        connection.on_wanted = self._follow_wanted
        connection.on_part = self._end
        self._stamp = Stamp(connection.name, settings.commitment)
        self._tasks: Supervisor | None = None
        self._messages = self._bytes = self._unknown = 0
        self._bad: Count[str] = Count()
        self._logged: set[str] = set()

    async def run(self) -> Parting:
        """Connect, subscribe, and read until the end. Failures of the network and the node are returned, not raised."""
        connection, settings = self.connection, self._settings
        try:
            socket = await ConnectStraight(
                self._url,
                open_timeout=settings.connect_timeout_s,
                # its task would outlive a connection that is lost during the handshake; see `_tend`
                ping_interval=None,
                close_timeout=_CLOSE_S,
                max_size=settings.message_bytes_max,
                ssl=self._tls if self._url.startswith("wss:") else None,
                user_agent_header=f"headrace/{__version__}",
                compression=None,
                create_connection=BoundedWebSocket,
            )
        except InvalidStatus as error:
            return _turned_away(error.response)
        except (OSError, EOFError, UnicodeError, WebSocketException) as error:
            return Parting("refused", _text(error))
        connection.connected = True
        connection.watch = Watch(self._clock.monotonic(), stall_s=settings.stall_s, stall_slots=settings.stall_slots)
        try:
            async with Supervisor(self._clock) as self._tasks:
                self._tasks.start(connection.name, "read", lambda: self._read(socket))
                self._tasks.start(connection.name, "tend", lambda: self._tend(socket))
        finally:
            connection.connected = False
            self._export()
            if connection.parting is not None and connection.parting.reason != "closed":
                socket.transport.abort()  # a peer that does not read would not answer a close frame either
            await socket.close()
        return connection.parting or Parting("closed")

    # Reading.

    async def _read(self, socket: ClientConnection) -> None:
        clock, watch, receive = self._clock, self.connection.watch, socket.recv
        try:
            while True:
                message = await receive(decode=False)
                self._messages += 1
                self._bytes += len(message)
                watch.message(clock.monotonic())
                received_ns = clock.wall_ns()
                try:
                    heard = read(message, self.registry.active, self._stamp, received_ns)
                except BadInputError as error:
                    await self._salvage(message, error, received_ns)
                else:
                    await self._take(heard, received_ns)
                if not self._messages % _TURN:
                    await clock.sleep(0)
        except ConnectionClosed as closed:
            reason = _GIVEN_UP.get(closed.sent.code, "closed") if closed.sent else "closed"
            if reason != "closed":
                self._bad[reason] += 1
            self.connection.part(reason, _text(closed))

    async def _salvage(self, message: bytes, error: BadInputError, received_ns: int) -> None:
        """Read a message that the strict reader refused, as far as possible. Count its unreadable parts."""
        found = salvage(message, self.registry.active, self._stamp, received_ns, error.reason)
        if not found or any(isinstance(each, Unreadable | Unknown) for each in found):
            self._count_bad(error)
        for each in found:
            await self._take(each, received_ns)

    def _count_bad(self, error: BadInputError) -> None:
        """Count a message that is skipped. Log only one of each kind, because a node may send nothing else."""
        self._bad[error.reason] += 1
        if error.reason not in self._logged:
            self._logged.add(error.reason)
            _log.debug("bad_message", source=self.connection.name, reason=error.reason, detail=error.detail)

    async def _take(self, heard: Heard, received_ns: int) -> None:
        """Pass an arrival to the stream, after noting what it changes in the subscriptions."""
        if isinstance(heard, _OF_SUBSCRIPTIONS):
            if isinstance(heard, Ack):
                return self._acknowledge(heard)
            if isinstance(heard, Refusal):
                return self._refuse(heard)
            if isinstance(heard, Unknown):
                return await self._take_unknown(heard, received_ns)
            if isinstance(heard, Unreadable):
                self._renew(heard)
            else:
                self.registry.forget(heard.subscription, unsubscribe=False)
        await self._stream.take(self.connection, heard, received_ns)
        return None

    def _renew(self, lost: Unreadable) -> None:
        """Subscribe to signatures again. A node drops such a subscription with its notification, readable or not."""
        for subscription in lost.subscriptions:
            if subscription.kind == "signature":
                self.registry.renew(subscription)

    async def _take_unknown(self, heard: Unknown, received_ns: int) -> None:
        """Count a notification with an unknown id as lost to all subscriptions of its kind. The id may be wrong."""
        self._unknown += 1
        if not self.registry.is_lost(heard.subscription_id, heard.kinds):
            return
        concerned = tuple(known for known in self.registry.active.values() if known.kind in heard.kinds)
        if concerned:
            lost = Unreadable(concerned, "unknown_id", heard.slot)
            self._renew(lost)
            await self._stream.take(self.connection, lost, received_ns)

    # Subscribing.

    def _acknowledge(self, ack: Ack) -> None:
        if ack.subscription_id is None:
            return
        try:
            subscription = self.registry.acknowledge(ack.request_id, ack.subscription_id)
        except BadInputError as error:
            self.connection.part(error.reason, error.detail)
            return
        if subscription is not None:
            self._stream.acknowledge(self.connection, subscription, self.registry.commitment_of(subscription))

    def _refuse(self, refusal: Refusal) -> None:
        known_before = set(self.registry.refused)
        subscription = self.registry.refuse(refusal.request_id, refusal.code, refusal.message, self._clock.monotonic())
        if subscription is not None:
            self._show_refused([subscription], known_before)

    def _show_refused(self, subscriptions: list[ChainSubscription], known_before: set[ChainSubscription]) -> None:
        for subscription in subscriptions:
            if subscription not in known_before:
                reason, name = redact(self.registry.refused[subscription]), self.connection.name
                _log.warning("subscription_refused", source=name, feed=subscription.feed, reason=reason)
        self._stream.show_refused(self.connection)

    def _follow_wanted(self) -> None:
        """Replace the subscriptions. The requests are sent with the next tick."""
        self.registry.want(self.connection.wanted)

    # Tending.

    async def _tend(self, socket: ClientConnection) -> None:
        """Send due requests and handle missing answers, once a tick.

        Pongs are not waited for. `watch` distinguishes a silent node from a pipeline that holds up the reading.
        """
        connection = self.connection
        ping_at = self._clock.monotonic() + self._settings.ping_interval_s
        try:
            while True:
                for request in self.registry.due(self._clock.monotonic()):
                    await socket.send(request, text=True)
                now = self._clock.monotonic()
                if not self._tend_unanswered(now):
                    break
                if connection.handing_in:  # the outlet is full, so silence is not the node's fault
                    connection.watch.excuse(now)
                verdict = connection.watch.verdict(now)
                if verdict is not None:
                    connection.part(verdict, f"at slot {connection.watch.head}")
                    break
                if now >= ping_at:
                    await socket.ping()
                    ping_at = now + self._settings.ping_interval_s
                self._export()
                await self._clock.sleep(self._settings.tick_s)
        except ConnectionClosed as closed:
            connection.part("closed", _text(closed))

    def _tend_unanswered(self, now: float) -> bool:
        """Count requests without an answer as refused.

        Returns False, and ends the connection, if no request was ever answered.
        """
        known_before = set(self.registry.refused)
        unanswered = self.registry.unanswered(now, self._settings.ack_timeout_s)
        if unanswered and not self.registry.active:
            self.connection.part("no_ack", unanswered[0].feed)
            return False
        if unanswered:
            self._show_refused(unanswered, known_before)
        return True

    def _end(self) -> None:
        if self._tasks is not None:
            self._tasks.cancel()

    def _export(self) -> None:
        name = self.connection.name
        self._stream.metrics.traffic(name, self._messages, self._bytes, self._unknown, self._bad)
        self._messages = self._bytes = self._unknown = 0
        self._bad.clear()


def _turned_away(response: Response) -> Parting:
    """Return the end of a connection whose handshake the node did not accept."""
    status = response.status_code
    rest_s = retry_after_s(response.headers.get("Retry-After", ""), _REST_S_MAX) or 0.0
    if 300 <= status < 400:
        return Parting("denied", f"HTTP {status}, and redirects are not followed", rest_s)
    return Parting("denied" if is_final(status) else "refused", f"HTTP {status}", rest_s)


def _text(error: BaseException) -> str:
    return redact(str(error) or type(error).__name__)[:DETAIL_MAX]
