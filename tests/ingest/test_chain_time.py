"""Slots are as long as their times say, and no wild time skews that."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from headrace.ingest.chain_time import SLOT_S_MAX, SLOT_S_MIN, SPAN_MIN, TIME_S_MAX, ChainTime
from headrace.model.updates import LogsUpdate, TransactionUpdate

START = 1_790_000_000


def whole(slot: int, block_time_s: int | None) -> TransactionUpdate:
    return TransactionUpdate(
        source="rpc-0", feed="f", received_ns=7 * 10**9, slot=slot, signature="s", err=None, version=0, account_keys=(),
        instructions=(), logs=None, block_time_s=block_time_s,
    )  # fmt: skip


def lines(slot: int) -> LogsUpdate:
    return LogsUpdate(source="rpc-0", feed="f", received_ns=7 * 10**9, slot=slot, signature="s", err=None, logs=())


def learned(slot_s: float, slots: int = 1_000, times: ChainTime | None = None) -> ChainTime:
    """After a chain whose slots took so long, each with a block time."""
    times = times or ChainTime()
    for slot in range(0, slots, 5):
        assert times.of(whole(slot, START + int(slot * slot_s)), {}) == START + int(slot * slot_s)
    return times


@given(st.floats(0.15, 0.45), st.integers(-300, 300))
def test_slots_without_a_time_are_reckoned_by_the_learned_length(slot_s: float, ahead: int) -> None:
    times = learned(slot_s)
    at = 995 + ahead
    assert abs(times.of(lines(at), {}) - (START + at * slot_s)) <= 2 + abs(ahead) * 0.01


def test_before_anything_is_learned_no_slot_is_taken_for_400_ms() -> None:
    times = ChainTime()
    times.of(whole(1_000, START), {})
    assert times.of(lines(2_000), {}) - START in range(200, 351)


def test_slots_that_become_shorter_are_followed() -> None:
    times = learned(0.4, 8_000)
    base = START + int(7_995 * 0.4)
    for slot in range(0, 9_000, 5):
        times.of(whole(7_995 + slot, base + int(slot * 0.2)), {})
    assert abs(times.slot_s - 0.2) < 0.01


def test_the_stamp_of_an_event_counts_as_a_time() -> None:
    times = ChainTime()
    for slot in range(0, 1_000, 5):
        assert times.of(lines(slot), {"timestamp": START + slot // 4}) == START + slot // 4
    assert abs(times.of(lines(1_400), {}) - (START + 350)) <= 2


@given(st.one_of(st.integers(1, TIME_S_MAX - 1), st.integers(-(2**63), 2**63 - 1)), st.integers(-50, 50))
def test_one_wild_time_skews_no_other(time_s: int, slot: int) -> None:
    times = learned(0.25)
    at = 1_000 + slot
    times.of(whole(at, time_s), {})
    assert abs(times.of(lines(at), {}) - (START + at * 0.25)) <= 200
    for later in range(1_060, 1_400, 5):
        assert times.of(whole(later, START + later // 4), {}) == START + later // 4
    assert abs(times.of(lines(1_500), {}) - (START + 375)) <= 3


def test_two_times_that_agree_are_believed() -> None:
    """The chain stood still for a day, or the first time of all was wild."""
    times = learned(0.25)
    for _ in range(2):
        times.of(whole(1_000, START + 86_400), {})
        assert times.of(lines(1_000), {}) < START + 300, "the same slot is no second one"
    times.of(whole(1_001, START + 86_400), {})
    assert abs(times.of(lines(1_101), {}) - (START + 86_425)) <= 10


@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.one_of(st.none(), st.integers(-10, 2**64))), max_size=60), st.data()
)
def test_any_times_leave_the_length_within_its_bounds(told: list[tuple[int, int | None]], data: st.DataObject) -> None:
    times = ChainTime()
    stamps: list[Any] = [None, "x", 1.5, -1, 2**70]
    for slot, time_s in told:
        got = times.of(whole(slot, time_s), {"timestamp": data.draw(st.sampled_from(stamps))})
        assert got >= 0
        assert SLOT_S_MIN <= times.slot_s <= SLOT_S_MAX


def test_a_length_needs_slots_far_enough_apart() -> None:
    times = ChainTime()
    before = times.slot_s
    times.of(whole(0, START), {})
    times.of(whole(SPAN_MIN - 1, START + 30), {})
    assert times.slot_s == before
    times.of(msgspec.structs.replace(whole(SPAN_MIN, START + 64)), {})
    assert times.slot_s == 0.25
