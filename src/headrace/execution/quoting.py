"""Asks all venues at once; one that errs or is slow is left out and named."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from headrace.model.errors import TransientError
from headrace.model.orders import OrderRequest, Quote
from headrace.venues import Venue


class Quotes(NamedTuple):
    """`left_out`: venue → why it gave none."""

    quotes: tuple[Quote, ...]
    left_out: dict[str, str]


async def ask_all(venues: Sequence[Venue], request: OrderRequest, timeout_s: float) -> Quotes:
    """Quotes in the order of `venues`; takes as long as the slowest, at most `timeout_s`."""
    async with asyncio.TaskGroup() as group:
        asked = [(venue.name, group.create_task(_ask(venue, request, timeout_s))) for venue in venues]
    answers = [(name, task.result()) for name, task in asked]
    return Quotes(
        tuple(answer for _, answer in answers if isinstance(answer, Quote)),
        {name: answer for name, answer in answers if isinstance(answer, str)},
    )


async def _ask(venue: Venue, request: OrderRequest, timeout_s: float) -> Quote | str:
    try:
        async with asyncio.timeout(timeout_s):
            return await venue.quote(request)
    except TimeoutError:
        return "too slow"
    except TransientError as error:
        return str(error)
