"""What may be concluded from what the chain said about an attempt. Pure; the order of the questions matters."""

from typing import Literal, TypeAlias

import msgspec

from headrace.chains import Answer

Verdict: TypeAlias = Literal["succeeded", "failed", "expired", "undecided"]
"""`failed`: it is in a block, and did nothing. `expired`: it never landed and never can, so new bytes are safe.

`undecided`: wait, and send nothing but the same bytes.
"""


class ChainStatus(msgspec.Struct, frozen=True):
    """One look at the chain, both parts in the order in which they were asked for.

    `finalized_height` was read **first**: read after the answer, the height could pass the limit while the bytes land
    between the two questions, and a "no landing" from before would be taken for "never". None: could not be asked.
    """

    finalized_height: int | None
    answer: Answer | None


def judge_final(last_valid_height: int, sighting: ChainStatus) -> Literal["finalized", "lost", "undecided"]:
    """Of bytes that were confirmed: whether that can't change any more, or did. Such forks hardly ever happen, but the
    owner must not believe for ever in what is on none."""
    answer = sighting.answer
    if answer is not None and answer.landing is not None and answer.landing.depth == "finalized":
        return "finalized" if answer.landing.err is None else "lost"
    return "lost" if judge(last_valid_height, sighting) == "expired" else "undecided"


def judge(last_valid_height: int, sighting: ChainStatus) -> Verdict:
    """The verdict on bytes that may land up to and including `last_valid_height`.

    No failure to ask ever becomes a verdict, however often it repeats: UNKNOWN is not FAILED. A landing that is only
    `processed` may vanish with its fork. Confirmed is not succeeded: `err` says which.
    """
    answer = sighting.answer
    if answer is None:
        return "undecided"
    landing = answer.landing
    if landing is None:
        proven = (
            sighting.finalized_height is not None
            and sighting.finalized_height > last_valid_height
            and answer.height > last_valid_height  # a node that lags behind the limit can't know
        )
        return "expired" if proven else "undecided"
    if landing.depth == "processed":
        return "undecided"
    return "succeeded" if landing.err is None else "failed"
