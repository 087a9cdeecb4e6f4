"""The audit of an executed order: from the price before the swap to what arrived, each part an integer."""

from typing import NamedTuple

from headrace.model.orders import Outcome


class Audit(NamedTuple):
    """Parts of a fill in base units of the mint that is wanted; `spot - fees - impact == quoted`.

    `spot` is the amount at the price before the swap, without fees; `fees` is the worth of all fees at that price, and
    `impact` what is lost because the swap moves the price. The three are None if the venue does not give them.
    `slippage` is `quoted - received`, below zero if more arrived than was quoted.
    """

    spot: int | None
    fees: int | None
    impact: int | None
    quoted: int
    slippage: int
    received: int


def audit(outcome: Outcome) -> Audit | None:
    """Return the audit; None for an order that was not executed, or whose landing was lost."""
    quote = next((quote for quote in outcome.quotes if quote.venue == outcome.venue), None)
    received = outcome.amount_out
    if quote is None or received is None or outcome.finality == "lost":
        return None
    spot, impact = quote.spot, quote.impact
    known = spot is not None and impact is not None
    fees = spot - impact - quote.amount_out if spot is not None and impact is not None else None
    return Audit(
        spot if known else None,
        fees,
        impact if known else None,
        quote.amount_out,
        quote.amount_out - received,
        received,
    )
