"""The fork tracker against a brute-force reading of the same facts, in any order, with repeats and holes."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.ingest.slots import SlotTracker
from headrace.model.facts import Confirmed, Dead, Finalized, Verdict
from headrace.model.updates import SlotStatus, SlotUpdate


def news(slot: int, status: SlotStatus, parent: int | None = None, source: str = "rpc-0") -> SlotUpdate:
    return SlotUpdate(source=source, feed="slots", received_ns=0, slot=slot, status=status, parent=parent)


def fed(*updates: SlotUpdate, kept: int = 512) -> list[Verdict]:
    tracker = SlotTracker(kept)
    return [verdict for update in updates for verdict in tracker.apply(update)]


def brute_force(updates: list[SlotUpdate]) -> set[Verdict]:
    """All verdicts that the facts imply, whatever their order, in a world without contradictions."""
    parents = {u.slot: u.parent for u in updates if u.parent is not None}

    def with_ancestors(slots: set[int]) -> set[int]:
        while not slots >= (more := {parents[s] for s in slots if s in parents}):
            slots = slots | more
        return slots

    finalized = with_ancestors({u.slot for u in updates if u.status == "finalized"})
    confirmed = with_ancestors({u.slot for u in updates if u.status == "confirmed"} | finalized)
    known = {u.slot for u in updates} | confirmed
    given_up = {u.slot for u in updates if u.status == "dead"}
    passed = {s for s in known - confirmed for c in confirmed if c in parents and parents[c] < s < c}
    verdicts: set[Verdict] = {Dead(s, "dead_slot") for s in given_up}
    verdicts |= {Dead(s, "fork") for s in passed - given_up}
    return verdicts | {Confirmed(s) for s in confirmed} | {Finalized(s) for s in finalized}


def by_slot(verdicts: set[Verdict] | list[Verdict]) -> set[tuple[str, int]]:
    return {(type(verdict).__name__, verdict.slot) for verdict in verdicts}


@st.composite
def worlds(draw: st.DrawFn) -> list[SlotUpdate]:
    """A tree of slots with one kept chain; slots off the chain may die; news shuffled, lost, doubled."""
    size = draw(st.integers(2, 12))
    parents = {slot: draw(st.integers(max(0, slot - 4), slot - 1)) for slot in range(1, size)}
    tip: int | None = draw(st.integers(1, size - 1))
    chain = []
    while tip is not None:
        chain.append(tip)
        tip = parents.get(tip)
    updates = [news(slot, "processed", parents[slot]) for slot in parents]
    updates += [news(slot, "confirmed") for slot in draw(st.lists(st.sampled_from(chain)))]
    updates += [news(slot, "finalized") for slot in draw(st.lists(st.sampled_from(chain)))]
    doomed = sorted(set(parents) - set(chain))
    if doomed:
        updates += [news(slot, "dead") for slot in draw(st.lists(st.sampled_from(doomed)))]
    return draw(st.lists(st.sampled_from(updates), max_size=40))


@given(worlds())
def test_same_verdicts_as_brute_force_in_any_order(updates: list[SlotUpdate]) -> None:
    verdicts = fed(*updates)
    assert by_slot(verdicts) == by_slot(brute_force(updates))
    assert len(verdicts) == len(set(by_slot(verdicts))), "a verdict came twice"


def test_every_order_of_a_fork_gives_the_same_verdicts() -> None:
    updates = [
        news(1, "processed", 0),
        news(2, "processed", 1),
        news(3, "processed", 1),
        news(4, "processed", 3),
        news(4, "confirmed"),
        news(3, "finalized"),
        news(2, "dead"),
    ]
    for order in permutations(updates):
        assert by_slot(fed(*order)) == by_slot(brute_force(updates))


@given(
    st.lists(
        st.builds(
            news,
            st.integers(0, 30),
            st.sampled_from(["processed", "confirmed", "finalized", "dead"]),
            st.none() | st.integers(0, 31),
            st.sampled_from(["a", "b"]),
        )
    ),
    st.integers(1, 20),
)
def test_contradictions_never_repeat_a_verdict_nor_grow_the_memory(updates: list[SlotUpdate], kept: int) -> None:
    tracker = SlotTracker(kept)
    verdicts = [verdict for update in updates for verdict in tracker.apply(update)]
    assert len(verdicts) == len(by_slot(verdicts))
    assert len(tracker._slots) == len(tracker._numbers) <= kept
    finalized = {verdict.slot for verdict in verdicts if isinstance(verdict, Finalized)}
    assert finalized <= {verdict.slot for verdict in verdicts if isinstance(verdict, Confirmed)}


def test_confirmation_reaches_ancestors_and_passes_the_fork_by() -> None:
    verdicts = fed(
        news(10, "processed", 9), news(11, "processed", 10), news(12, "processed", 10), news(12, "confirmed")
    )
    assert verdicts == [Confirmed(9), Confirmed(10), Dead(11, "fork"), Confirmed(12)]


def test_first_news_of_a_slot_that_was_passed_by() -> None:
    assert fed(news(12, "confirmed", 10), news(11, "processed", 10))[-1] == Dead(11, "fork")


def test_confirmed_slot_dies_only_by_a_finalized_chain() -> None:
    fork = [news(11, "processed", 10), news(11, "confirmed"), news(12, "processed", 10)]
    assert Dead(11, "fork") not in fed(*fork, news(11, "dead"), news(12, "confirmed"))
    assert Dead(11, "fork") in fed(*fork, news(12, "finalized"))


def test_dead_slot_that_the_cluster_confirms_was_another_version() -> None:
    tracker = SlotTracker()
    assert tracker.apply(news(5, "dead")) == [Dead(5, "dead_slot")]
    assert tracker.status(5) == "dead"
    assert tracker.apply(news(5, "confirmed")) == [Confirmed(5)]
    assert tracker.status(5) == "confirmed"


@pytest.mark.parametrize("other", ["rpc-1", "rpc-0"])
def test_bank_created_again_by_the_same_source_wipes_the_slot(other: str) -> None:
    tracker = SlotTracker()
    assert tracker.apply(news(5, "created_bank", 4)) == []
    again = tracker.apply(news(5, "created_bank", 3, other))
    assert again == ([] if other == "rpc-1" else [Dead(5, "equivocation")])
    assert tracker.apply(news(5, "dead")) == [Dead(5, "dead_slot")]
    assert tracker.apply(news(5, "created_bank", 4)) == [], "wiped while dead: nothing to take back"
    assert tracker.status(5) == "processed"
    assert tracker.apply(news(5, "confirmed")) == [Confirmed(4), Confirmed(5)]
    assert tracker.apply(news(5, "created_bank", 4)) == [], "a confirmed bank stays"


def test_forgotten_slots_decide_nothing() -> None:
    tracker = SlotTracker(kept=2)
    for slot in (1, 2, 3):
        tracker.apply(news(slot, "processed", slot - 1))
    assert tracker.apply(news(1, "dead")) == []
    assert tracker.apply(news(3, "finalized")) == [Confirmed(2), Finalized(2), Confirmed(3), Finalized(3)]
    assert tracker.head == {"processed": 3, "finalized": 3}


def test_parent_above_its_child_is_not_believed() -> None:
    assert fed(news(5, "confirmed", 9)) == [Confirmed(5)]
