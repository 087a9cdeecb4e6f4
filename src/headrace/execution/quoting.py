"""Asks all venues at once; one that errs or is slow is left out and named."""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

from headrace.model.errors import TransientError
from headrace.model.orders import OrderRequest, Quote
from headrace.venues import Venue

TOO_SLOW: Final = "too slow"
NO_ANSWER: Final = "no answer"
"""Why a venue is left out, as the owner is told: never the words of its error."""


class Quotes(NamedTuple):
    """`left_out`: venue → why it gave none."""

    quotes: tuple[Quote, ...]
    left_out: dict[str, str]


async def ask_all(venues: Sequence[Venue], request: OrderRequest, timeout_s: float) -> Quotes:
    """Quotes in the order of `venues`; takes as long as the slowest, at most `timeout_s`."""
    async with asyncio.TaskGroup() as group:
        asked = {venue.name: group.create_task(_ask(venue, request)) for venue in venues}
        _, late = await asyncio.wait(asked.values(), timeout=timeout_s)
        for task in late:
            task.cancel()
    answers = [(name, TOO_SLOW if task.cancelled() else task.result()) for name, task in asked.items()]
    return Quotes(
        tuple(answer for _, answer in answers if isinstance(answer, Quote)),
        {name: answer for name, answer in answers if isinstance(answer, str)},
    )


async def _ask(venue: Venue, request: OrderRequest) -> Quote | str:
    try:
        return await venue.quote(request)
    except TransientError:
        return NO_ANSWER
