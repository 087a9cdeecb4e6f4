"""What stands behind `/ws`: the session machine, and the hub to do what it decides."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Final, assert_never
from urllib.parse import unquote

import structlog

from headrace.fanout.deflated import a_line_each_deflated, one_each_deflated
from headrace.fanout.framing import Framing, a_line_each, one_each
from headrace.fanout.groups import Client
from headrace.fanout.hub import Hub
from headrace.fanout.user_topics import Mailbox, Mailboxes
from headrace.gateway.auth.authenticator import Authenticator
from headrace.gateway.auth.handshake import credential_of
from headrace.gateway.door.doorkeeper import Doorkeeper
from headrace.gateway.order_commands import OrderVerbs
from headrace.gateway.order_topics import Asked, OrderTopics
from headrace.gateway.problems import Refused
from headrace.gateway.transports.handshake import Opening
from headrace.gateway.transports.websocket import Connection
from headrace.model.errors import RequestError
from headrace.model.identity import SUBJECT_LENGTH_MAX, Identity, is_subject
from headrace.protocol import frames
from headrace.protocol.authenticated_session import GatedSession
from headrace.protocol.codes import CloseCode, ErrorCode
from headrace.protocol.credential_state import DENIED, Standing
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
    Session,
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
"""By whether a frame may hold several objects, and whether it may be compressed."""


@dataclass
class Gate:
    """What every session shares. `head` tells how far the chain is known at the moment of the call.

    `orders` and `order_topics` are None on a server that takes none, `mailboxes` on one that keeps nothing for users,
    `auth` on one that asks nobody who they are.
    """

    hub: Hub
    keeper: Doorkeeper
    metrics: Metrics
    server_id: str
    head: Callable[[], Head]
    orders: OrderVerbs | None = None
    mailboxes: Mailboxes | None = None
    auth: Authenticator | None = None
    order_topics: OrderTopics | None = None
    ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.closed = self.metrics.counter("gateway_closed", "Connections that this server closed", ("code",))
        self.commands = self.metrics.counter("gateway_commands", "Frames received from clients")


class SessionShell(Client):
    """One client of the wire protocol, from `welcome` to close."""

    def __init__(self, gate: Gate, connection: Connection, opening: Opening) -> None:
        self._gate, self._keeper, self._connection = gate, gate.keeper, connection
        limits = gate.keeper.settings.limits()
        self._user_id: str | None = None
        self._address = opening.address
        self._claimed = _user_id(opening.query)
        """The user that the URL names; who it really is shows when the session says welcome."""
        self._mailbox: Mailbox | None = None
        self._asked: Asked | None = None
        self._wanted = _subscriptions(opening.query, limits.topics)
        batch = _one(opening.query, "batch") == "1"
        super().__init__(connection.transport, framing=_FRAMINGS[batch, connection.deflate])
        self._session, self._gated = self._new_session(opening)
        self.frame_bytes_max = limits.frame

    @property
    def user_id(self) -> str | None:
        return self._user_id

    def opened(self) -> None:
        if len(self._gate.hub.clients) >= self._keeper.settings.connections_max:
            self.cut_off(CloseCode.CONNECTION_LIMIT)
            return
        self._gate.hub.add(self)
        wanted, self._wanted = self._wanted, []
        self._perform(self._session.open(wanted))
        self._is_used()
        self._set_alarm()

    def text(self, data: str) -> None:
        self._gate.commands.inc()
        actions = self._session.receive(data, self._keeper.clock.monotonic())
        if actions:  # a pong asks for nothing
            self._is_used()
            self._perform(actions)

    def binary(self, data: bytes) -> None:
        self._gate.commands.inc()
        self._perform(self._session.malformed("binary frames are not used here", self._keeper.clock.monotonic()))

    def socket_full(self) -> None:
        self._gate.hub.pause(self)

    def socket_free(self) -> None:
        self._gate.hub.resume(self)
        if self._mailbox is not None:
            self._mailbox.resume()

    def lost(self) -> None:
        self._keeper.alarms.clear(self)
        self._keeper.pings.clear(self)
        self._keeper.pongs.clear(self)
        self._keeper.idle.clear(self)
        self._gate.hub.remove(self)
        if self._user_id is not None:
            self._keeper.admission.leave_user(self._user_id)
        if self._mailbox is not None:
            self._mailbox.close()
        if self._gated is not None:
            self._gated.standing.close()

    def wake(self) -> None:
        """Something may be due to the credential."""
        if self._gated is not None:
            self._perform(self._gated.wake(self._keeper.clock.monotonic()))
            self._set_alarm()

    def ping(self) -> None:
        if self.paused:
            return  # nothing reaches it, and it is not read: whether it lives is seen by what it takes
        if self not in self._keeper.pongs:
            self._keeper.pongs.set(self, self._keeper.clock.monotonic())
            self._connection.heard = False
        ts_ms = self._keeper.clock.wall_ns() // 1_000_000
        self.send(frames.ping(ts_ms, self._gate.head(), self._gate.hub.tops(self)))

    def no_pong(self) -> None:
        if not (self._connection.heard or self.paused):
            self.cut_off(CloseCode.NO_PONG)

    def idle(self) -> None:
        if self.subscriptions:
            self._is_used()
        else:
            self.cut_off(CloseCode.NORMAL)

    def cut_off(self, code: CloseCode) -> None:
        if self.open:
            self.flush()
            self.open = False
            self._gate.closed.labels(str(int(code))).inc()
            self._connection.close(code)

    def not_subscribed(self, topic: str) -> None:
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
                    self._gate.hub.subscribe(self, action)
                case Unsubscribe(topic, request_id):
                    failure = RequestError(ErrorCode.BAD_REQUEST, "unsubscribed before it began")
                    self._unsubscribe(topic, failure)
                    self.send(frames.unsubscribed(topic, request_id))
                case History():
                    self._gate.hub.history(self, action)
                case OwnerOnly():
                    self._ask_owner(action)
                case Acknowledge():
                    self._acknowledge(action)
                case OrderCommand():
                    assert self._gate.orders is not None
                    self._gate.orders.perform(self, action, self._user_id)
                case Revoke(topic):
                    self._revoke(topic)
                case Close(code):
                    self.cut_off(code)
                case _:
                    assert_never(action)

    def _ask_owner(self, wanted: OwnerOnly) -> None:
        if self._asked is None:
            assert self._gate.order_topics is not None
            self._asked = Asked(self._gate.order_topics, self, lambda action: self._perform([action]))
        self._asked.ask(wanted)

    def _acknowledge(self, wanted: Acknowledge) -> None:
        if self._mailbox is None or wanted.topic != self._mailbox.topic:
            failure = RequestError(ErrorCode.DENIED, "not the topic of this connection's user")
            self.send(frames.error(failure, wanted.request_id))
        else:
            self._mailbox.acknowledge(wanted.offset, wanted.request_id)

    def _new_session(self, opening: Opening) -> tuple[Session, GatedSession | None]:
        """The session, and the same again if its client must say who it is."""
        limits, now_s = self._keeper.settings.limits(), self._keeper.clock.monotonic()
        auth, orders = self._gate.auth, self._gate.orders is not None
        credential = credential_of(opening, wanted=auth is not None)
        if auth is None:
            return Session(limits, now_s, orders=orders), None
        standing = Standing(self._claimed, auth.settings.terms(), now_s)
        gated = GatedSession(limits, now_s, standing, credential, orders=orders)
        return gated, gated

    def _welcome(self) -> None:
        settings = self._keeper.settings
        user_id = self._claimed if self._gated is None else self._gated.standing.subject
        if user_id is not None and not self._keeper.admission.enter_user(user_id):
            self.cut_off(CloseCode.CONNECTION_LIMIT)
            return
        self._user_id = user_id
        self._keeper.pings.set(self, self._keeper.clock.monotonic())
        self.send(
            frames.welcome(
                connection_id=f"c{next(self._gate.ids)}",
                user_id=self._user_id,
                server_id=self._gate.server_id,
                ping_s=settings.ping_s,
                pong_s=settings.pong_s,
                limits=self._session.limits,
            )
        )
        if self._user_id is not None and self._gate.mailboxes is not None:
            self._mailbox = self._gate.mailboxes.open(self, self._user_id)

    def _authenticate(self, wanted: Authenticate) -> None:
        assert self._gate.auth is not None
        self._gate.auth.check(
            wanted.credential,
            accepted=partial(self._accepted, wanted.request_id),
            refused=partial(self._refused, wanted.request_id),
        )

    def _accepted(self, request_id: FrameId, identity: Identity, valid_s: float) -> None:
        assert self._gated is not None
        _log.debug("client_authenticated", user=identity.subject, address=self._address)
        self._perform(self._gated.authenticated(identity, valid_s, request_id, self._keeper.clock.monotonic()))
        self._set_alarm()

    def _refused(self, request_id: FrameId, failure: RequestError) -> None:
        assert self._gated is not None
        self._perform(self._gated.not_authenticated(failure, request_id))
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._gated is not None and self.open:
            self._keeper.alarms.set(self, self._gated.standing.wake_at_s, self._keeper.clock.monotonic())

    def _revoke(self, topic: str) -> None:
        if self._unsubscribe(topic, DENIED):
            self.send(frames.error(DENIED, topic=topic))

    def _unsubscribe(self, topic: str, failure: RequestError) -> bool:
        """End delivery; whether it had begun. If not, whoever asked for it gets `failure`."""
        undecided = self._asked.withdraw(topic) if self._asked is not None else None
        if undecided is not None:
            self.send(frames.error(failure, undecided.request_id))
            return False
        ended = self._gate.hub.unsubscribe(self, topic)
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
    """The topics that the URL names: split at commas, then decoded each, so that `%2C` stands for one in a name."""
    wanted = [name for name in (_one(query, "subscriptions") or "").split(",") if name]
    if len(wanted) > topics_max:
        raise Refused(HTTPStatus.BAD_REQUEST, f"more than {topics_max} subscriptions")
    try:
        return [unquote(name, errors="strict") for name in wanted]
    except UnicodeDecodeError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, "bad query") from error
