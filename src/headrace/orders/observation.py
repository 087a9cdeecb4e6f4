"""Asks the chain what became of a transaction, in the one order that proves something."""

from headrace.chains import Chain
from headrace.model.errors import TransientError
from headrace.orders.confirmation import Sighting


async def observe(chain: Chain, signature: str) -> Sighting:
    """One look, height first: see `Sighting`. What can't be asked is None."""
    finalized_height = answer = None
    try:
        finalized_height = await chain.finalized_height()
        answer = await chain.look(signature)
    except TransientError:
        pass
    return Sighting(finalized_height, answer)
