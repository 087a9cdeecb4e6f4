"""Alarms ring once, never early, within a second, and leave nothing behind."""

import math

from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.door.deadlines import HORIZON_S, Alarms

times = st.floats(0, 500) | st.just(math.inf)


@given(st.lists(st.tuples(st.integers(0, 5), times), max_size=30), st.lists(st.floats(0, 20), max_size=60))
def test_against_a_plain_dictionary(wishes: list[tuple[int, float]], steps_s: list[float]) -> None:
    alarms: Alarms[int] = Alarms()
    wanted: dict[int, float] = {}
    for key, at_s in wishes:
        alarms.set(key, at_s, 0.0)
        wanted[key] = at_s
    wanted = {key: at_s for key, at_s in wanted.items() if at_s < math.inf}
    now_s = 0.0
    for step_s in steps_s:
        now_s += step_s
        for key in alarms.due(now_s):
            assert wanted.pop(key) <= now_s
        assert all(at_s > now_s - 1 for at_s in wanted.values())
        assert len(alarms) == len(wanted)
    for key in list(wanted):
        alarms.clear(key)
        alarms.clear(key)
    assert (len(alarms), vars(alarms)["_due"]) == (0, {})


def test_a_far_alarm_rings_early() -> None:
    alarms: Alarms[str] = Alarms()
    alarms.set("far", 1e12, 10.0)
    assert alarms.due(10.0 + HORIZON_S - 1) == []
    assert alarms.due(10.0 + HORIZON_S) == ["far"]


def test_alarms_ring_in_order() -> None:
    alarms: Alarms[int] = Alarms()
    for at_s in (30, 10, 20):
        alarms.set(at_s, at_s, 0)
    assert alarms.due(100) == [10, 20, 30]
