"""The server's session with one client as a state machine: frames and the time go in, actions come out. Pure."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias, TypeVar

import msgspec

from headrace.model import topics
from headrace.model.credentials import Credential
from headrace.model.errors import RequestError
from headrace.model.events import Position
from headrace.model.states import has_state
from headrace.protocol import frames
from headrace.protocol.codes import CloseCode, ErrorCode
from headrace.protocol.filters import Filter, parse_filter
from headrace.protocol.frames import (
    AckData,
    AuthData,
    Envelope,
    FrameId,
    HistoryData,
    Limits,
    OnSlow,
    SubscribeData,
    UnsubscribeData,
)
from headrace.protocol.selection import Conflate, parse_conflate

MALFORMED_MAX: Final = 10
"""Number of malformed frames after which a connection is closed with 4501."""

FILTERS_SIZE_MAX: Final = 1024
"""Maximum total size of all filters of one connection (`Filter.size`), so that a few clients can't fill the memory."""

PATIENCE_S: Final = 5
"""Seconds' worth of refused commands, at the connection's full rate, after which a client that ignores error 111 is
closed with 4013."""


class Send(NamedTuple):
    """Send this frame now."""

    payload: bytes


class Welcome(NamedTuple):
    """Send the welcome before anything else."""


class Authenticate(NamedTuple):
    """Check the credential, then call `authenticated` or `not_authenticated` with `request_id`."""

    credential: Credential
    request_id: FrameId


class Subscribe(NamedTuple):
    """Start delivery of `topic` and answer `request_id`. With `recover`, first replay the messages after that position.

    `filter` and `conflate` select messages. `on_slow` decides what happens if the client can't keep up. `snapshot`
    sends the topic's state first, unless messages are recovered.
    """

    topic: str
    request_id: FrameId
    recover: Position | None
    filter: Filter | None = None
    conflate: Conflate | None = None
    on_slow: OnSlow = "disconnect"
    snapshot: bool = False


class Unsubscribe(NamedTuple):
    """End delivery of `topic`, then answer `request_id`."""

    topic: str
    request_id: FrameId


class History(NamedTuple):
    """Answer `request_id` with a page of `topic`'s log."""

    topic: str
    request_id: FrameId
    since: Position | None
    limit: int
    reverse: bool


class OwnerOnly(NamedTuple):
    """Perform `then` if the order of its topic belongs to `user_id`; otherwise deny it.

    The session can't decide this: only the stored order names its owner.
    """

    user_id: str
    then: Subscribe | History


class Acknowledge(NamedTuple):
    """Record that the client has every message of its user's `topic` up to `offset`. Answer `request_id`, if any."""

    topic: str
    request_id: FrameId
    offset: int


class OrderCommand(NamedTuple):
    """Run the command `verb` (`execute`, `cancel`, `get`, `quote`) with the JSON in `data`, answer `request_id`."""

    verb: str
    data: bytes
    request_id: FrameId


class Revoke(NamedTuple):
    """End delivery of `topic`, which the client may no longer read, and send an error."""

    topic: str


class Close(NamedTuple):
    """Close the connection. Later actions are ignored."""

    code: CloseCode


Action: TypeAlias = (
    Send
    | Welcome
    | Authenticate
    | Subscribe
    | Unsubscribe
    | History
    | OwnerOnly
    | Acknowledge
    | OrderCommand
    | Revoke
    | Close
)


class TokenBucket:
    """Rate limit of `per_s` permits a second on average, and as many at once. The caller passes monotonic seconds."""

    __slots__ = ("_at_s", "_tokens", "per_s")

    def __init__(self, per_s: float, now_s: float) -> None:
        self.per_s = self._tokens = per_s
        self._at_s = now_s

    def take(self, now_s: float) -> float:
        """Take one permit and return 0.0. If there is none, return the seconds until there is one."""
        self._tokens = min(self.per_s, self._tokens + (now_s - self._at_s) * self.per_s)
        self._at_s = now_s
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.per_s

    def give_back(self) -> None:
        """Return the last permit to the bucket."""
        self._tokens = min(self.per_s, self._tokens + 1)


Data = TypeVar("Data", SubscribeData, UnsubscribeData, HistoryData, AuthData, AckData)

_subscribe = msgspec.json.Decoder(SubscribeData)
_unsubscribe = msgspec.json.Decoder(UnsubscribeData)
_history = msgspec.json.Decoder(HistoryData)
_ack = msgspec.json.Decoder(AckData)


