"""Sessions on `/ws`. The protocol's session decides; the hub, the inbox and the orders execute its decisions."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Final, assert_never
from urllib.parse import unquote

import structlog

from headrace.fanout.client import Client
from headrace.fanout.framing import Framing, a_line_each, a_line_each_deflated, one_each, one_each_deflated
from headrace.fanout.hub import Hub
from headrace.fanout.user_topics import UserTopic, UserTopics
from headrace.gateway.auth.authenticator import Authenticator
from headrace.gateway.door.doorkeeper import Doorkeeper
from headrace.gateway.order_commands import OrderCommands
from headrace.gateway.order_topics import OrderTopics, OwnerChecks
from headrace.gateway.problems import Refused
from headrace.gateway.transports.handshake import Opening, credential_of
from headrace.gateway.transports.websocket import Connection
from headrace.model.errors import RequestError
from headrace.model.identity import SUBJECT_LENGTH_MAX, Identity, is_subject
from headrace.protocol import frames
from headrace.protocol.authenticated_session import AuthenticatedSession
from headrace.protocol.codes import CloseCode, ErrorCode
from headrace.protocol.credential_state import DENIED, CredentialState
from headrace.protocol.frames import FrameId, Head
from headrace.protocol.session import (
    Acknowledge,
    Action,
    Authenticate,
    Close,
    History,
    OrderCommand,
    OwnerOnly,
    Revoke,
    Send,
    ServerSession,
    Subscribe,
    Unsubscribe,
    Welcome,
)
from headrace.runtime.metrics import Metrics

_log = structlog.get_logger("gateway")

_FRAMINGS: Final[Mapping[tuple[bool, bool], Framing]] = {
    (False, False): one_each,
    (True, False): a_line_each,
    (False, True): one_each_deflated,
    (True, True): a_line_each_deflated,
}
"""(may a frame contain several objects, may it be compressed) → how frames are written."""


@dataclass
class SessionContext:
    """Parts that all sessions share. `head` returns the newest known slots at the time of the call.

    `orders` and `order_topics` are None on a server that accepts no orders, `user_topics` on a server that keeps
    nothing for users, and `auth` on a server that checks no credentials.
    """

    hub: Hub
    keeper: Doorkeeper
    metrics: Metrics
    server_id: str
    head: Callable[[], Head]
    orders: OrderCommands | None = None
    user_topics: UserTopics | None = None
    auth: Authenticator | None = None
    order_topics: OrderTopics | None = None
    ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.closed = self.metrics.counter("gateway_closed", "Connections that this server closed", ("code",))
        self.commands = self.metrics.counter("gateway_commands", "Frames received from clients")


class StreamEndpoint(Client):
    """One client of the wire protocol, from `welcome` to close: the endpoint of a WebSocket at `/ws`."""

    __slots__ = (
        "_address", "_authenticated_session", "_claimed", "_connection", "_context", "_keeper", "_owner_checks",
        "_session", "_user_id", "_user_topic", "_wanted", "frame_bytes_max",
    )  # fmt: skip

    def __init__(self, context: SessionContext, connection: Connection, opening: Opening) -> None:
        self._context, self._keeper, self._connection = context, context.keeper, connection
        limits = context.keeper.settings.limits()
        self._user_id: str | None = None
        self._address = opening.address
        self._claimed = _user_id(opening.query)
        """The user that the URL names. The session's welcome shows which user was accepted."""
        self._user_topic: UserTopic | None = None
        self._owner_checks: OwnerChecks | None = None
        self._wanted = _subscriptions(opening.query, limits.topics)
        batch = _one(opening.query, "batch") == "1"
        super().__init__(connection.transport, framing=_FRAMINGS[batch, connection.deflate])
        self._session, self._authenticated_session = self._new_session(opening)
        self.frame_bytes_max = limits.frame

    @property
    def user_id(self) -> str | None:
        """Return the accepted user; None before the welcome, and for a client without a user."""
        return self._user_id

    def opened(self) -> None:
        """Start the session. Close with 4504 if the server is full."""
        if len(self._context.hub.clients) >= self._keeper.settings.connections_max:
            self.cut_off(CloseCode.CONNECTION_LIMIT)
            return
        self._context.hub.add(self)
        wanted, self._wanted = self._wanted, []
        self._perform(self._session.open(wanted))
        self._is_used()
        self._set_alarm()

    def text(self, data: str) -> None:
        """Perform a command."""
        self._context.commands.inc()
        actions = self._session.receive(data, self._keeper.clock.monotonic())
        if actions:  # a pong needs no action
            self._is_used()
            self._perform(actions)

    def binary(self, data: bytes) -> None:
        """Refuse a binary frame."""
        self._context.commands.inc()
        self._perform(self._session.malformed("binary frames are not used here", self._keeper.clock.monotonic()))

    def socket_full(self) -> None:
        """Deliver nothing until the client accepts data again."""
        self._context.hub.pause(self)

    def socket_free(self) -> None:
        """Deliver again."""
        self._context.hub.resume(self)
        if self._user_topic is not None:
            self._user_topic.resume()

    def lost(self) -> None:
        """Forget the client."""
        self._keeper.alarms.clear(self)
        self._keeper.pings.clear(self)
        self._keeper.pongs.clear(self)
        self._keeper.idle.clear(self)
        self._context.hub.remove(self)
        if self._user_id is not None:
            self._keeper.admission.leave_user(self._user_id)
        if self._user_topic is not None:
            self._user_topic.close()
            self._user_topic = None
        if self._authenticated_session is not None:
            self._authenticated_session.credential.close()

    def wake(self) -> None:
        """Do what is due now for the credential."""
        if self._authenticated_session is not None:
            self._perform(self._authenticated_session.wake(self._keeper.clock.monotonic()))
            self._set_alarm()

    def ping(self) -> None:
        """Send a heartbeat and expect an answer, unless the socket is full."""
        if self.paused:
            return  # no pong is read while the socket is full; a client that accepts data is alive
        if self not in self._keeper.pongs:
            self._keeper.pongs.set(self, self._keeper.clock.monotonic())
            self._connection.heard = False
        ts_ms = self._keeper.clock.wall_ns() // 1_000_000
        self.send(frames.ping(ts_ms, self._context.head(), self._context.hub.tops(self)))

    def no_pong(self) -> None:
        """Close a connection that did not answer a heartbeat, unless its socket is full."""
        if not (self._connection.heard or self.paused):
            self.cut_off(CloseCode.NO_PONG)

    def idle(self) -> None:
        """Close a connection that has no subscription and sent no command for the whole time."""
        if self._context.hub.clients.get(self):
            self._is_used()
        else:
            self.cut_off(CloseCode.NORMAL)

    def cut_off(self, code: CloseCode) -> None:
        """Close the connection once all frames are written. Idempotent."""
        if self.open:
            self.flush()
            self.open = False
            self._context.closed.labels(str(int(code))).inc()
            self._connection.close(code)

    def not_subscribed(self, topic: str) -> None:
        """Allow the client to subscribe to the topic again."""
        self._session.lost(topic)

    def _is_used(self) -> None:
        if self._keeper.admission.settings.idle_s:
            self._keeper.idle.set(self, self._keeper.clock.monotonic())

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            if not self.open:
                return
            match action:
                case Send(payload):
                    self.send(payload)
                case Welcome():
                    self._welcome()
                case Authenticate():
                    self._authenticate(action)
                case Subscribe():
                    self._context.hub.subscribe(self, action)
                case Unsubscribe(topic, request_id):
                    failure = RequestError(ErrorCode.BAD_REQUEST, "unsubscribed before it began")
                    self._unsubscribe(topic, failure)
                    self.send(frames.unsubscribed(topic, request_id))
                case History():
                    self._context.hub.history(self, action)
                case OwnerOnly():
                    self._check_owner(action)
                case Acknowledge():
                    self._acknowledge(action)
                case OrderCommand():
                    assert self._context.orders is not None
                    self._context.orders.perform(self, action, self._user_id)
                case Revoke(topic):
                    self._revoke(topic)
                case Close(code):
                    self.cut_off(code)
                case _:
                    assert_never(action)

    def _check_owner(self, wanted: OwnerOnly) -> None:
        if self._owner_checks is None:
            assert self._context.order_topics is not None
            self._owner_checks = OwnerChecks(self._context.order_topics)
        self._owner_checks.ask(self, wanted)

    def perform_for_owner(self, action: Subscribe | History) -> None:
        """Perform a command that only an order's owner may send. The owner was checked."""
        self._perform([action])

    def _acknowledge(self, wanted: Acknowledge) -> None:
        if self._user_topic is None or wanted.topic != self._user_topic.topic:
            failure = RequestError(ErrorCode.DENIED, "not the topic of this connection's user")
            self.send(frames.error(failure, wanted.request_id))
        else:
            self._user_topic.acknowledge(wanted.offset, wanted.request_id)

    def _new_session(self, opening: Opening) -> tuple[ServerSession, AuthenticatedSession | None]:
        """Return the session, and the same session again if its client must authenticate (None otherwise)."""
        limits, now_s = self._keeper.settings.limits(), self._keeper.clock.monotonic()
        auth, orders = self._context.auth, self._context.orders is not None
        credential = credential_of(opening, wanted=auth is not None)
        if auth is None:
            return ServerSession(limits, now_s, orders=orders), None
        state = CredentialState(self._claimed, auth.settings.terms(), now_s)
        session = AuthenticatedSession(limits, now_s, state, credential, orders=orders)
        return session, session

    def _welcome(self) -> None:
        settings, session = self._keeper.settings, self._authenticated_session
        user_id = self._claimed if session is None else session.credential.subject
        if user_id is not None and not self._keeper.admission.enter_user(user_id):
            self.cut_off(CloseCode.CONNECTION_LIMIT)
            return
        self._user_id = user_id
        self._keeper.pings.set(self, self._keeper.clock.monotonic())
        self.send(
            frames.welcome(
                connection_id=f"c{next(self._context.ids)}",
                user_id=self._user_id,
                server_id=self._context.server_id,
                ping_s=settings.ping_s,
                pong_s=settings.pong_s,
                limits=self._session.limits,
            )
        )
        self._context.hub.welcome(self)
        if self._user_id is not None and self._context.user_topics is not None:
            self._user_topic = self._context.user_topics.open(self, self._user_id)

    def _authenticate(self, wanted: Authenticate) -> None:
        assert self._context.auth is not None
        self._context.auth.check(
            wanted.credential,
            accepted=partial(self._accepted, wanted.request_id),
            refused=partial(self._refused, wanted.request_id),
        )

    def _accepted(self, request_id: FrameId, identity: Identity, valid_s: float) -> None:
        session, now_s = self._authenticated_session, self._keeper.clock.monotonic()
        assert session is not None
        _log.debug("client_authenticated", user=identity.subject, address=self._address)
        self._perform(session.authenticated(identity, valid_s, request_id, now_s))
        self._set_alarm()

    def _refused(self, request_id: FrameId, failure: RequestError) -> None:
        assert self._authenticated_session is not None
        self._perform(self._authenticated_session.not_authenticated(failure, request_id))
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._authenticated_session is not None and self.open:
            wake_at_s = self._authenticated_session.credential.wake_at_s
            self._keeper.alarms.set(self, wake_at_s, self._keeper.clock.monotonic())

    def _revoke(self, topic: str) -> None:
        if self._unsubscribe(topic, DENIED):
            self.send(frames.error(DENIED, topic=topic))

    def _unsubscribe(self, topic: str, failure: RequestError) -> bool:
        """End delivery. Return whether delivery had begun.

        If not, answer the command that subscribed with `failure`.
        """
        undecided = self._owner_checks.withdraw(topic) if self._owner_checks is not None else None
        if undecided is not None:
            self.send(frames.error(failure, undecided.request_id))
            return False
        ended = self._context.hub.unsubscribe(self, topic)
        if ended is not None and not ended.acknowledged:
            self.send(frames.error(failure, ended.request_id))
            return False
        return True


def _one(query: Mapping[str, list[str]], name: str) -> str | None:
    values = query.get(name)
    if values is None:
        return None
    if len(values) > 1:
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name} is given more than once")
    return values[0]


def _user_id(query: Mapping[str, list[str]]) -> str | None:
    user_id = _one(query, "user_id")
    if user_id is not None and not is_subject(user_id):
        raise Refused(HTTPStatus.BAD_REQUEST, f"user_id is not 1 to {SUBJECT_LENGTH_MAX} printable ASCII characters")
    return user_id


def _subscriptions(query: Mapping[str, list[str]], topics_max: int) -> list[str]:
    """Return the topics that the URL names.

    They are split at commas and then decoded, so `%2C` is a comma in a name.
    """
    wanted = [name for name in (_one(query, "subscriptions") or "").split(",") if name]
    if len(wanted) > topics_max:
        raise Refused(HTTPStatus.BAD_REQUEST, f"more than {topics_max} subscriptions")
    try:
        return [unquote(name, errors="strict") for name in wanted]
    except UnicodeDecodeError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, "bad query") from error
