"""`headrace listen`: prints what topics of a running server bring, one line each."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec

from headrace.cli.access import Access, remedy
from headrace.model.redact import redact
from headrace.runtime.channel import Channel
from headrace.runtime.clock import SystemClock
from headrace.runtime.supervise import Supervisor
from headrace.sdk import Client, Event, Gap, Lag, NotRecovered, Promote, Refused, Retract, Subscription, Value


def run(arguments: argparse.Namespace) -> int:
    """Run `headrace listen` as its arguments say."""
    shown = Access.of(arguments)
    return listen(arguments.url, arguments.topics, shown, whole_frames=arguments.json, count=arguments.count)


def listen(url: str, topics: Sequence[str], access: Access, *, whole_frames: bool, count: int | None) -> int:
    """Print events until `count` have come, or until interrupted; 1 if the server refused."""
    access.warn(url)
    known = partial(Client, token=access.token(), tls=access.tls(url))
    try:
        asyncio.run(print_values(url, topics, known, whole_frames=whole_frames, count=count))
    except Refused as refused:
        hint = (
            "; the address of a stream ends in /ws"
            if refused.code == HTTPStatus.NOT_FOUND
            else access.hint(refused.code)
        )
        print(f"headrace: the server refused: {printable(str(refused))}{hint}", file=sys.stderr)
        return 1
    return 0


async def print_values(
    url: str,
    topics: Sequence[str],
    connect: Callable[..., Client] = Client,
    *,
    whole_frames: bool = False,
    count: int | None = None,
) -> None:
    """Print every value of the topics as one line: JSON as it came, or the gist of it."""
    told, seen = False, 0
    values = Channel[Value](64, name="listen")

    def tell(why: str, delay_s: float) -> None:
        nonlocal told
        if not told:
            print(f"headrace: {redact(url)}: {why}{remedy(why)}; trying again until it is there", file=sys.stderr)
        told = True

    async def follow(subscription: Subscription) -> None:
        async for value in subscription:
            await values.put(value)

    async with connect(url, on_loss=tell) as client, Supervisor(SystemClock()) as tasks:
        for topic in dict.fromkeys(topics):
            tasks.start("listen", topic, partial(follow, client.subscribe(topic)))
        while count is None or seen < count:
            for value in await values.get_batch(1):
                told = False
                if line := frame_of(value) if whole_frames else line_of(value):
                    print(line, flush=True)
                seen += isinstance(value, Event)
        tasks.cancel()


def frame_of(value: Value) -> str:
    """The JSON text of a value, as it came."""
    if isinstance(value, NotRecovered):
        return msgspec.json.encode({"type": "not_recovered", "topic": value.topic}).decode()
    return value.frame


def line_of(value: Value) -> str:
    """What a person wants to see of a value; empty for what says nothing new."""
    topic = value.topic
    match value:
        case Event(data=data):
            return _line_of_event(topic, data)
        case Gap():
            return f"{topic}  gap: slots {value.from_slot} to {value.to_slot} {value.state}"
        case Retract():
            return f"{topic}  taken back: {', '.join(value.event_ids)} ({value.reason})"
        case Lag():
            return f"{topic}  too slow: {value.dropped} messages not sent"
        case NotRecovered(now=now) if now is not None and now.offset == 0:
            return f"{topic}  begins anew"
        case NotRecovered():
            return f"{topic}  was away too long: some messages are gone"
        case Promote():
            return ""
        case _:
            return f"{topic}  state: {len(value.items)} items"


def _line_of_event(topic: str, data: dict[str, Any]) -> str:
    match data.get("type"):
        case "Trade":
            quote = (
                f"{data['sol']} SOL" if data["sol"] is not None else f"{data['quote_amount']} of {data['quote_mint']}"
            )
            side, token = data["side"] or "", data["mint"] or data["pool"]
            return f"{data['program']:<18} {side:<5} {token}  {quote}  by {data['user']}"
        case "TokenCreated":
            symbol, name = printable(data["symbol"]), printable(data["name"])
            return f"{'new token':<18} {symbol}  {data['mint']}  {name}"
        case "TokenPriceUpdate":
            return f"{'price':<18} {data['price']:<5} {data['mint']}  {data['change_24h']} %"
        case _:
            return f"{topic}  {msgspec.json.encode(data).decode()}"


def printable(text: str) -> str:
    """Text from the chain with control characters escaped: a token's name can hold what a terminal would obey."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
