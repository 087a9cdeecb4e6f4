"""The same fact twice is published once; different facts never hide each other; memory is bounded."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from headrace.ingest.dedupe import (
    CUT_LOGS,
    INSTRUCTIONS,
    LOGS,
    AccountDedupe,
    Place,
    SeenTransaction,
    Standing,
    TransactionDedupe,
)


def test_a_view_that_shows_nothing_more_is_refused() -> None:
    dedupe = TransactionDedupe()
    assert dedupe.admit(1, "s", CUT_LOGS)
    assert not dedupe.admit(1, "s", CUT_LOGS)
    assert dedupe.admit(1, "s", LOGS)
    assert not dedupe.admit(1, "s", CUT_LOGS)
    assert dedupe.admit(1, "s", INSTRUCTIONS), "a transaction without logs still shows its instructions"
    assert not dedupe.admit(1, "s", LOGS | INSTRUCTIONS)
    assert dedupe.admit(2, "s", LOGS), "in another slot it is another fact"
    dedupe.forget(1)
    assert dedupe.admit(1, "s", LOGS), "the slot died and happens anew"


def publish(seen: SeenTransaction, view: Sequence[str], places: Sequence[Place]) -> list[tuple[str, Place]]:
    """What of the view is published, and under which place; all of it is finished then."""
    standings = seen.standings_of(view, places)
    seen.note(view, [Standing(standing.place, "all") for standing in standings])
    new = [(event, s.place) for event, s in zip(view, standings, strict=True) if s.extent == "nothing"]
    assert len(standings) == len({standing.place for standing in standings}), "two events under one place"
    return new


@given(st.lists(st.sampled_from("abc")), st.data())
def test_any_order_of_views_publishes_each_event_once(happened: list[str], data: st.DataObject) -> None:
    """Views may lack any of the events, also in the middle, as cut logs do, and count places in their own way."""
    published: list[tuple[str, Place]] = []
    shown: Counter[str] = Counter()
    seen = SeenTransaction(LOGS)
    for _ in range(data.draw(st.integers(1, 4))):
        view = [event for event in happened if data.draw(st.booleans())]
        first = data.draw(st.integers(0, 1))
        published += publish(seen, view, [((first,), ordinal) for ordinal in range(len(view))])
        shown |= Counter(view)
    assert Counter(event for event, _ in published) == shown <= Counter(happened)
    assert len({place for _, place in published}) == len(published), "one place for two events"


def test_an_event_keeps_the_place_under_which_it_was_published() -> None:
    seen = SeenTransaction(LOGS)
    assert publish(seen, ["a"], [((1,), 0)]) == [("a", ((1,), 0))]
    assert publish(seen, ["new", "a"], [((1,), 0), ((1,), 1)]) == [("new", ((1,), 1))]
    assert seen.standings_of(["a"], [((2,), 0)]) == [Standing(((1,), 0), "all")]


def test_what_is_not_finished_is_known_to_the_next_view() -> None:
    seen = SeenTransaction(LOGS)
    place: Place = ((1,), 0)
    assert seen.standings_of(["a"], [place]) == [Standing(place, "nothing")]
    seen.note(["a"], [Standing(place, "trade")])
    assert seen.standings_of(["a"], [place]) == [Standing(place, "trade")]


def test_nothing_is_kept_of_a_transaction_that_no_view_can_add_to() -> None:
    seen = SeenTransaction(LOGS | INSTRUCTIONS)
    publish(seen, ["a"], [((1,), 0)])
    assert (seen.identities, seen.standings) == ((), ())


def test_transactions_are_bounded_by_number_and_by_slots() -> None:
    dedupe = TransactionDedupe(slots_max=2, transactions_max=5)
    for slot in range(100):
        for number in range(slot % 7):
            dedupe.admit(slot, f"s{number}", LOGS)
            assert len(dedupe) <= 5
            assert not dedupe.admit(slot, f"s{number}", LOGS)


def test_a_backfill_far_behind_still_finds_what_was_live() -> None:
    dedupe = TransactionDedupe(slots_max=8)
    dedupe.admit(100, "before the outage", LOGS)
    for slot in range(90_000, 90_005):
        dedupe.admit(slot, "after", LOGS)
    assert not dedupe.admit(100, "before the outage", LOGS)
    assert dedupe.admit(101, "in the outage", LOGS)


def told(*pieces: str) -> list[tuple[str, int]]:
    """Each piece is a feed and a content; gives what is published, with its version."""
    dedupe = AccountDedupe()
    versions = [(piece[1], dedupe.admit(1, "k", piece[0], piece[1])) for piece in pieces]
    return [(content, version) for content, version in versions if version is not None]


def test_two_feeds_tell_the_same_versions_once() -> None:
    assert told("1A", "2A", "1B", "2B") == [("A", 0), ("B", 1)]
    assert told("1A", "1B", "1A", "2A", "2B", "2A") == [("A", 0), ("B", 1), ("A", 2)], "back to A is a version"
    assert told("1A", "1A", "1B") == [("A", 0), ("B", 1)], "a repeat"
    assert told("1A", "1C", "2C", "2D", "1D") == [("A", 0), ("C", 1), ("D", 2)], "a feed that missed one"


@given(st.lists(st.sampled_from("ABC"), min_size=1).filter(lambda v: all(a != b for a, b in pairwise(v))))
def test_a_second_feed_adds_nothing(versions: list[str]) -> None:
    dedupe = AccountDedupe()
    assert [dedupe.admit(1, "k", "one", v) for v in versions] == list(range(len(versions)))
    assert [dedupe.admit(1, "k", "two", v) for v in versions] == [None] * len(versions)


def test_accounts_are_bounded_and_kept_apart_by_slot() -> None:
    dedupe = AccountDedupe(slots_max=3, versions_max=10)
    for number in range(50):
        assert dedupe.admit(number // 20, "k", "one", number) is not None
        assert len(dedupe) <= 10
    assert dedupe.admit(9, "k", "one", 49) == 0
    dedupe.forget(9)
    assert dedupe.admit(9, "k", "one", 49) == 0
