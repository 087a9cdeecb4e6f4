"""Which quote wins, and the least that may come out of it. Pure integer arithmetic."""

from collections.abc import Sequence

from headrace.model.amounts import BaseUnits
from headrace.model.orders import BPS_WHOLE, OrderRequest, Quote


def best(quotes: Sequence[Quote]) -> Quote:
    """The quote that brings most after fees; among equals the first by the venue's name, so it is always the same."""
    return min(quotes, key=lambda quote: (-quote.amount_out, quote.venue))


def least_out(request: OrderRequest, quote: Quote) -> BaseUnits:
    """What the chain must not fill below: the quote less the slippage, rounded up, or the owner's own limit if higher.

    Rounding up favours the owner: the swap is refused rather than filled one unit short. Nothing is given for nothing.
    """
    by_slippage = -(-quote.amount_out * (BPS_WHOLE - request.slippage_bps) // BPS_WHOLE)
    return BaseUnits(max(1, by_slippage, request.min_out or 0))
