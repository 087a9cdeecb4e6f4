"""`headrace listen`: prints what topics of a running server bring, one line each."""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from headrace.model.redact import redact
from headrace.sdk import Refused, follow


def listen(url: str, topics: Sequence[str], *, whole_frames: bool, count: int | None) -> int:
    """Print events until `count` have come, or until interrupted; 1 if the server refused."""
    try:
        asyncio.run(print_frames(url, topics, whole_frames=whole_frames, count=count))
    except Refused as refused:
        print(f"headrace: the server refused: {refused}", file=sys.stderr)
        return 1
    return 0


async def print_frames(
    url: str, topics: Sequence[str], *, whole_frames: bool = False, count: int | None = None
) -> None:
    """Print every frame of the topics as one line: JSON as it came, or the gist of it."""
    seen, told = 0, False

    def tell(why: str, delay_s: float) -> None:
        nonlocal told
        if not told:
            print(f"headrace: {redact(url)}: {why}; trying again until it is there", file=sys.stderr)
        told = True

    async with aclosing(follow(url, topics, on_loss=tell)) as frames:
        async for frame in frames:
            told = False
            line = msgspec.json.encode(frame).decode() if whole_frames else line_of(frame)
            if line:
                print(line, flush=True)
            seen += frame["type"] == "event"
            if count is not None and seen >= count:
                return


def line_of(frame: dict[str, Any]) -> str:
    """What a person wants to see of a frame; empty for what says nothing new."""
    topic, data = frame["topic"], frame.get("data", {})
    match frame["type"]:
        case "event" if data.get("type") == "Trade":
            quote = (
                f"{data['sol']} SOL" if data["sol"] is not None else f"{data['quote_amount']} of {data['quote_mint']}"
            )
            side, token = data["side"] or "", data["mint"] or data["pool"]
            return f"{data['program']:<18} {side:<5} {token}  {quote}  by {data['user']}"
        case "event" if data.get("type") == "TokenCreated":
            symbol, name = printable(data["symbol"]), printable(data["name"])
            return f"{'new token':<18} {symbol}  {data['mint']}  {name}"
        case "event" if data.get("type") == "TokenPriceUpdate":
            return f"{'price':<18} {data['price']:<5} {data['mint']}  {data['change_24h']} %"
        case "event":
            return f"{topic}  {msgspec.json.encode(data).decode()}"
        case "gap":
            return f"{topic}  gap: slots {data['from_slot']} to {data['to_slot']} {data['state']}"
        case "retract":
            return f"{topic}  taken back: {', '.join(data['event_ids'])} ({data['reason']})"
        case "lag":
            return f"{topic}  too slow: {data['dropped']} messages not sent"
        case "subscribed" if data.get("was_recovering") and not data["recovered"]:
            return f"{topic}  was away too long: some messages are gone"
        case _:
            return ""


def printable(text: str) -> str:
    """Text from the chain with control characters escaped: a token's name can hold what a terminal would obey."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
