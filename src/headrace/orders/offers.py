"""Offers for a client that asks before it orders, with the same venues and the same choice as for an order."""

from collections.abc import Hashable, Mapping, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

from headrace.model.amounts import BaseUnits
from headrace.model.orders import OrderRefused, OrderRequest, Quote
from headrace.orders.asking import ask_all
from headrace.orders.decisions import best, cheapest, least_out, most_in
from headrace.orders.requests import read_request
from headrace.venues import RevisedVenue, Venue

RETRY_AFTER_MS: Final = 1_000
ANEW_S: Final = 1.0
"""Seconds after which a venue without revisions is asked again for a topic of quotes."""

EXACT_IN: Final = "ExactIn"
EXACT_OUT: Final = "ExactOut"
_NAMES: Final = {"tokenIn": "inputMint", "tokenOut": "outputMint", "amount": "amount", "slippageBps": "slippageBps"}
"""Field of an order → parameter of the query."""


class Offer(NamedTuple):
    """Best quote, all quotes, and the venues that gave none.

    `min_out` is the minimum output that an order would accept. With `max_in`, the output was given and the input is
    quoted: `max_in` is the maximum input.
    """

    request: OrderRequest
    best: Quote
    min_out: BaseUnits
    quotes: tuple[Quote, ...]
    left_out: dict[str, str]
    max_in: BaseUnits | None = None


async def find_offer(
    venues: Sequence[Venue], asked: Mapping[str, str | int | None], *, amount_max: int, timeout_s: float
) -> Offer:
    """Ask all venues. `asked` are the query's parameters by name.

    Raises OrderRefused 400 naming all faults, or 404 if no venue gives a quote now.
    """
    request = read_asked(asked, amount_max)
    exact_out = asked.get("swapMode") == EXACT_OUT
    quotes, left_out = await ask_all(venues, request, timeout_s, exact_out=exact_out)
    given = tuple(quote for quote in quotes if quote.amount_out)
    if not given:
        message = "no venue gives a quote for this now"
        raise OrderRefused(HTTPStatus.NOT_FOUND, "no_quote", message, fields=left_out, retry_after_ms=RETRY_AFTER_MS)
    if exact_out:
        chosen = cheapest(given)
        return Offer(request, chosen, request.amount, given, left_out, most_in(request, chosen))
    chosen = best(given)
    return Offer(request, chosen, least_out(request, chosen), given, left_out)


def revision_of(venues: Sequence[Venue], now_s: float) -> Hashable:
    """Return a value that changes whenever a quote of the venues may have changed.

    A venue that does not report changes counts as changed every ANEW_S.
    """
    return tuple(venue.revision() if isinstance(venue, RevisedVenue) else int(now_s // ANEW_S) for venue in venues)


def read_asked(asked: Mapping[str, str | int | None], amount_max: int) -> OrderRequest:
    """Return the query as an order request. Amounts are in base units. Raises OrderRefused 400 naming all faults."""
    faults = {}
    if asked.get("swapMode") not in (None, EXACT_IN, EXACT_OUT):
        faults["swapMode"] = f"is neither {EXACT_IN} nor {EXACT_OUT}"
    body = {field: asked[name] for field, name in _NAMES.items() if asked.get(name) is not None}
    try:
        request = read_request(body, amount_max=amount_max)
    except OrderRefused as refused:
        faults |= {_NAMES.get(field, field): fault for field, fault in refused.fields.items()}
    if faults:
        named = "; ".join(f"{name} {fault}" for name, fault in faults.items())
        message = f"nothing can be quoted for this: {named}"
        raise OrderRefused(HTTPStatus.BAD_REQUEST, "invalid_query", message, fields=faults)
    return request
