"""Computes square roots of prices from ticks, in 64.64 fixed point, as the programs do."""

from functools import lru_cache
from typing import Final

Q64: Final = 1 << 64
Q128: Final = 1 << 128
TICK_MAX: Final = 443_636
SQRT_PRICE_MIN: Final = 4_295_048_016
SQRT_PRICE_MAX: Final = 79_226_673_521_066_979_257_578_248_091

_FACTORS: Final = (
    0xFFFCB933BD6FB800, 0xFFF97272373D4000, 0xFFF2E50F5F657000, 0xFFE5CACA7E10F000, 0xFFCB9843D60F7000,
    0xFF973B41FA98E800, 0xFF2EA16466C9B000, 0xFE5DEE046A9A3800, 0xFCBE86C7900BB000, 0xF987A7253AC65800,
    0xF3392B0822BB6000, 0xE7159475A2CAF000, 0xD097F3BDFD2F2000, 0xA9F746462D9F8000, 0x70D869A156F31C00,
    0x31BE135F97ED3200, 0x9AA508B5B85A500, 0x5D6AF8DEDC582C, 0x2216E584F5FA,
)  # fmt: skip
"""2^64 / 1.0001^(2^(i-1)), for each bit of a tick."""


@lru_cache(maxsize=8192)
def sqrt_price_at(tick: int) -> int:
    """Return the square root of the price at a tick within ±TICK_MAX. Each product rounds down."""
    ratio = Q64
    for bit, factor in enumerate(_FACTORS):
        if abs(tick) >> bit & 1:
            ratio = ratio * factor >> 64
    return (Q128 - 1) // ratio if tick > 0 else ratio


def tick_at(sqrt_price: int) -> int:
    """Return the highest tick whose square root of the price is at most `sqrt_price`."""
    low, high = -TICK_MAX, TICK_MAX
    while low < high:
        middle = (low + high + 1) // 2
        if sqrt_price_at(middle) <= sqrt_price:
            low = middle
        else:
            high = middle - 1
    return low
