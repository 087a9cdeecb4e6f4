"""Questions that the engine asks others: every venue for a quote, and the chain for a transaction's status."""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog

from headrace.chains import Chain
from headrace.model.errors import TransientError
from headrace.model.orders import OrderRequest, Quote
from headrace.orders.decisions import ChainStatus
from headrace.venues import ExactOutVenue, Venue

TOO_SLOW: Final = "too slow"
ONLY_EXACT_IN: Final = "only ExactIn"
NO_ANSWER: Final = "no answer"
"""Reason why a venue gave no quote, as shown to the order's owner: a constant, never the text of an error."""

_log = structlog.get_logger("execution")


class Quotes(NamedTuple):
    """Quotes, and `left_out`: the name of each venue that gave no quote → the reason."""

    quotes: tuple[Quote, ...]
    left_out: dict[str, str]


async def ask_all(
    venues: Sequence[Venue], request: OrderRequest, timeout_s: float, *, exact_out: bool = False
) -> Quotes:
    """Ask all venues at once; return their quotes in the order of `venues`.

    Takes as long as the slowest venue, but at most `timeout_s`. A venue that fails or is too slow is in `left_out`.
    `exact_out`: the request's amount is of the mint out, and a venue that quotes only inputs is left out, too.
    """
    asked = [_ask(venue, request, timeout_s, exact_out=exact_out) for venue in venues]
    quotes: list[Quote] = []
    left_out: dict[str, str] = {}
    for venue, answer in zip(venues, await asyncio.gather(*asked, return_exceptions=True), strict=True):
        if isinstance(answer, Quote):
            quotes.append(answer)
        elif isinstance(answer, str):
            left_out[venue.name] = answer
        else:  # a defect in one venue must not lose the quotes of the other venues
            left_out[venue.name] = NO_ANSWER
            _log.error("venue_broken", venue=venue.name, error=repr(answer), exc_info=answer)
    return Quotes(tuple(quotes), left_out)


async def _ask(venue: Venue, request: OrderRequest, timeout_s: float, *, exact_out: bool) -> Quote | str:
    try:
        async with asyncio.timeout(timeout_s):
            if not exact_out:
                return await venue.quote(request)
            return await venue.quote_exact_out(request) if isinstance(venue, ExactOutVenue) else ONLY_EXACT_IN
    except TimeoutError:
        return TOO_SLOW
    except TransientError:
        return NO_ANSWER


async def look_at_chain(chain: Chain, signature: str) -> ChainStatus:
    """Ask the chain for its height and then for the transaction. An answer that could not be had is None.

    `ChainStatus` says why the height comes first.
    """
    finalized_height = answer = None
    try:
        finalized_height = await chain.finalized_height()
        answer = await chain.look(signature)
    except TransientError:
        pass
    return ChainStatus(finalized_height, answer)
