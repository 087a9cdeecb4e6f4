"""Asks all venues at once; one that errs or is slow is left out and named."""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog

from headrace.model.errors import TransientError
from headrace.model.orders import OrderRequest, Quote
from headrace.venues import Venue

TOO_SLOW: Final = "too slow"
NO_ANSWER: Final = "no answer"
"""Why a venue is left out, as the owner is told: never the words of its error."""

_log = structlog.get_logger("execution")


class Quotes(NamedTuple):
    """`left_out`: venue → why it gave none."""

    quotes: tuple[Quote, ...]
    left_out: dict[str, str]


async def ask_all(venues: Sequence[Venue], request: OrderRequest, timeout_s: float) -> Quotes:
    """Quotes in the order of `venues`; takes as long as the slowest, at most `timeout_s`."""
    asked = [_ask(venue, request, timeout_s) for venue in venues]
    quotes: list[Quote] = []
    left_out: dict[str, str] = {}
    for venue, answer in zip(venues, await asyncio.gather(*asked, return_exceptions=True), strict=True):
        if isinstance(answer, Quote):
            quotes.append(answer)
        elif isinstance(answer, str):
            left_out[venue.name] = answer
        else:  # a defect of one venue is no reason to have no quote from the others
            left_out[venue.name] = NO_ANSWER
            _log.error("venue_broken", venue=venue.name, error=repr(answer), exc_info=answer)
    return Quotes(tuple(quotes), left_out)


async def _ask(venue: Venue, request: OrderRequest, timeout_s: float) -> Quote | str:
    try:
        async with asyncio.timeout(timeout_s):
            return await venue.quote(request)
    except TimeoutError:
        return TOO_SLOW
    except TransientError:
        return NO_ANSWER
