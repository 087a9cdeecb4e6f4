"""Follow pump.fun trades and lose none: reconnects, and asks for what it missed.

Run `headrace demo` in one terminal and this in another:

    python examples/listen.py ws://127.0.0.1:8080/ws trades:pump
"""

import asyncio
import json
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def follow(url: str, topic: str, count: int | None = None) -> None:
    """Print trades until `count` have come (None: for ever)."""
    position = None  # where we are in the topic: {"epoch": …, "offset": …}
    seen = 0
    async for socket in connect(url):  # connects again, with growing delays, whenever the connection is lost
        try:
            request = {"topic": topic} | ({"recover": position} if position else {})
            await socket.send(json.dumps({"type": "subscribe", "id": 1, "data": request}))
            async for frame in socket:
                message = json.loads(frame)
                if message["type"] == "ping":
                    await socket.send('{"type":"pong"}')
                elif message["type"] == "subscribed" and not message["data"]["recovered"]:
                    if position:
                        print("too long away: some trades are gone, starting fresh")
                    position = {key: message["data"][key] for key in ("epoch", "offset")}
                elif message["type"] == "error":
                    sys.exit(message["data"]["message"])
                elif message["type"] == "gap":
                    print("the node missed slots", message["data"]["from_slot"], "to", message["data"]["to_slot"])
                elif message["type"] == "event":
                    trade = message["data"]
                    print(trade["side"], trade["base_amount"], "of", trade["mint"], "for", trade["sol"], "SOL")
                    seen += 1
                if "offset" in message:
                    position = {"epoch": message["epoch"], "offset": message["offset"]}
                if count is not None and seen >= count:
                    return
        except ConnectionClosed:
            continue


if __name__ == "__main__":
    url, topic, count = (sys.argv[1:] + ["ws://127.0.0.1:8080/ws", "trades:pump", ""][len(sys.argv) - 1 :])[:3]
    asyncio.run(follow(url, topic, int(count) if count else None))
