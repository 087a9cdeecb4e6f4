"""The breaker's three states, every input in each, and a random walk against the rules it promises."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.runtime.backoff import Backoff
from headrace.runtime.breaker import Breaker, BreakerState


def breaker(failures_max: int = 3) -> Breaker:
    """Cool-downs of exactly 10, 20 and 40 s: the jitter's source always gives the upper end."""
    return Breaker(failures_max, window_s=30, cooldown=Backoff(10, 40, 2, _Upper()))


class _Upper(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


def opened() -> Breaker:
    made = breaker()
    for now in (0.0, 1.0, 2.0):
        made.failure(now)
    return made


def half_opened() -> Breaker:
    made = opened()
    assert made.allow(12.0)
    return made


def state(made: Breaker) -> BreakerState:
    """Through a function, so that the type checker does not remember what it was."""
    return made.state


@pytest.mark.parametrize(
    ("start", "event", "becomes"),
    [
        ("closed", "allow", "closed"),
        ("closed", "success", "closed"),
        ("closed", "failure", "closed"),
        ("closed", "third_failure", "open"),
        ("open", "allow_early", "open"),
        ("open", "allow", "half_open"),
        ("open", "success", "open"),
        ("open", "failure", "open"),
        ("half_open", "allow_early", "half_open"),
        ("half_open", "success", "closed"),
        ("half_open", "failure", "open"),
    ],
)
def test_every_transition(start: str, event: str, becomes: str) -> None:
    made = {"closed": breaker, "open": opened, "half_open": half_opened}[start]()
    assert made.state == start
    match event:
        case "allow":
            assert made.allow(12.0)
        case "allow_early":
            assert not made.allow(11.9 if start == "open" else 41.9)
        case "success":
            made.success()
        case "failure":
            made.failure(12.0)
        case "third_failure":
            for now in (12.0, 13.0, 14.0):
                made.failure(now)
    assert made.state == becomes


def test_failures_outside_the_window_do_not_count() -> None:
    made = breaker()
    for now in (0.0, 1.0, 30.1, 30.9):
        made.failure(now)
        assert made.state == ("closed" if now < 30.9 else "open")


def test_a_failure_just_outside_does_not_open() -> None:
    made = breaker()
    for now in (0.0, 31.0, 60.0, 61.1):
        made.failure(now)
    assert made.state == "closed"


def test_only_one_probe_at_a_time() -> None:
    made = opened()
    assert [made.allow(12.0), made.allow(12.0), made.allow(40.0)] == [True, False, False]


def test_a_probe_that_never_reports_is_given_up() -> None:
    made = half_opened()
    assert made.allow(42.0)
    assert not made.allow(42.0)


def test_cool_downs_grow_while_probes_fail_and_start_over_after_success() -> None:
    made = opened()
    now = 2.0
    for cooldown_s in (10, 20, 40, 40):
        assert made.retry_in_s(now) == pytest.approx(cooldown_s)
        now += cooldown_s
        assert made.allow(now)
        made.failure(now)
    now += made.retry_in_s(now)
    assert made.allow(now)
    made.success()
    assert made.retry_in_s(now) == 0
    for _ in range(3):
        made.failure(now)
    assert made.retry_in_s(now) == pytest.approx(10)


def test_after_closing_old_failures_are_forgotten() -> None:
    made = half_opened()
    made.success()
    made.failure(12.5)
    made.failure(12.6)
    assert state(made) == "closed"


def test_cool_down_has_jitter() -> None:
    waits = set()
    for seed in range(20):
        made = Breaker(1, cooldown=Backoff(10, 40, rng=random.Random(seed)))
        made.failure(0)
        waits.add(made.retry_in_s(0))
        assert 5 <= made.retry_in_s(0) <= 10
    assert len(waits) == 20


@pytest.mark.parametrize(("failures_max", "window_s"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_senseless_values_are_refused(failures_max: int, window_s: float) -> None:
    with pytest.raises(ValueError, match="expected 1 or more"):
        Breaker(failures_max, window_s)


@given(st.lists(st.tuples(st.sampled_from(["allow", "success", "failure"]), st.floats(0, 20)), max_size=200))
def test_never_more_than_one_call_per_cool_down_while_not_closed(steps: list[tuple[str, float]]) -> None:
    made, now, allowed_at = breaker(), 0.0, -1e9
    for step, wait_s in steps:
        now += wait_s
        if step == "allow":
            was = made.state
            allowed = made.allow(now)
            if was != "closed" and allowed:
                assert now - allowed_at >= 10 - 1e-6
                allowed_at = now
        elif step == "success":
            made.success()
            allowed_at = -1e9 if made.state == "closed" else allowed_at
        else:
            made.failure(now)
        assert 0 <= made.retry_in_s(now) <= 40 + 1e-9  # a difference of floats
