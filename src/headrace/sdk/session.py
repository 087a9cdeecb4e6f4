"""The client's side of the protocol as a state machine. Frames go in, and frames to send wait in an outbox. Pure.

Received values go into the feeds.
"""

from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from headrace.model.events import Position
from headrace.protocol.codes import ErrorCode
from headrace.sdk import incoming
from headrace.sdk.feed import Feed, Standing
from headrace.sdk.incoming import Frame, Unreadable
from headrace.sdk.values import Head, OrderAnswer, OrderRefused, Page, Refused

ASKED_AT_ONCE: Final = 8
"""Maximum number of commands that may wait for their answers, well below the rate that servers allow."""

SILENCE_S: Final = 33.0
"""Maximum silence in seconds before the welcome arrives. The welcome says how often heartbeats follow."""

ASK_AGAIN_S: Final = 1.0
"""Default delay in seconds before a command is sent again, if the server names none."""

QUOTE: Final = "quote"
"""The command for a quote, which is refused as orders are."""

_ACKED_MAX: Final = 4096


class Call:
    """One command, and its answer: a `page` for `history`, an `order` for an order command, a `quote`, or a `failure`.

    `key` is the idempotency key of an order. It stays the same when the command is repeated on further connections.
    """

    def __init__(self, kind: str, data: dict[str, Any], key: str | None = None) -> None:
        self.kind, self.data, self.key = kind, data, key
        self.page: Page | None = None
        self.order: OrderAnswer | None = None
        self.quote: dict[str, Any] | None = None
        self.failure: Refused | None = None

    @property
    def answered(self) -> bool:
        """Return whether the answer has arrived."""
        return any(each is not None for each in (self.page, self.order, self.quote, self.failure))

    @property
    def is_order(self) -> bool:
        """Whether the command is refused as orders are."""
        return self.kind.startswith("order.") or self.kind == QUOTE


class Leave(NamedTuple):
    """An `unsubscribe` that waits for its answer."""

    topic: str


class Auth(NamedTuple):
    """An `auth` that waits for its answer."""


Ask: TypeAlias = Feed | Call | Leave | Auth
"""A command that waits for its answer, or the feed for which it subscribes."""


class Given(NamedTuple):
    """The feed has something new for its reader: items, its start, or its end."""

    feed: Feed


class Answered(NamedTuple):
    """The call has its answer, or its failure."""

    call: Call


class Again(NamedTuple):
    """Call `again(ask)` in `delay_s` seconds. For an Auth, call `authenticate` with a new token, on this connection."""

    ask: Ask
    delay_s: float


class Refresh(NamedTuple):
    """The token expires: call `authenticate` with a new token, on this connection.

    Returned only once until the answer.
    """


class Welcomed(NamedTuple):
    """The server has welcomed the connection."""


Notice: TypeAlias = Given | Answered | Again | Refresh | Welcomed


