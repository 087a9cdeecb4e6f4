"""The engine's decisions: which quote wins, the least that may come out, and what a look at the chain proves. Pure."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from headrace.model.amounts import BaseUnits
from headrace.model.orders import BPS_WHOLE, OrderRequest, Quote
from headrace.model.transactions import Answer

AttemptVerdict: TypeAlias = Literal["succeeded", "failed", "expired", "undecided"]
"""`failed`: the bytes are in a block, and did nothing. `expired`: the bytes never landed and never can, so new ones are
safe. `undecided`: wait, and send nothing but the same bytes.
"""


class ChainStatus(msgspec.Struct, frozen=True):
    """One look at the chain, both parts in the order in which they were asked for.

    `finalized_height` was read **first**: read after the answer, the height could pass the limit while the bytes land
    between the two questions, and a "no landing" from before would be taken for "never". None: could not be asked.
    """

    finalized_height: int | None
    answer: Answer | None


def best(quotes: Sequence[Quote]) -> Quote:
    """Return the quote that brings most after fees; among equals the first by the venue's name: always the same."""
    return min(quotes, key=lambda quote: (-quote.amount_out, quote.venue))


def least_out(request: OrderRequest, quote: Quote) -> BaseUnits:
    """Return the least that the chain may fill: the quote less the slippage, rounded up, or the owner's own limit.

    The higher of the two. Rounding up favours the owner: the swap is refused rather than filled one unit short. At
    least 1: nothing is given for nothing.
    """
    by_slippage = -(-quote.amount_out * (BPS_WHOLE - request.slippage_bps) // BPS_WHOLE)
    return BaseUnits(max(1, by_slippage, request.min_out or 0))


def judge(last_valid_height: int, status: ChainStatus) -> AttemptVerdict:
    """Return what is proven of bytes that may land up to and including `last_valid_height`.

    The order of the questions matters. No failure to ask ever becomes a verdict, however often it repeats: UNKNOWN is
    not FAILED. A landing that is only `processed` may vanish with its fork. Confirmed is not succeeded: `err` decides.
    """
    answer = status.answer
    if answer is None:
        return "undecided"
    landing = answer.landing
    if landing is None:
        proven = (
            status.finalized_height is not None
            and status.finalized_height > last_valid_height
            and answer.height > last_valid_height  # a node that lags behind the limit can't know
        )
        return "expired" if proven else "undecided"
    if landing.depth == "processed":
        return "undecided"
    return "succeeded" if landing.err is None else "failed"


def judge_final(last_valid_height: int, status: ChainStatus) -> Literal["finalized", "lost", "undecided"]:
    """Return whether the landing of confirmed bytes is final, or vanished with its fork.

    Such forks hardly ever happen, but an owner must not believe for ever in a landing that no fork has.
    """
    answer = status.answer
    if answer is not None and answer.landing is not None and answer.landing.depth == "finalized":
        return "finalized" if answer.landing.err is None else "lost"
    return "lost" if judge(last_valid_height, status) == "expired" else "undecided"
