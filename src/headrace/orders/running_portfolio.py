"""A user's portfolio without folding the whole log each time: what can't change any more is saved, the rest added."""

from contextlib import suppress
from typing import Final

from headrace.model.errors import TransientError
from headrace.orders.portfolio import Portfolio
from headrace.orders.store import SavedPortfolio, Store

PAGE: Final = 500
SAVE_AT: Final = 100
"""Fills beyond what was saved that are worth saving."""


async def portfolio_of(store: Store, user_id: str, *, save_at: int = SAVE_AT) -> Portfolio:
    """The fold of all of the user's fills. Raises TransientError when the store is away."""
    saved = await store.portfolio(user_id)
    portfolio = None if saved is None else Portfolio.of_state(saved.state)
    after: int | None = 0 if saved is None or portfolio is None else saved.position
    portfolio = portfolio or Portfolio()
    settled, before, next_save = True, portfolio.fills, None
    while after is not None:
        fills, after, settled_to, unreadable = await store.fills(user_id, after, PAGE)
        portfolio.unreadable += unreadable
        final = [fill for fill in fills if settled and fill.position <= settled_to]
        for fill in final:
            portfolio.apply(fill)
        if settled and portfolio.fills - before >= save_at:
            next_save = SavedPortfolio(settled_to, portfolio.state())
        for fill in fills[len(final) :]:
            portfolio.apply(fill)
        settled = settled and after == settled_to
    if next_save is not None:
        with suppress(TransientError):  # the answer is there, and the next request saves as well
            await store.save_portfolio(user_id, next_save)
    return portfolio
