"""The JSON of market messages. Prices, changes and caps are decimal strings, computed from integers. Pure."""

from typing import Final

import msgspec

from headrace.market.series import Point, View
from headrace.model.amounts import PRICE_DIGITS, decimal_string, ratio_text
from headrace.model.trades import SeenTrade

CHANGE_DIGITS: Final = 2
"""Number of digits of a percentage after the point. Further digits are truncated."""

_encode: Final = msgspec.json.Encoder().encode


def price_text(last: Point, decimals: int | None, quote_decimals: int | None) -> str | None:
    """Return the price in whole quote coins for one whole base coin. None unless the decimals of both are known."""
    if decimals is None or quote_decimals is None:
        return None
    return ratio_text(last.quote * 10**decimals, last.base * 10**quote_decimals, PRICE_DIGITS)


def change_text(last: Point, reference: Point) -> str:
    """Return the change from the reference price to the last price in per cent, rounded towards zero."""
    now, then = last.quote * reference.base, reference.quote * last.base
    parts = abs(now - then) * 100 * 10**CHANGE_DIGITS // then
    return decimal_string(-parts if now < then else parts, CHANGE_DIGITS)


def cap_text(last: Point, supply: int | None, quote_decimals: int | None) -> str | None:
    """Return price times supply in whole quote coins, truncated to the quote's base units.

    None if either is unknown.
    """
    if supply is None or quote_decimals is None:
        return None
    return decimal_string(last.quote * supply // last.base, quote_decimals)


def price_data(token_id: str, view: View, trade: SeenTrade) -> bytes | None:
    """Return the data of a `TokenPriceUpdate`. None if the price is unknown."""
    price = price_text(view.last, trade.decimals, trade.quote_decimals)
    if price is None:
        return None
    return b'{"type":"TokenPriceUpdate",%b,"price":"%b","change_24h":"%b","since":%d}' % (
        _named(token_id, trade),
        price.encode(),
        change_text(view.last, view.reference).encode(),
        view.since_s,
    )


def market_data(token_id: str, view: View, trade: SeenTrade) -> bytes:
    """Return the data of a `MarketData`."""
    decimals = trade.quote_decimals
    return b'{"type":"MarketData",%b,"price":%b,"change_24h":"%b","volume_24h":%b,"market_cap":%b,"since":%d}' % (
        _named(token_id, trade),
        _encode(price_text(view.last, trade.decimals, decimals)),
        change_text(view.last, view.reference).encode(),
        _encode(None if decimals is None else decimal_string(view.volume, decimals)),
        _encode(cap_text(view.last, trade.supply, decimals)),
        view.since_s,
    )


def _named(token_id: str, trade: SeenTrade) -> bytes:
    return b'"token_id":"%b","mint":%b,"quote_mint":%b' % (
        token_id.encode(),
        _encode(trade.mint),
        _encode(trade.quote_mint),
    )
