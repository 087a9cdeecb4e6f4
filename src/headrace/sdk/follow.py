"""Follows topics over one WebSocket: reconnects with jitter and asks for what it missed."""

from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from headrace.model.errors import ConfigError
from headrace.model.redact import redact
from headrace.protocol.codes import may_reconnect
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock, SystemClock

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
ASKED_AT_ONCE: Final = 8
"""Topics that are asked for before the first is answered, well below the rate that servers allow."""

_ASK_AGAIN_S: Final = 1.0
_NO_PROGRESS: Final = frozenset({"welcome", "subscribed", "error"})
_WORTH_ANOTHER_TRY: Final = frozenset({408, 425, 429})

Frame = dict[str, Any]
OnLoss = Callable[[str, float], None]


class Refused(Exception):  # noqa: N818  (an answer, said in the server's words)
    """The server refused for good: `code` is its error code, close code or HTTP status. Trying again would not help."""

    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"{message} ({code})")


async def follow(
    url: str,
    topics: Sequence[str],
    *,
    clock: Clock | None = None,
    backoff: Backoff | None = None,
    on_loss: OnLoss | None = None,
) -> AsyncGenerator[Frame, None]:
    """Yield every frame about `topics` (events, promote, retract, gap, lag, and `subscribed` acks) as parsed JSON.

    After a lost connection it comes back and continues where it was; if that is not possible the `subscribed` frame
    says `"recovered": false` and what follows starts anew. Each loss, and each attempt that failed, is told to
    `on_loss` as (why, seconds until the next attempt).

    Ends only by closing the iterator (use `contextlib.aclosing`), which closes the socket. A slow consumer slows the
    socket down: nothing piles up here. Raises Refused when the server says no for good, ConfigError for a `url` that
    is none; a network that is down raises nothing.
    """
    clock, backoff = clock or SystemClock(), backoff or Backoff(initial_s=0.2, max_s=10.0)
    positions: dict[str, Frame] = {}
    while True:
        try:
            async with connect(url, max_size=FRAME_BYTES_MAX) as socket:
                asking = _Asking(socket, topics, positions, clock)
                await asking.more(ASKED_AT_ONCE)
                async for text in socket:
                    frame: Frame = msgspec.json.decode(text)
                    if frame["type"] not in _NO_PROGRESS:
                        backoff.reset()
                    match frame["type"]:
                        case "ping":
                            await socket.send('{"type":"pong"}')
                        case "error":
                            await asking.again(frame)
                        case "subscribed":
                            await asking.more(1)
                    if "topic" in frame:
                        _remember(positions, frame)
                        yield frame
            why = "the server ended the connection"
        except ConnectionClosed as closed:
            code, why = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "connection lost")
            if not may_reconnect(code):
                raise Refused(code, why) from closed
        except InvalidURI as error:
            raise ConfigError("url", redact(url), "a ws:// or wss:// URL") from error
        except (OSError, InvalidHandshake, TimeoutError) as error:
            why = str(error)
            if isinstance(error, InvalidStatus):
                _raise_if_final(error.response.status_code, error.response.reason_phrase)
        delay_s = backoff.next_s()
        if on_loss is not None:
            on_loss(why, delay_s)
        await clock.sleep(delay_s)


class _Asking:
    """Subscribes to topics on one connection, a few at a time, and again where the server said "not now"."""

    def __init__(
        self, socket: ClientConnection, topics: Iterable[str], positions: dict[str, Frame], clock: Clock
    ) -> None:
        self._socket, self._positions, self._clock = socket, positions, clock
        self._topics = tuple(dict.fromkeys(topics))
        self._waiting = deque(range(len(self._topics)))

    async def more(self, count: int) -> None:
        """Ask for the next `count` topics."""
        for _ in range(min(count, len(self._waiting))):
            number = self._waiting.popleft()
            topic = self._topics[number]
            data: Frame = {"topic": topic}
            if topic in self._positions:
                data["recover"] = self._positions[topic]
            await self._socket.send(msgspec.json.encode({"type": "subscribe", "id": number, "data": data}).decode())

    async def again(self, frame: Frame) -> None:
        """After an `error` frame: wait as long as it asks for, then repeat. Raises Refused if it is for good."""
        data, number = frame["data"], frame.get("id")
        topic = self._topics[number] if number is not None else ""
        if not data["temporary"]:
            raise Refused(data["code"], f"{topic}: {data['message']}" if topic else data["message"])
        if number is None:
            return
        await self._clock.sleep((data.get("retry_after_ms") or _ASK_AGAIN_S * 1000) / 1000)
        self._waiting.appendleft(number)
        await self.more(1)


def _raise_if_final(status: int, phrase: str) -> None:
    """An HTTP status other than the upgrade: 4xx says that it will be the same next time, but for a few of them."""
    if 400 <= status < 500 and status not in _WORTH_ANOTHER_TRY:
        raise Refused(status, f"HTTP {phrase}".strip())


def _remember(positions: dict[str, Frame], frame: Frame) -> None:
    """Where we are in the topic: what an ack says (unless a replay up to there follows), then each message."""
    if "offset" in frame and "epoch" in frame:
        positions[frame["topic"]] = {"epoch": frame["epoch"], "offset": frame["offset"]}
    elif frame["type"] == "subscribed":
        data = frame["data"]
        if not (data["recovered"] and data["was_recovering"]):
            positions[frame["topic"]] = {"epoch": data["epoch"], "offset": data["offset"]}
