"""Which slots count as a head, and how a head comes down again."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.sources.head import APART, BORNE_OUT, NEAR, STEP, Climb, Heads

WILD = (50, 400, 5_000, 900_000, 2**62)


def climbed(*slots: int) -> Climb:
    climb = Climb()
    for slot in slots:
        climb.hear(slot, 0.0)
    return climb


def test_the_first_slot_counts_when_the_next_bears_it_out() -> None:
    climb = Climb()
    assert not climb.hear(1000, 0)
    assert climb.slot == 0
    assert climb.hear(1001, 0)
    assert climb.slot == 1001


def test_the_first_slot_counts_at_once_where_another_witness_is_near() -> None:
    assert Climb().hear(1000, 0, others=1000 + NEAR)
    assert not Climb().hear(1000, 0, others=1001 + NEAR)
    assert Climb().hear(1000, 0, others=1000 - STEP)
    assert not Climb().hear(1000, 0, others=999 - STEP)
    assert Climb().hear(1000, 5.0, others=900, others_at=-12.0)


@pytest.mark.parametrize("wild", WILD)
def test_one_wild_slot_never_counts(wild: int) -> None:
    climb = climbed(1000, 1001, 1001 + wild)
    assert climb.slot == 1001
    assert climb.hear(1002, 0)
    assert (climb.slot, climb.wild, climb.wildest) == (1002, 1, 1001 + wild)


@pytest.mark.parametrize("wild", WILD)
def test_a_wild_first_slot_never_counts(wild: int) -> None:
    climb = climbed(1000 + wild, 1001, 1002)
    assert (climb.slot, climb.wild) == (1002, 1)


@pytest.mark.parametrize("wild", WILD)
def test_wild_slots_between_others_never_count(wild: int) -> None:
    climb = climbed(1000, 1001)
    for slot in range(1002, 1050):
        climb.hear(slot + wild, 0)
        assert climb.hear(slot, 0)
        assert climb.slot == slot


@pytest.mark.parametrize("wild", WILD)
def test_a_jump_counts_when_the_next_slots_bear_it_out_and_is_taken_back_when_they_go_on_below(wild: int) -> None:
    climb = climbed(1000, 1001)
    heard = [climb.hear(1001 + wild + ahead, 0) for ahead in range(BORNE_OUT)]
    assert heard == [False] * (BORNE_OUT - 1) + [True]
    assert climb.slot == 1001 + wild + BORNE_OUT - 1
    for slot in range(1002, 1002 + BORNE_OUT):
        climb.hear(slot, 0)
    assert climb.slot == 1001 + BORNE_OUT
    assert climb.wild == 1


def test_the_same_slot_again_bears_nothing_out() -> None:
    climb = climbed(1000, 1001, *[9000] * 10)
    assert climb.slot == 1001


def test_skipped_slots_count_at_once_and_many_more_after_a_silence() -> None:
    climb = climbed(1000, 1001)
    assert climb.hear(1001 + STEP, 0)
    assert climb.hear(1001 + STEP + 100, 20.0)
    assert climb.slot == 1101 + STEP


def test_late_slots_of_a_fork_do_not_lower_the_head() -> None:
    climb = climbed(*range(1000, 1010))
    assert climb.hear(1003, 0)
    assert climb.hear(990, 0)
    assert climb.slot == 1009
    assert climb.hear(980, 0, others=985)
    assert (climb.slot, climb.wild) == (1009, 0)


@given(st.lists(st.integers(0, 2**62), max_size=60))
def test_whatever_is_said_the_truth_counts_again_after_three_slots(said: list[int]) -> None:
    climb = climbed(1000, 1001, *said)
    for slot in range(5_000_000, 5_000_000 + BORNE_OUT):
        climb.hear(slot, 0)
    assert climb.slot == 5_000_000 + BORNE_OUT - 1


def heads(**witnesses: int) -> Heads:
    known = Heads()
    for name, slot in witnesses.items():
        for ahead in range(BORNE_OUT):
            known.hear(name, slot + ahead, 0)
    return known


@pytest.mark.parametrize("order", tuple(itertools.permutations(("a", "b", "http"))))
def test_a_witness_that_two_others_contradict_does_not_count(order: tuple[str, ...]) -> None:
    slots = {"a": 1000, "b": 900_000, "http": 990}
    known = heads(**{name: slots[name] for name in order})
    assert known.slot == 1002
    assert known.contradicted() == {"b"}
    assert known.ahead() == {"b": 900_002 - 1002}
    assert not known.hear("b", 900_003, 0)
    assert known.hear("a", 1003, 0)
    assert (known.others("a", 0), known.others("b", 0)) == (992, 1003)


def test_of_two_that_contradict_each_other_the_lower_is_believed_and_both_count() -> None:
    known = heads(a=1000, b=900_000)
    assert known.slot == 1002
    assert known.contradicted() == set()
    assert known.hear("b", 900_003, 0)
    assert known.ahead() == {"b": 900_003 - 1002}


def test_the_head_is_the_highest_of_those_that_agree() -> None:
    assert heads(a=1000, b=1000 + APART - 10).slot == 1002 + APART - 10


def test_without_witnesses_the_last_head_stands_and_new_ones_near_it_count_at_once() -> None:
    known = heads(a=1000)
    known.forget("a")
    assert known.slot == 1002
    assert known.hear("b", 1003, 0)
    known.forget("b")
    assert not known.hear("c", 5000, 0)


def test_what_is_delivered_can_not_be_far_beyond_the_head() -> None:
    known = heads(a=1000)
    assert known.can_be(1002 + APART, "a", 0)
    assert not known.can_be(1003 + APART, "a", 0)
    assert not known.can_be(1003 + APART, "b", 0)
    assert Heads().can_be(2**62, "a", 0)
