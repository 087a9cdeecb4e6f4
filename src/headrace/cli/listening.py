"""`headrace listen`: prints the messages of a running server's topics, one line each."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec

from headrace.cli.access import Access, is_untrusted, remedy
from headrace.model.errors import HeadraceError
from headrace.model.redact import redact
from headrace.runtime.channel import Channel, ChannelClosed
from headrace.runtime.clock import SystemClock
from headrace.runtime.supervise import Supervisor
from headrace.sdk import Client, Event, Gap, Lag, NotRecovered, Promote, Refused, Retract, Subscription, Value


def run(arguments: argparse.Namespace) -> int:
    """Run `headrace listen`.

    Returns 1 if the server refused, its certificate is not trusted, or too few events came.
    """
    shown = Access.of(arguments)
    shown.warn(arguments.url)
    known = partial(Client, token=shown.token(), tls=shown.tls(arguments.url))
    count, timeout_s = arguments.count, arguments.timeout
    values = print_values(
        arguments.url, arguments.topics, known, whole_frames=arguments.json, count=count, timeout_s=timeout_s
    )
    try:
        seen = asyncio.run(values)
    except Refused as refused:
        hint = (
            "; the address of a stream ends in /ws"
            if refused.code == HTTPStatus.NOT_FOUND
            else shown.hint(refused.code)
        )
        raise HeadraceError(f"the server refused: {printable(str(refused))}{hint}") from refused
    if seen < (count or 1):
        raise HeadraceError(f"{seen} of {count or 'any'} events came in {timeout_s:g} s")
    return 0


async def print_values(
    url: str,
    topics: Sequence[str],
    connect: Callable[..., Client] = Client,
    *,
    whole_frames: bool = False,
    count: int | None = None,
    timeout_s: float | None = None,
) -> int:
    """Print every value of the topics on one line: its JSON as received, or a summary. Return the number of events.

    Ends after `count` events or `timeout_s` seconds. If neither is given, never ends. Raises Refused. Raises
    HeadraceError for a certificate that is not trusted, because the server would show the same certificate again.
    """
    reported, seen = False, 0
    untrusted = ""
    values = Channel[Value](64, name="listen")

    def report(why: str, delay_s: float) -> None:
        nonlocal reported, untrusted
        problem = f"{redact(url)}: {why}{remedy(why)}"
        if is_untrusted(why):
            untrusted = problem
            values.close()
        elif not reported:
            print(f"headrace: {problem}; trying again until it is there", file=sys.stderr)
        reported = True

    async def follow(subscription: Subscription) -> None:
        async for value in subscription:
            await values.put(value)

    async with connect(url, on_loss=report) as client, Supervisor(SystemClock()) as tasks:
        for topic in dict.fromkeys(topics):
            tasks.start("listen", topic, partial(follow, client.subscribe(topic)))
        with contextlib.suppress(TimeoutError, ChannelClosed):
            async with asyncio.timeout(timeout_s):
                while count is None or seen < count:
                    for value in await values.get_batch(1):
                        reported = False
                        if line := frame_of(value) if whole_frames else line_of(value):
                            print(line, flush=True)
                        seen += isinstance(value, Event)
        tasks.cancel()
    if untrusted:
        raise HeadraceError(untrusted)
    return seen


def frame_of(value: Value) -> str:
    """Return the JSON text of a value, as received."""
    if isinstance(value, NotRecovered):
        return msgspec.json.encode({"type": "not_recovered", "topic": value.topic}).decode()
    return value.frame


def line_of(value: Value) -> str:
    """Return one line for a person; empty for a value without news."""
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
    """Return text from the chain with control characters escaped: a coin's name can contain commands for a terminal."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
