"""The engine's decisions: which quote wins, the minimum output, and what the chain's status proves. Pure."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from headrace.model.amounts import BaseUnits
from headrace.model.orders import BPS_WHOLE, OrderRequest, Quote
from headrace.model.transactions import Answer

AttemptVerdict: TypeAlias = Literal["succeeded", "failed", "expired", "undecided"]
"""Result of `judge`.

- `succeeded`: the transaction is in a block and took effect.
- `failed`: the transaction is in a block and had no effect.
- `expired`: the transaction never landed and never can, so another one may be signed.
- `undecided`: wait, and send nothing but the same transaction.
"""


class ChainStatus(msgspec.Struct, frozen=True):
    """Answers of the chain to two questions, in the order in which they were asked. None: the chain gave no answer.

    `finalized_height` is read **first**. If it were read second, the transaction could land between the two questions
    while the height passes the limit. The older answer "not landed" would then be wrongly read as "can never land".
    """

    finalized_height: int | None
    answer: Answer | None


def best(quotes: Sequence[Quote]) -> Quote:
    """Return the quote with the highest output after fees. Among equal quotes the venue whose name sorts first wins."""
    return min(quotes, key=lambda quote: (-quote.amount_out, quote.venue))


def least_out(request: OrderRequest, quote: Quote) -> BaseUnits:
    """Return the minimum output to accept: the quote less slippage, or the owner's `min_out` if that is higher.

    The limit after slippage is rounded up, in the owner's favour: a swap that yields one unit less is refused. The
    result is at least 1, so that no swap can give something for nothing.
    """
    by_slippage = -(-quote.amount_out * (BPS_WHOLE - request.slippage_bps) // BPS_WHOLE)
    return BaseUnits(max(1, by_slippage, request.min_out or 0))


def cheapest(quotes: Sequence[Quote]) -> Quote:
    """Return the quote with the lowest input. Among equal quotes the venue whose name sorts first wins."""
    return min(quotes, key=lambda quote: (quote.amount_in, quote.venue))


def most_in(request: OrderRequest, quote: Quote) -> BaseUnits:
    """Return the highest input to accept for a wanted output: the quote plus slippage.

    Rounds down, in the owner's favour.
    """
    return BaseUnits(quote.amount_in * (BPS_WHOLE + request.slippage_bps) // BPS_WHOLE)


def judge(last_valid_height: int, status: ChainStatus) -> AttemptVerdict:
    """Return what is proven about a transaction that may land up to and including `last_valid_height`.

    The order of the checks matters. A question without an answer never leads to a verdict, however often it fails:
    unknown is not failed. A landing that is only `processed` may vanish with its fork. A confirmed landing succeeded
    only if `err` is None.
    """
    answer = status.answer
    if answer is None:
        return "undecided"
    landing = answer.landing
    if landing is None:
        proven = (
            status.finalized_height is not None
            and status.finalized_height > last_valid_height
            and answer.height > last_valid_height  # a node that has not reached the limit itself can't know
        )
        return "expired" if proven else "undecided"
    if landing.depth == "processed":
        return "undecided"
    return "succeeded" if landing.err is None else "failed"


def judge_final(last_valid_height: int, status: ChainStatus) -> Literal["finalized", "lost", "undecided"]:
    """Return whether a confirmed landing is now final, or was lost with its fork.

    A fork after confirmation is very rare. Without this check, the order would stay `confirmed` although nothing is on
    the chain.
    """
    answer = status.answer
    if answer is not None and answer.landing is not None and answer.landing.depth == "finalized":
        return "finalized" if answer.landing.err is None else "lost"
    return "lost" if judge(last_valid_height, status) == "expired" else "undecided"
