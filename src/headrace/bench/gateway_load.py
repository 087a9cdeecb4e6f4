"""The load that all servers and clients of the gateway benchmark use."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

import msgspec

FILLING: Final = (
    b'"topic":"trades","type":"trade","signature":"5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3Zp'
    b'RzrFmBV6UjKdiSZkQUW","slot":287654321,"mint":"EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v","owner":"9WzDXwBbmkg8'
    b'ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM","side":"buy","price":"0.00012345","amount":"1234567.89"'
)
"""Members of each message's JSON object besides the time and the number."""


class Order(msgspec.Struct, frozen=True, tag_field="op", tag="pub"):
    """Publish `rate` messages per second for `secs` seconds."""

    rate: float
    secs: float


async def batches(order: Order) -> AsyncIterator[list[bytes]]:
    """Yield the JSON members of the messages that are due, once a millisecond until the end of the load.

    `t` is the time at which the message was due, in µs of the monotonic clock. `s` is its number from 1.
    """
    began_ns, sent, total = time.monotonic_ns(), 0, round(order.rate * order.secs)
    began_us = began_ns // 1000
    while sent < total:
        due = min(total, int((time.monotonic_ns() - began_ns) * order.rate / 1e9) + 1)
        yield [b'"t":%d,"s":%d,%b' % (began_us + int(n * 1e6 / order.rate), n + 1, FILLING) for n in range(sent, due)]
        sent = due
        await asyncio.sleep(0.001)
