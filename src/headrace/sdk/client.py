"""The client of a Headrace server: one connection for all subscriptions and commands, opened again after a loss."""

import asyncio
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from headrace.model.errors import ConfigError
from headrace.model.events import Position
from headrace.model.orders import TERMINAL
from headrace.protocol.codes import CloseCode, may_reconnect
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock, SystemClock
from headrace.runtime.supervise import Supervisor
from headrace.sdk.dialing import checked, dial, refusal
from headrace.sdk.feed import Feed, Wanted
from headrace.sdk.incoming import Unreadable
from headrace.sdk.session import (
    ASK_AGAIN_S,
    QUOTE,
    Again,
    Answered,
    Ask,
    Auth,
    Call,
    Given,
    Notice,
    Refresh,
    Session,
    Welcomed,
    history_call,
    order_call,
)
from headrace.sdk.subscription import Subscription
from headrace.sdk.values import Event, Head, OrderAnswer, Page, Refused

PATIENCE_S: Final = 2.0
"""Maximum seconds that a full subscription stops the connection. After that, only the subscription falls behind.

Well below `pong_s`.
"""

Token: TypeAlias = str | Callable[[], Awaitable[str]]
OnLoss: TypeAlias = Callable[[str, float], None]


class Client:
    """One connection to a Headrace server. Use as `async with Client(url, token=…) as client`.

    The client connects in the background. After every loss that is not final it reconnects with jittered delays, and
    continues each topic where it was. `on_connect` is called each time the server has welcomed a connection. `on_loss`
    is called after each loss and each failed attempt, with (reason, seconds until the next attempt). A final refusal (a
    bad token, an unknown path, a denied topic) is raised as Refused by every method that waits.

    - `token`: a JSON Web Token, or a function that returns a new one. The function is called before each connection,
      and when the server warns that the old token expires. If it raises OSError, the client treats that as a lost
      network; any other error ends the client.
    - `credential`: whether the token is sent as a subprotocol of the handshake, or in the first frame.
    - `queue`: the maximum number of values of a subscription that wait for its reader.
    - `tls`: the certificates to trust at a wss:// URL. The default is this machine's certificates, or those in the file
      that the environment variable `SSL_CERT_FILE` names.

    Raises ConfigError if `url` is not a WebSocket URL.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        credential: Literal["subprotocol", "frame"] = "subprotocol",
        queue: int = 1024,
        compression: bool = False,
        tls: ssl.SSLContext | None = None,
        on_loss: OnLoss | None = None,
        on_connect: Callable[[], None] | None = None,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        if queue < 1:
            raise ConfigError("queue", str(queue), "1 or more")
        self._url, self._token, self._credential = checked(url, tls), token, credential
        self._tls = tls
        self._queue, self._compression = queue, compression
        self._on_loss, self._on_connect = on_loss, on_connect
        self._clock, self._backoff = clock or SystemClock(), backoff or Backoff(initial_s=0.2, max_s=10.0)
        self._tasks = Supervisor(self._clock)
        self._talk = self._tasks  # tasks that end with the connection
        self._session = Session()
        self._subscriptions: dict[Feed, Subscription] = {}
        self._calls: dict[Call, asyncio.Event] = {}
        self._to_send = asyncio.Event()
        self._open = False
        self._blocked = False
        self._heard_s = 0.0

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.start("sdk", "connection", self._run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for subscription in list(self._subscriptions.values()):
            subscription.close()
        await self._heed(self._session.fail(Refused(CloseCode.NORMAL, "the client was closed")))
        self._tasks.cancel()
        await self._tasks.__aexit__(kind, error, traceback)

    @property
    def connected(self) -> bool:
        """Whether the server has welcomed this connection."""
        return self._session.live

    @property
    def head(self) -> Head | None:
        """The newest slots of the chain, as of the last heartbeat; None before the first."""
        return self._session.head

    def subscribe(
        self,
        topic: str,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  (the protocol's word)
        recover: Position | None = None,
        snapshot: bool = False,
        conflate: dict[str, Any] | None = None,
        on_slow: Literal["disconnect", "conflate", "drop_oldest"] | None = None,
    ) -> Subscription:
        """Follow `topic`. Iterate over the returned subscription to read its values.

        `recover` is a stored `Subscription.position` to continue from. The other parameters are the protocol's.
        Messages to a user are on `user:<id>`, which accepts no parameters. Follow that topic first, because messages
        that arrived earlier on this connection do not come again. Raises ValueError if this client already follows the
        topic.
        """
        feed = Feed(Wanted(topic, filter, snapshot, conflate, on_slow), self._queue, recover)
        if self._session.failure:
            feed.fail(self._session.failure)
        else:
            self._session.subscribe(feed)
            self._flush()
        subscription = self._subscriptions[feed] = Subscription(feed, self._emptied, self._leave)
        return subscription

    async def history(
        self, topic: str, *, since: Position | None = None, limit: int = 100, reverse: bool = False
    ) -> Page:
        """Return a page of the topic's log after `since` (None: from the oldest kept) or, with `reverse`, before it.

        With `reverse` the newest message comes first. Waits for a connection as long as needed. Raises Refused, with
        code 112 if the position is gone.
        """
        call = await self._answer(history_call(topic, since, limit, reverse=reverse))
        if call.page is None:
            raise call.failure or Refused(0, "no answer")
        return call.page

    async def execute(self, order: Mapping[str, Any], *, key: str | None = None) -> OrderAnswer:
        """Place an order. When this returns, the server has stored the order, and will execute it at most once.

        `order` has the fields of `POST /api/orders/execute`, such as `{"tokenIn": "SOL", "tokenOut": "USDC",
        "uiAmount": "1.5"}`; amounts are text. The request is repeated with the same idempotency key on as many
        connections as necessary.
        To repeat an order after a timeout or in another process, pass your own `key` and keep it. The server then
        returns the order that it accepted under this key. Raises OrderRefused, whose `fate` says what became of the
        order.
        """
        key = str(uuid.uuid4()) if key is None else key
        return await self._order(order_call("execute", dict(order), key))

    async def order(self, order_id: str) -> OrderAnswer:
        """Return the current state of an order.

        Raises OrderRefused with `reason` "unknown_order" if this user has no order with that id.
        """
        return await self._order(order_call("get", {"orderId": order_id}))

    async def cancel(self, order_id: str) -> OrderAnswer:
        """Cancel an order. While its transaction may still land, the cancel is only requested (`requested` is set).

        Raises OrderRefused with `reason` "order_over" if the order has ended.
        """
        return await self._order(order_call("cancel", {"orderId": order_id}))

    async def quote(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the best offer of all venues, with the fields of `GET /api/quote`. Nothing is ordered.

        `asked` has the parameters of `GET /api/quote`, such as `{"inputMint": "SOL", "outputMint": "USDC",
        "amount": "1500000000"}`. Raises OrderRefused with `reason` "no_quote" if no venue gives a quote now. Each new
        quote comes on the topic `quotes:<input mint>:<output mint>:<amount>`.
        """
        call = await self._answer(Call(QUOTE, dict(asked)))
        if call.quote is None:
            raise call.failure or Refused(0, "no answer")
        return call.quote

    async def watch(self, order_id: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the order each time it has changed, until it has ended. Never yields an older state after a newer one.

        Changes in quick succession may be combined; the order's log has each of them. Raises the same errors as
        `order`, and ValueError if this client already follows the order.
        """
        subscription = self.subscribe(f"order:{order_id}")
        try:
            await subscription.started()
            order = (await self.order(order_id)).order
            yield order
            while order["status"] not in TERMINAL:
                value = await anext(subscription)
                if isinstance(value, Event) and value.data.get("seq", order["seq"] + 1) <= order["seq"]:
                    continue
                newer = (await self.order(order_id)).order
                if newer["seq"] > order["seq"]:
                    order = newer
                    yield order
        finally:
            subscription.close()

    def ack(self, event: Event) -> None:
        """Acknowledge a message that has `ack`, so that the server does not send it again."""
        self._session.ack(event.topic, event.position.offset)
        self._flush()

    async def _order(self, call: Call) -> OrderAnswer:
        await self._answer(call)
        if call.order is None:
            raise call.failure or Refused(0, "no answer")
        return call.order

    async def _answer(self, call: Call) -> Call:
        """Send a command, and wait for its answer as long as needed. Raises Refused if the client has failed."""
        if self._session.failure:
            raise self._session.failure
        answered = self._calls[call] = asyncio.Event()
        self._session.call(call)
        self._flush()
        try:
            await answered.wait()
        finally:
            del self._calls[call]
            self._session.forget(call)
        return call

    async def _run(self) -> None:
        """Keep a connection open until a final refusal."""
        while True:
            try:
                why = await self._connection()
            except Refused as refused:
                await self._heed(self._session.fail(refused))
                return
            self._session.closed()
            if self._session.progress:
                self._backoff.reset()
            delay_s = self._backoff.next_s()
            if self._on_loss is not None:
                self._on_loss(why, delay_s)
            await self._clock.sleep(delay_s)

    async def _connection(self) -> str:
        """Run one connection. Return why it was lost. Raises Refused."""
        try:
            token = await self._fresh_token()
            first, shown = (token, None) if self._credential == "frame" else (None, token)
            async with dial(self._url, shown, compression=self._compression, tls=self._tls) as socket:
                self._session.opened(first)
                self._open = True
                try:
                    end = await self._converse(socket)
                except asyncio.CancelledError:
                    await socket.close()  # the library would close with 1011, as if the client had failed
                    raise
            return self._reason(end)
        except InvalidStatus as error:
            if (refused := refusal(error)) is not None:
                raise refused from error
            return str(error)
        except (OSError, InvalidHandshake, TimeoutError) as error:
            return str(error) or type(error).__name__
        finally:
            self._open = False

    async def _converse(self, socket: ClientConnection) -> Exception:
        """Receive and send until the connection ends. Return the error that ended it.

        The error is returned, not raised through the task group, which would lose a cancellation at the same moment.
        """
        self._heard_s = self._clock.monotonic()
        async with Supervisor(self._clock) as tasks:
            self._talk = tasks
            tasks.start("sdk", "writer", partial(self._write, socket))
            tasks.start("sdk", "watch", partial(self._watch, socket))
            try:
                return await self._hear(socket)
            finally:
                tasks.cancel()

    async def _hear(self, socket: ClientConnection) -> Exception:
        try:
            while True:
                text = await socket.recv()
                if not isinstance(text, str):
                    return Unreadable("binary")
                self._heard_s = self._clock.monotonic()
                for line in text.split("\n"):
                    await self._heed(self._session.receive(line))
        except (ConnectionClosed, Refused, Unreadable) as end:
            return end

    def _reason(self, end: Exception) -> str:
        """Return why a connection was lost. Raises Refused if another connection would not help."""
        if isinstance(end, Refused):
            raise end
        if not isinstance(end, ConnectionClosed):
            return f"unreadable frame: {end}"
        code, why = (end.rcvd.code, end.rcvd.reason) if end.rcvd else (1006, "connection lost")
        why = why or "the server ended the connection"
        outdated = code == CloseCode.EXPIRED and isinstance(self._token, str)  # there is no newer token
        unnamed = (
            code == CloseCode.AUTH_TIMEOUT and self._token is None
        )  # the next connection would have no token either
        if outdated or unnamed or not (code == CloseCode.NORMAL or may_reconnect(code)):
            raise Refused(code, why) from end
        return why

    async def _heed(self, notices: list[Notice]) -> None:
        self._flush()
        for notice in notices:
            match notice:
                case Given(feed):
                    if (subscription := self._subscriptions.get(feed)) is not None:
                        subscription.wake()
                        if feed.full and not (feed.behind or feed.overflows):
                            await self._room(subscription)
                case Welcomed() if self._on_connect is not None:
                    self._on_connect()
                case Answered(call):
                    if call in self._calls:
                        self._calls[call].set()
                case Again(Auth(), delay_s):
                    self._talk.start("sdk", "token", partial(self._refresh, delay_s))
                case Again(ask, delay_s):
                    self._tasks.start("sdk", "again", partial(self._later, ask, delay_s))
                case Refresh() if callable(self._token):
                    self._talk.start("sdk", "token", self._refresh)

    async def _room(self, subscription: Subscription) -> None:
        """Stop reading the socket until the subscription's reader has taken a value, but for at most PATIENCE_S."""
        self._blocked = True
        try:
            async with asyncio.timeout(PATIENCE_S):
                await subscription.room()
        except TimeoutError:
            pass  # the next value will find the feed full, and the feed falls behind
        finally:
            self._blocked = False
            self._heard_s = self._clock.monotonic()

    async def _later(self, ask: Ask, delay_s: float) -> None:
        await self._clock.sleep(delay_s)
        self._session.again(ask)
        self._flush()

    async def _refresh(self, delay_s: float = 0.0) -> None:
        """Send a new token. If the token function raises OSError, the old token stays in use until it expires."""
        await self._clock.sleep(delay_s)
        while True:
            try:
                token = await self._fresh_token()
                break
            except OSError:
                await self._clock.sleep(ASK_AGAIN_S)
        if token is not None and self._open:
            self._session.authenticate(token)
            self._flush()

    async def _fresh_token(self) -> str | None:
        return await self._token() if callable(self._token) else self._token

    async def _write(self, socket: ClientConnection) -> None:
        outbox = self._session.outbox
        try:
            while True:
                self._to_send.clear()
                while outbox:
                    await socket.send(outbox.popleft())
                await self._to_send.wait()
        except ConnectionClosed:
            pass  # the reader gets the failure

    async def _watch(self, socket: ClientConnection) -> None:
        """End a connection on which no frame has arrived for too long."""
        while True:
            left_s = self._heard_s + self._session.silence_s - self._clock.monotonic()
            if left_s <= 0 and not self._blocked:
                socket.transport.abort()
                return
            await self._clock.sleep(max(left_s, 0.01))

    def _flush(self) -> None:
        if self._session.outbox:
            self._to_send.set()

    def _emptied(self, feed: Feed) -> None:
        self._session.emptied(feed)
        self._flush()

    def _leave(self, feed: Feed) -> None:
        self._session.leave(feed)
        self._subscriptions.pop(feed, None)
        self._flush()
