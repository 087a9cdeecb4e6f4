"""Asks the chain what became of a transaction, in the one order that proves something."""

from headrace.chains import Chain
from headrace.model.errors import TransientError
from headrace.orders.decisions import ChainStatus


async def observe(chain: Chain, signature: str) -> ChainStatus:
    """One look, height first: see `ChainStatus`. What can't be asked is None."""
    finalized_height = answer = None
    try:
        finalized_height = await chain.finalized_height()
        answer = await chain.look(signature)
    except TransientError:
        pass
    return ChainStatus(finalized_height, answer)
