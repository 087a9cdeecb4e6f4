"""How fast a node is asked: never above the limit, less after refusals, and more again while it answers."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.sources.fetch_queue import LEAST_PER_S, START_PER_S, Pace


def used_up(pace: Pace, *, from_s: float, seconds: int) -> list[int]:
    """Calls made in each second by one who always wants more, and whose calls are all answered."""
    made = []
    for second in range(seconds):
        calls = 0
        for tick in range(20):
            taken = pace.take(1000, from_s + second + tick / 20)
            pace.answered(taken)
            calls += taken
        made.append(calls)
    return made


def test_a_node_that_answers_is_soon_asked_at_the_limit() -> None:
    made = used_up(Pace(200), from_s=0, seconds=10)
    assert made[0] < 2 * START_PER_S + 1
    assert made[-1] == 200


def test_a_refusal_halves_the_rate_and_it_grows_slowly_from_there() -> None:
    pace = Pace(200)
    used_up(pace, from_s=0, seconds=10)
    pace.refused(10)
    pace.refused(10.5)  # a call that was under way with it
    assert pace.per_s == 100
    made = used_up(pace, from_s=11, seconds=5)
    assert 100 <= made[1] <= made[4] <= 110


def test_refusals_for_ever_leave_a_call_now_and_then() -> None:
    pace = Pace(200)
    for second in range(1000):
        pace.refused(second)
    assert pace.per_s == LEAST_PER_S
    assert pace.take(100, 1002) == 1


@given(
    st.floats(0.5, 1000),
    st.lists(st.tuples(st.sampled_from(["take", "answered", "refused"]), st.floats(0, 5), st.integers(0, 500))),
)
def test_whatever_happens_no_more_is_taken_than_the_limit_allows(
    most: float, happenings: list[tuple[str, float, int]]
) -> None:
    pace, now, taken = Pace(most), 0.0, 0
    for what, passed, number in happenings:
        now += passed
        if what == "take":
            taken += pace.take(number, now)
        elif what == "answered":
            pace.answered(number)
        else:
            pace.refused(now)
        assert LEAST_PER_S <= pace.per_s <= most
    assert taken <= most * now + max(1.0, most / 2) + 1