class Session:
    """State of one client over all its connections.

    The caller sends the frames of `outbox`, and passes on each received frame and the end of each connection. After
    `closed`, all topics and unanswered commands are requested again when the next connection is welcomed. `receive`
    returns everything else that the caller must do, as notices.
    """

    def __init__(self) -> None:
        self.feeds: dict[str, Feed] = {}
        self.outbox: deque[str] = deque()
        self.head: Head | None = None
        self.silence_s = SILENCE_S
        """Seconds without a frame after which a connection is treated as dead."""
        self.live = False
        """Whether the server has sent `welcome` on this connection."""
        self.failure: Refused | None = None
        """The server's final refusal, if there was one."""
        self.progress = False
        """True if a frame other than `welcome` has arrived on this connection."""
        self._last_id = 0
        self._renewing = False
        self._waiting: deque[Feed | Call] = deque()
        self._asked: dict[int | str, Ask] = {}
        self._acks: dict[tuple[str, int], None] = {}
        self._acked: dict[tuple[str, int], None] = {}

    def opened(self, token: str | None) -> None:
        """Begin a connection. Pass `token` if the first frame must contain it."""
        self.silence_s, self.progress = SILENCE_S, False
        if token is not None:
            self.authenticate(token)

    def closed(self) -> None:
        """End the connection. All topics and unanswered commands are requested again on the next connection."""
        self.live = self._renewing = False
        self.outbox.clear()
        calls = [ask for ask in (*self._asked.values(), *self._waiting) if isinstance(ask, Call)]
        self._asked.clear()
        self._waiting = deque(calls)
        for feed in self.feeds.values():
            feed.standing = Standing.AWAY

    def authenticate(self, token: str) -> None:
        """Send a credential in a frame."""
        self._command("auth", Auth(), {"token": token})

    def subscribe(self, feed: Feed) -> None:
        """Follow a topic. Raises ValueError if the topic is already followed."""
        topic = feed.wanted.topic
        if topic in self.feeds:
            raise ValueError(f"{topic}: already subscribed; one client follows a topic once")
        self.feeds[topic] = feed
        self._enter(feed)

    def leave(self, feed: Feed) -> None:
        """Stop following a topic. Idempotent."""
        if self.feeds.get(feed.wanted.topic) is feed:
            del self.feeds[feed.wanted.topic]
            self._suspend(feed)

    def emptied(self, feed: Feed) -> None:
        """Resubscribe to a feed that had fallen behind, now that its reader has consumed all its values."""
        if feed.behind and self.feeds.get(feed.wanted.topic) is feed:
            feed.behind = False
            self._enter(feed)

    def call(self, call: Call) -> None:
        self._waiting.append(call)
        self._pump()

    def forget(self, call: Call) -> None:
        """Drop a command whose answer no caller waits for."""
        if call in self._waiting:
            self._waiting.remove(call)

    def again(self, ask: Ask) -> None:
        """Send the command again after `Again.delay_s`, unless it is no longer needed."""
        if self.failure:
            return
        match ask:
            case Feed() if self.feeds.get(ask.wanted.topic) is ask and not ask.behind:
                if ask.standing is Standing.AWAY and ask not in self._waiting:
                    self._enter(ask)
            case Call() if not ask.answered:
                self.call(ask)
            case Leave(topic) if self.live and (topic not in self.feeds or self.feeds[topic].behind):
                self._command("unsubscribe", ask, {"topic": topic})

    def ack(self, topic: str, offset: int) -> None:
        """Acknowledge a message that has `ack`.

        If the acknowledgement is lost, it is repeated on the next connection.
        """
        self._acked[topic, offset] = None
        while len(self._acked) > _ACKED_MAX:
            del self._acked[next(iter(self._acked))]
        self._acks[topic, offset] = None
        self._pump()

    def fail(self, failure: Refused) -> list[Notice]:
        """Handle a final refusal: every feed and every call fails with it."""
        self.closed()
        self.failure = failure
        notices: list[Notice] = []
        for feed in self.feeds.values():
            feed.fail(failure)
            notices.append(Given(feed))
        for call in self._waiting:
            if isinstance(call, Call):
                call.failure = failure
                notices.append(Answered(call))
        self.feeds.clear()
        self._waiting.clear()
        return notices

    def receive(self, text: str) -> list[Notice]:
        """Handle one JSON object.

        Raises Unreadable (end this connection and reconnect) or Refused (end the client).
        """
        try:
            frame = incoming.read_frame(text)
            if frame.type in incoming.RECORDS:
                return self._record(frame, text)
            answer = self._FRAMES.get(frame.type)
            return answer(self, frame, text) if answer else []
        except (msgspec.DecodeError, RecursionError) as error:
            raise Unreadable(str(error)) from error

    def _record(self, frame: Frame, text: str) -> list[Notice]:
        self.progress = True
        feed = self._live(frame)
        if feed is None:
            return []
        if frame.ack and (frame.topic, frame.offset) in self._acked and frame.offset is not None:
            self.ack(frame.topic, frame.offset)
        if not feed.record(frame, text):
            self._suspend(feed)
            self._enter(feed)
        elif feed.behind:
            self._suspend(feed)
        return [Given(feed)]

    def _live(self, frame: Frame) -> Feed | None:
        """Return the feed that accepts frames of this topic now; None if there is none."""
        feed = self.feeds.get(frame.topic)
        return feed if feed and feed.standing is Standing.LIVE and not feed.behind else None

    def _on_welcome(self, frame: Frame, text: str) -> list[Notice]:
        data = incoming.welcome_data.decode(frame.data)
        self.silence_s = data.ping_s + data.pong_s
        self.live = True
        for feed in self.feeds.values():
            if not feed.behind:
                self._enter(feed)
        self._pump()
        return [Welcomed(), *(Given(feed) for feed in self.feeds.values() if feed.wanted.implicit)]

    def _on_ping(self, frame: Frame, text: str) -> list[Notice]:
        data = incoming.ping_data.decode(frame.data)
        self.progress = True
        self.head = data.known()
        self.outbox.append('{"type":"pong"}')
        reached = [feed for topic in data.tops if (feed := self.feeds.get(topic)) and feed.standing is Standing.LIVE]
        for feed in reached:
            if not feed.behind:
                feed.reached(data.tops[feed.wanted.topic])
        return [Given(feed) for feed in reached]

    def _on_subscribed(self, frame: Frame, text: str) -> list[Notice]:
        data = incoming.subscribed_data.decode(frame.data)
        feed = self._answered(frame)
        if not isinstance(feed, Feed) or self.feeds.get(feed.wanted.topic) is not feed:
            return []
        if feed.standing is Standing.ASKED:
            feed.subscribed(data)
        self._pump()
        return [Given(feed)]

    def _on_history(self, frame: Frame, text: str) -> list[Notice]:
        call = self._answered(frame)
        self._pump()
        if not isinstance(call, Call):
            return []
        call.page = incoming.read_page(frame)
        return [Answered(call)]

    def _on_order(self, frame: Frame, text: str) -> list[Notice]:
        call = self._answered(frame)
        self._pump()
        if not isinstance(call, Call):
            return []
        call.order = incoming.read_order(text)
        return [Answered(call)]

    def _on_quote(self, frame: Frame, text: str) -> list[Notice]:
        call = self._answered(frame)
        self._pump()
        if not isinstance(call, Call):
            return []
        call.quote = incoming.quote.decode(frame.data)
        return [Answered(call)]

    def _on_lag(self, frame: Frame, text: str) -> list[Notice]:
        feed = self._live(frame)
        if feed is None:
            return []
        feed.lag(frame, text)
        return [Given(feed)]

    def _on_snapshot(self, frame: Frame, text: str) -> list[Notice]:
        feed = self._live(frame)
        if feed is None:
            return []
        feed.snapshot(frame, text)
        return [Given(feed)]

    def _on_auth_expiring(self, frame: Frame, text: str) -> list[Notice]:
        return self._renew()

    def _on_done(self, frame: Frame, text: str) -> list[Notice]:
        """Handle the answer to `unsubscribe` or `auth`."""
        if isinstance(self._answered(frame), Auth):
            self._renewing = False
        self._pump()
        return []

    def _on_error(self, frame: Frame, text: str) -> list[Notice]:
        data = incoming.error_data.decode(frame.data)
        ask = self._answered(frame) if frame.id is not None else self.feeds.get(frame.topic)
        self._pump()
        if isinstance(ask, Feed) and ask.standing is Standing.ASKED:
            ask.standing = Standing.AWAY
        delay_s = ASK_AGAIN_S if data.retry_after_ms is None else data.retry_after_ms / 1000
        again: list[Notice] = [] if ask is None else [Again(ask, delay_s)]
        if data.code == ErrorCode.TOKEN_EXPIRED:
            return again if isinstance(ask, Auth) else [*self._renew(), *again]
        if isinstance(ask, Call) and ask.is_order and (data.fate or not data.temporary):
            return self._order_refused(ask, data, again)
        if data.temporary:
            return again
        if data.code == ErrorCode.ALREADY_SUBSCRIBED and isinstance(ask, Feed):
            self._command("unsubscribe", Leave(ask.wanted.topic), {"topic": ask.wanted.topic})
            return [Again(ask, delay_s)]
        return self._refused(ask, Refused(data.code, data.message), without_id=frame.id is None)

    def _order_refused(self, call: Call, data: incoming.ErrorData, again: list[Notice]) -> list[Notice]:
        """Repeat the command with the same key while the order's fate is unknown; otherwise return the refusal."""
        if data.temporary and data.fate == "unknown":
            return again
        call.failure = OrderRefused(
            data.code,
            data.message,
            key=call.key,
            reason=data.reason,
            fate=data.fate or "unknown",
            retryable=data.retryable,
            retry_after_ms=data.retry_after_ms,
            errors={error.name: error.message for error in data.errors},
        )
        return [Answered(call)]

    def _renew(self) -> list[Notice]:
        """Request a new token, unless one was already requested. A server refuses a token while it checks another."""
        if self._renewing:
            return []
        self._renewing = True
        return [Refresh()]

    def _refused(self, ask: Ask | None, failure: Refused, *, without_id: bool) -> list[Notice]:
        match ask:
            case Feed():
                if self.feeds.get(ask.wanted.topic) is ask:
                    del self.feeds[ask.wanted.topic]
                ask.fail(Refused(failure.code, f"{ask.wanted.topic}: {failure.message}"))
                return [Given(ask)]
            case Call():
                ask.failure = failure
                return [Answered(ask)]
            case Auth():
                raise failure
            case _ if without_id:
                raise failure
        return []

    def _answered(self, frame: Frame) -> Ask | None:
        return None if frame.id is None else self._asked.pop(frame.id, None)

    def _enter(self, feed: Feed) -> None:
        if not self.live:
            return
        if feed.wanted.implicit:
            feed.standing, feed.began = Standing.LIVE, True
        elif feed not in self._waiting:
            self._waiting.append(feed)
            self._pump()

    def _suspend(self, feed: Feed) -> None:
        """Accept no more frames of a feed, and unsubscribe."""
        asked = feed.standing is not Standing.AWAY
        feed.standing = Standing.AWAY
        if feed in self._waiting:
            self._waiting.remove(feed)
        elif asked and self.live and not feed.wanted.implicit:
            self._command("unsubscribe", Leave(feed.wanted.topic), {"topic": feed.wanted.topic})

    def _pump(self) -> None:
        """Move the commands that may be sent now into the outbox."""
        if not self.live:
            return
        for topic, offset in self._acks:
            self._command("ack", None, {"topic": topic, "offset": str(offset)})
        self._acks.clear()
        while self._waiting and len(self._asked) < ASKED_AT_ONCE:
            ask = self._waiting.popleft()
            if isinstance(ask, Feed):
                ask.standing = Standing.ASKED
                self._command("subscribe", ask, ask.command())
            else:
                self._command(ask.kind, ask, ask.data)

    def _command(self, kind: str, ask: Ask | None, data: dict[str, Any]) -> None:
        self._last_id += 1
        if ask is not None:
            self._asked[self._last_id] = ask
        self.outbox.append(msgspec.json.encode({"type": kind, "id": self._last_id, "data": data}).decode())

    _FRAMES: Final[Mapping[str, Callable[["Session", Frame, str], list[Notice]]]] = MappingProxyType(
        {
            "welcome": _on_welcome,
            "ping": _on_ping,
            "subscribed": _on_subscribed,
            "unsubscribed": _on_done,
            "authenticated": _on_done,
            "history": _on_history,
            "order": _on_order,
            "quote": _on_quote,
            "lag": _on_lag,
            "snapshot": _on_snapshot,
            "auth_expiring": _on_auth_expiring,
            "error": _on_error,
        }
    )


def history_call(topic: str, since: Position | None, limit: int, *, reverse: bool) -> Call:
    """Return the command for a page of a topic's log."""
    data: dict[str, Any] = {"topic": topic, "limit": limit, "reverse": reverse}
    if since:
        data["since"] = {"epoch": since.epoch, "offset": str(since.offset)}
    return Call("history", data)


def order_call(verb: str, data: dict[str, Any], key: str | None = None) -> Call:
    """Return the command `order.<verb>`."""
    return Call(f"order.{verb}", data if key is None else {**data, "idempotencyKey": key}, key)
