"""Facts made by hand, as the update flow would hand them to consumers."""

from headrace.model.events import DecodedEvent, EventBody
from headrace.model.facts import EventSeen, MintFacts, Origin, Traded
from headrace.model.trades import Trade
from headrace.model.updates import Commitment


def traded(
    mint: str | None,
    quote_mint: str | None,
    base: int,
    quote: int,
    *,
    slot: int = 1,
    event_id: str = "e1",
    signature: str = "sig",
    commitment: Commitment = "processed",
    unproven: bool = False,
) -> Traded:
    """Return a sale of `base` units for `quote` units."""
    event = DecodedEvent(program="pump", program_id="P", name="TradeEvent", via="log", path=(0,), ordinal=0, data={})
    origin = Origin(slot, signature, "rpc-0", "logs:P", commitment, unproven)
    trade = Trade(mint, quote_mint, "sell", "user", base, quote, None)
    return Traded(EventSeen(event_id, origin, event, EventBody(b"{}", 0, 0, 2)), trade, 0, MintFacts(), MintFacts())
