"""Ask others for the engine: quotes of all venues, and the chain's status of a transaction."""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog

from headrace.chains import Chain
from headrace.model.errors import TransientError
from headrace.model.orders import OrderRequest, Quote
from headrace.orders.decisions import ChainStatus
from headrace.venues import Venue

TOO_SLOW: Final = "too slow"
NO_ANSWER: Final = "no answer"
"""Why a venue is left out, for the owner: constants, never the words of an error."""

_log = structlog.get_logger("execution")


class Quotes(NamedTuple):
    """Quotes, and `left_out`: name of each venue without one → the reason."""

    quotes: tuple[Quote, ...]
    left_out: dict[str, str]


async def ask_all(venues: Sequence[Venue], request: OrderRequest, timeout_s: float) -> Quotes:
    """Ask all venues at once; return quotes in the order of `venues`.

    Takes as long as the slowest venue, at most `timeout_s`. A venue that errs or is slow is left out and named.
    """
    asked = [_ask(venue, request, timeout_s) for venue in venues]
    quotes: list[Quote] = []
    left_out: dict[str, str] = {}
    for venue, answer in zip(venues, await asyncio.gather(*asked, return_exceptions=True), strict=True):
        if isinstance(answer, Quote):
            quotes.append(answer)
        elif isinstance(answer, str):
            left_out[venue.name] = answer
        else:  # a defect of one venue is no reason to have no quote of the others
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


async def look_at_chain(chain: Chain, signature: str) -> ChainStatus:
    """Look once, height first: see `ChainStatus`. What can't be asked is None."""
    finalized_height = answer = None
    try:
        finalized_height = await chain.finalized_height()
        answer = await chain.look(signature)
    except TransientError:
        pass
    return ChainStatus(finalized_height, answer)
