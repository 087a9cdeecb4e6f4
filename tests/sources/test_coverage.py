"""Coverage is the union of what connections brought; Progress says what one surely brought."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.sources.coverage import Coverage, Hole
from headrace.sources.progress import Progress


def test_before_the_first_cover_nothing_is_lost() -> None:
    coverage = Coverage()
    assert coverage.begin("a", 100) is None
    assert coverage.end("a", 150) is None
    assert coverage.begin("a", 151) is None


def test_slots_between_two_covers_are_a_hole() -> None:
    coverage = Coverage()
    coverage.begin("a", 100)
    coverage.end("a", 150)
    assert coverage.begin("a", 161) == Hole(151, 160)


def test_another_live_cover_spares_the_hole() -> None:
    coverage = Coverage()
    coverage.begin("a", 100)
    coverage.begin("b", 110)
    assert coverage.end("a", 150) is None
    assert coverage.begin("a", 200) is None
    assert coverage.end("b", 230) is None


def test_a_cover_that_lagged_leaves_a_hole_before_one_that_began_later() -> None:
    coverage = Coverage()
    coverage.begin("slow", 100)
    coverage.begin("new", 141)
    assert coverage.end("slow", 120) == Hole(121, 140)


Step = tuple[bool, int, int]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(1, 9)), max_size=60))
def test_covered_and_holes_are_everything(steps: list[Step]) -> None:
    """A model with each slot counted by hand: after the last live cover joined up, no slot is neither in some cover nor
    in a hole."""
    coverage, slot, live = Coverage(), 100, dict[str, int]()
    covered: set[int] = set()
    first_promise: int | None = None
    for begins, number, pause in steps:
        slot += pause
        name = f"c{number}"
        hole = None
        if begins and name not in live:
            first_promise = slot if first_promise is None else first_promise
            live[name] = slot
            hole = coverage.begin(name, slot)
        elif not begins and name in live:
            last = slot - 1
            covered |= set(range(live.pop(name), last + 1))
            hole = coverage.end(name, last)
        if hole:
            covered |= set(range(hole.from_slot, hole.to_slot + 1))
        if live and first_promise is not None:
            now = covered | {each for start in live.values() for each in range(start, slot + 1)}
            assert set(range(first_promise, slot + 1)) <= now


def test_a_cover_begins_with_the_second_head_after_the_ack() -> None:
    progress = Progress("processed", margin_slots=8)
    assert progress.slot(100, 60, 100) == []
    progress.acknowledged("logs:x")
    assert progress.slot(101, 60, 101) == []
    assert progress.slot(99, 60, 105) == [("logs:x", 106)]  # another connection had heard of 105
    assert progress.slot(106, 60, 106) == []
    assert progress.first("logs:x") == 106


def progress_at(commitment: str) -> Progress:
    progress = Progress(commitment, margin_slots=8)  # type: ignore[arg-type]
    progress.acknowledged("busy")
    progress.acknowledged("quiet")
    progress.slot(100, 60, 100)
    progress.slot(101, 61, 101)
    progress.brought("busy", 198)
    progress.brought("busy", 150)
    progress.slot(200, 160, 200)
    return progress


def test_what_was_surely_brought_depends_on_the_commitment() -> None:
    assert progress_at("processed").surely() == {"busy": 192, "quiet": 192}
    assert progress_at("confirmed").surely() == {"busy": 190, "quiet": 160}
    assert progress_at("finalized").surely() == {"busy": 190, "quiet": 101}
    assert progress_at("processed").surely(trust_head=False) == {"busy": 190, "quiet": 101}


def test_a_forgotten_feed_has_no_cover() -> None:
    progress = progress_at("processed")
    progress.forget("busy")
    assert progress.surely() == {"quiet": 192}


def quiet_and_listed() -> Progress:
    progress = Progress("processed", margin_slots=8)
    for feed in ("quiet", "brought"):
        progress.acknowledged(feed, listed=True)
    progress.acknowledged("of no list")
    progress.slot(100, 60, 100)
    progress.slot(101, 61, 101)
    progress.brought("brought", 150)
    progress.slot(200, 160, 200)
    return progress


def test_heads_prove_nothing_of_a_feed_that_the_ledger_lists() -> None:
    progress = quiet_and_listed()
    assert progress.surely() == {"quiet": 101, "brought": 142, "of no list": 192}
    assert progress.surely(alive=("quiet",)) == {"quiet": 192, "brought": 142, "of no list": 192}


@pytest.mark.parametrize(("ledger", "reached"), [(90, 101), (170, 170), (192, 192), (193, 192), (6_000, 192)])
def test_what_the_ledger_bore_out_counts_as_brought_as_far_as_the_node_is(ledger: int, reached: int) -> None:
    progress = quiet_and_listed()
    progress.borne_out("quiet", ledger)
    progress.borne_out("quiet", 80)
    assert progress.surely()["quiet"] == reached


def test_what_was_borne_out_of_slots_that_never_were_is_taken_back() -> None:
    progress = quiet_and_listed()
    progress.borne_out("quiet", 190)
    progress.slot(120, 61, 120)
    assert progress.surely()["quiet"] == 120


def test_nothing_is_borne_out_of_a_feed_before_its_cover_begins_or_after_it_is_forgotten() -> None:
    progress = quiet_and_listed()
    progress.acknowledged("new", listed=True)
    progress.borne_out("new", 150)
    progress.borne_out("quiet", 150)
    progress.forget("quiet")
    progress.acknowledged("quiet", listed=True)
    progress.slot(201, 160, 201)
    progress.slot(202, 160, 202)
    assert progress.surely() == {"quiet": 202, "new": 202, "brought": 142, "of no list": 194}
