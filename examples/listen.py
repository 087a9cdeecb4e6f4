"""Follow pump.fun trades and lose none: reconnects, asks for what it missed, and says what can't be had.

Run `headrace demo` in one terminal and this in another:

    python examples/listen.py ws://127.0.0.1:8080/ws trades:pump
"""

import asyncio
import sys

from headrace.sdk import Client, Event, Gap, Lag, NotRecovered, Refused, Retract


async def follow(url: str, topic: str, count: int | None = None) -> None:
    """Print trades until `count` have come (None: for ever)."""
    seen = 0
    async with Client(url) as client:
        async for value in client.subscribe(topic):
            match value:
                case Event(data=trade):
                    sol, other = trade["sol"], f"{trade['quote_amount']} of {trade['quote_mint']}"
                    paid = other if sol is None else f"{sol} SOL"
                    print(trade["side"], trade["base_amount"], "of", trade["mint"], "for", paid)
                    seen += 1
                case Retract():
                    print("did not happen after all:", *value.event_ids)
                case Gap():
                    print("the node missed slots", value.from_slot, "to", value.to_slot, value.state)
                case Lag():
                    print("too slow:", value.dropped, "messages were not sent")
                case NotRecovered():
                    print("starting afresh: what was missed can't be had")
            if seen == count:
                return


if __name__ == "__main__":
    url, topic, count = (sys.argv[1:] + ["ws://127.0.0.1:8080/ws", "trades:pump", ""][len(sys.argv) - 1 :])[:3]
    try:
        asyncio.run(follow(url, topic, int(count) if count else None))
    except Refused as refused:
        sys.exit(str(refused))
