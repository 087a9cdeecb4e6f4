"""The load that servers and clients of the gateway benchmark agree on."""

from typing import Final

import msgspec

FILLING: Final = (
    b'"topic":"trades","type":"trade","signature":"5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3Zp'
    b'RzrFmBV6UjKdiSZkQUW","slot":287654321,"mint":"EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v","owner":"9WzDXwBbmkg8'
    b'ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM","side":"buy","price":"0.00012345","amount":"1234567.89"'
)
"""What a message holds besides its time and number, as members of a JSON object."""


class Order(msgspec.Struct, frozen=True, tag_field="op", tag="pub"):
    """Publish `rate` messages a second for `secs` seconds."""

    rate: float
    secs: float


def body(began_us: int, rate: float, number: int) -> bytes:
    """The members of message `number` (from 0): `t` is the µs of the monotonic clock at which it is due."""
    return b'"t":%d,"s":%d,%b' % (began_us + int(number * 1e6 / rate), number + 1, FILLING)


def due(began_ns: int, now_ns: int, order: Order) -> int:
    """How many messages should be out by now."""
    return min(round(order.rate * order.secs), int((now_ns - began_ns) * order.rate / 1e9) + 1)
