"""Follows topics over one WebSocket: reconnects with jitter and asks for what it missed."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock, SystemClock

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
TERMINAL_FROM: Final = 4500

Frame = dict[str, Any]


class Refused(Exception):  # noqa: N818  (an answer, said in the server's words)
    """The server refused for good: `code` is its error or close code. Trying again would not help."""

    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"{message} ({code})")


async def follow(
    url: str, topics: Sequence[str], *, clock: Clock | None = None, backoff: Backoff | None = None
) -> AsyncGenerator[Frame, None]:
    """Yield every frame about `topics` (events, promote, retract, gap, lag, and `subscribed` acks) as parsed JSON.

    After a lost connection it comes back and continues where it was; if that is not possible the `subscribed` frame
    says `"recovered": false` and what follows starts anew. Ends only by closing the iterator. Raises Refused when the
    server says no for good, OSError never.
    """
    clock, backoff = clock or SystemClock(), backoff or Backoff(initial_s=0.2, max_s=10.0)
    positions: dict[str, Frame] = {}
    while True:
        try:
            async with connect(url, max_size=FRAME_BYTES_MAX) as socket:
                await _subscribe(socket, topics, positions)
                async for text in socket:
                    backoff.reset()
                    frame: Frame = msgspec.json.decode(text)
                    if frame["type"] == "error" and not frame["data"]["temporary"]:
                        raise Refused(frame["data"]["code"], frame["data"]["message"])
                    if frame["type"] == "ping":
                        await socket.send('{"type":"pong"}')
                    if "topic" in frame:
                        _remember(positions, frame)
                        yield frame
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code >= TERMINAL_FROM:
                raise Refused(closed.rcvd.code, closed.rcvd.reason) from closed
        except (OSError, InvalidHandshake, TimeoutError):
            pass
        await clock.sleep(backoff.next_s())


async def _subscribe(socket: ClientConnection, topics: Sequence[str], positions: dict[str, Frame]) -> None:
    for number, topic in enumerate(topics, 1):
        data: Frame = {"topic": topic}
        if topic in positions:
            data["recover"] = positions[topic]
        await socket.send(msgspec.json.encode({"type": "subscribe", "id": number, "data": data}).decode())


def _remember(positions: dict[str, Frame], frame: Frame) -> None:
    """Where we are in the topic: what an ack says (unless a replay up to there follows), then each message."""
    if "offset" in frame and "epoch" in frame:
        positions[frame["topic"]] = {"epoch": frame["epoch"], "offset": frame["offset"]}
    elif frame["type"] == "subscribed":
        data = frame["data"]
        if not (data["recovered"] and data["was_recovering"]):
            positions[frame["topic"]] = {"epoch": data["epoch"], "offset": data["offset"]}