class ServerSession:
    """Checks commands and keeps the client's list of topics. The caller performs the returned actions.

    The caller calls `lost(topic)` if a subscription could not be made. With `orders`, the server accepts orders.
    """

    __slots__ = ("_commands", "_malformed", "_orders", "_refused", "limits", "topics")

    def __init__(self, limits: Limits, now_s: float, *, orders: bool = False) -> None:
        self.limits = limits
        self._orders = orders
        self.topics: dict[str, int] = {}
        """Topics of the client → size of the filter; 0 without a filter."""
        self._commands = TokenBucket(limits.cmd_per_s, now_s)
        self._malformed = 0
        self._refused = 0

    def receive(self, text: bytes | str, now_s: float) -> list[Action]:
        """Return the actions for one text frame, in order."""
        try:
            envelope = frames.read_envelope(text)
        except frames.BadFrame:
            return self.malformed("not a command: bad JSON, type or id", now_s)
        if envelope.type == "pong":
            return self._rate(None, now_s)
        if refused := self._rate(envelope.id, now_s):
            return refused
        try:
            return self._obey(envelope)
        except RequestError as failure:
            return [Send(frames.error(failure, envelope.id))]

    def malformed(self, message: str, now_s: float) -> list[Action]:
        """Answer a frame that can't be a command, such as a binary frame. Close after MALFORMED_MAX such frames."""
        if refused := self._rate(None, now_s):
            return refused
        self._malformed += 1
        answer = Send(frames.error(RequestError(ErrorCode.BAD_REQUEST, message)))
        return [answer, Close(CloseCode.MALFORMED)] if self._malformed >= MALFORMED_MAX else [answer]

    def open(self, wanted: Sequence[str]) -> list[Action]:
        """Return the welcome, and subscriptions to the URL's topics. Errors name the topic, because there is no id."""
        actions: list[Action] = [Welcome()]
        for topic in wanted:
            try:
                actions += self._subscribe(Subscribe(topic, None, None))
            except RequestError as failure:
                actions.append(Send(frames.error(failure, topic=topic)))
        return actions

    def lost(self, topic: str) -> None:
        """Remove a subscription that could not be made. The client may subscribe again."""
        self.topics.pop(topic, None)

    def _obey(self, envelope: Envelope) -> list[Action]:
        """Return the actions for a command. Raises RequestError."""
        return self._COMMANDS.get(envelope.type, ServerSession._on_unknown)(self, envelope)

    def _admit(self, topic: str) -> None:
        """Raise RequestError for a topic that this client may not read."""

    def _rate(self, request_id: FrameId, now_s: float) -> list[Action]:
        """Return nothing while the client keeps to its rate; otherwise return the refusal."""
        wait_s = self._commands.take(now_s)
        if not wait_s:
            self._refused = 0
            return []
        self._refused += 1
        if self._refused > PATIENCE_S * self.limits.cmd_per_s:
            return [Close(CloseCode.RATE)]
        retry_after_ms = int(wait_s * 1000) + 1
        failure = RequestError(
            ErrorCode.RATE_LIMITED, "too many commands", temporary=True, retry_after_ms=retry_after_ms
        )
        return [Send(frames.error(failure, request_id))]

    def _subscribe(self, wanted: Subscribe) -> list[Action]:
        topics.parse(wanted.topic)
        self._admit(wanted.topic)
        if wanted.snapshot and not has_state(wanted.topic):
            raise RequestError(ErrorCode.BAD_REQUEST, "this topic has no snapshot")
        if wanted.topic in self.topics:
            raise RequestError(ErrorCode.ALREADY_SUBSCRIBED, "already subscribed")
        if len(self.topics) >= self.limits.topics:
            raise RequestError(ErrorCode.LIMIT, "too many topics on this connection")
        size = 0 if wanted.filter is None else wanted.filter.size
        if size and size + sum(self.topics.values()) > FILTERS_SIZE_MAX:
            raise RequestError(ErrorCode.LIMIT, "too many filters on this connection")
        self.topics[wanted.topic] = size
        return [wanted]

    def _on_subscribe(self, envelope: Envelope) -> list[Action]:
        data = read_data(_subscribe, envelope)
        recover = data.recover.position() if data.recover else None
        conflate = parse_conflate(data.conflate)
        if data.on_slow == "conflate" and conflate is None:
            raise RequestError(ErrorCode.BAD_REQUEST, "on_slow conflate needs a conflate")
        chosen = parse_filter(data.filter)
        wanted = Subscribe(data.topic, envelope.id, recover, chosen, conflate, data.on_slow, data.snapshot)
        return self._subscribe(wanted)

    def _on_unsubscribe(self, envelope: Envelope) -> list[Action]:
        topic = read_data(_unsubscribe, envelope).topic
        if topic not in self.topics:
            raise RequestError(ErrorCode.BAD_REQUEST, "not subscribed")
        del self.topics[topic]
        return [Unsubscribe(topic, envelope.id)]

    def _on_history(self, envelope: Envelope) -> list[Action]:
        data = read_data(_history, envelope)
        topics.parse(data.topic)
        self._admit(data.topic)
        if data.limit > self.limits.history:
            raise RequestError(ErrorCode.BAD_REQUEST, f"limit is above {self.limits.history}")
        since = data.since.position() if data.since else None
        return [History(data.topic, envelope.id, since, data.limit, data.reverse)]

    def _on_ack(self, envelope: Envelope) -> list[Action]:
        data = read_data(_ack, envelope)
        return [Acknowledge(data.topic, envelope.id, int(data.offset))]

    def _on_order(self, envelope: Envelope) -> list[Action]:
        if not self._orders:
            raise RequestError(ErrorCode.BAD_REQUEST, "this server takes no orders")
        return [OrderCommand(envelope.type.removeprefix("order."), bytes(envelope.data), envelope.id)]

    def _on_auth(self, envelope: Envelope) -> list[Action]:
        raise RequestError(ErrorCode.BAD_REQUEST, "authentication is off on this server")

    def _on_unknown(self, envelope: Envelope) -> list[Action]:
        raise RequestError(ErrorCode.BAD_REQUEST, "unknown command")

    _COMMANDS: Final[Mapping[str, Callable[["ServerSession", Envelope], list[Action]]]] = MappingProxyType(
        {
            "subscribe": _on_subscribe,
            "unsubscribe": _on_unsubscribe,
            "history": _on_history,
            "quote": _on_order,
            "order.execute": _on_order,
            "order.cancel": _on_order,
            "order.get": _on_order,
            "auth": _on_auth,
            "ack": _on_ack,
        }
    )


def read_data(decoder: "msgspec.json.Decoder[Data]", envelope: Envelope) -> Data:
    """Decode the data of a command. Raises RequestError 107."""
    try:
        return decoder.decode(envelope.data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(ErrorCode.BAD_REQUEST, f"{envelope.type}: bad data") from error
