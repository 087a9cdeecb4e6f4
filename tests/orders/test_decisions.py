"""Every combination of what the chain may say, and the one verdict that is safe."""

import itertools
from typing import Literal

import pytest

from headrace.chains import Answer, Landing
from headrace.orders.decisions import AttemptVerdict, ChainStatus, judge

LIMIT = 100
HEIGHTS = (None, LIMIT - 1, LIMIT, LIMIT + 1)
DEPTHS: tuple[Literal["processed", "confirmed", "finalized"], ...] = ("processed", "confirmed", "finalized")


@pytest.mark.parametrize(("finalized", "node"), list(itertools.product(HEIGHTS, HEIGHTS)))
def test_no_landing_proves_expiry_only_beyond_the_limit_on_both_sides(finalized: int | None, node: int | None) -> None:
    answer = None if node is None else Answer(None, node)
    proven = finalized is not None and node is not None and finalized > LIMIT and node > LIMIT
    assert judge(LIMIT, ChainStatus(finalized, answer)) == ("expired" if proven else "undecided")


@pytest.mark.parametrize(("finalized", "depth"), list(itertools.product(HEIGHTS, DEPTHS)))
@pytest.mark.parametrize("err", [None, {"InstructionError": [0, {"Custom": 6001}]}])
def test_a_landing_decides_once_it_is_confirmed(
    finalized: int | None, depth: Literal["processed", "confirmed", "finalized"], err: dict[str, object] | None
) -> None:
    expected: AttemptVerdict = "undecided"
    if depth != "processed":
        expected = "succeeded" if err is None else "failed"
    assert judge(LIMIT, ChainStatus(finalized, Answer(Landing(depth, err), LIMIT + 50))) == expected


def test_a_node_that_cannot_be_asked_proves_nothing_however_late_it_is() -> None:
    assert judge(LIMIT, ChainStatus(LIMIT + 1_000_000, None)) == "undecided"
    assert judge(LIMIT, ChainStatus(None, Answer(None, LIMIT + 1_000_000))) == "undecided"
