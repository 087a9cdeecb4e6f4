"""Delays stay within their bounds, however often it is tried."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.runtime.backoff import Backoff


@given(
    st.floats(1e-3, 10),
    st.floats(1, 1e6),
    st.one_of(st.floats(1, 1e300), st.just(float("inf"))),
    st.integers(0, 3_000),
    st.integers(),
)
def test_between_half_and_all_of_a_growing_ceiling(
    initial_s: float, ratio: float, factor: float, tries: int, seed: int
) -> None:
    max_s = initial_s * ratio
    backoff = Backoff(initial_s, max_s, factor, random.Random(seed))
    delays = [backoff.next_s() for _ in range(tries + 1)]
    assert initial_s / 2 <= delays[0] <= initial_s
    assert all(initial_s / 2 <= delay <= max_s for delay in delays)
    assert backoff.tries == tries + 1


def test_doubles_until_the_maximum() -> None:
    backoff = Backoff(1, 6, 2, random.Random(1))
    for ceiling in (1, 2, 4, 6, 6):
        assert ceiling / 2 <= backoff.next_s() <= ceiling


def test_reset_starts_again() -> None:
    backoff = Backoff(1, 60)
    for _ in range(10):
        backoff.next_s()
    backoff.reset()
    assert backoff.tries == 0
    assert backoff.next_s() <= 1


def test_jitter_spreads() -> None:
    assert len({Backoff(1, 1, rng=random.Random(seed)).next_s() for seed in range(50)}) == 50


@pytest.mark.parametrize(
    ("initial_s", "max_s", "factor"),
    [
        (0, 1, 2),
        (-1, 1, 2),
        (2, 1, 2),
        (1, 2, 0.5),
        (1, float("inf"), 2),
        (float("nan"), 1, 2),
        (1, 2, float("nan")),
    ],
)
def test_senseless_values_are_refused(initial_s: float, max_s: float, factor: float) -> None:
    with pytest.raises(ValueError, match="expected 0 < initial_s"):
        Backoff(initial_s, max_s, factor)
