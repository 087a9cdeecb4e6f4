"""Slot verdicts from getBlocks answers."""

from headrace.sources.confirm import SPAN_MAX, Confirmations


def chain(*slots: tuple[int, int]) -> Confirmations:
    confirmations = Confirmations()
    for slot, parent in slots:
        confirmations.processed(slot, parent)
    return confirmations


def test_without_waiting_slots_no_range_is_asked_for() -> None:
    assert Confirmations().span() is None


def test_listed_is_confirmed_and_passed_over_is_dead() -> None:
    confirmations = chain((10, 9), (11, 10), (12, 10), (13, 12), (14, 13))
    assert confirmations.span() == (10, 14)
    assert confirmations.listed([10, 12, 13], (10, 14)) == [
        (10, "confirmed", 9),
        (11, "dead", 10),
        (12, "confirmed", 10),
        (13, "confirmed", 12),
    ]
    assert confirmations.span() == (14, 14)
    assert confirmations.listed([], (14, 14)) == []
    assert confirmations.listed([14], (14, 14)) == [(14, "confirmed", 13)]
    assert confirmations.span() is None


def test_a_block_that_the_node_lacks_is_confirmed_by_its_child() -> None:
    confirmations = chain((10, 9), (11, 10), (12, 11))
    assert [verdict[:2] for verdict in confirmations.listed([12], (10, 12))] == [
        (10, "confirmed"),
        (11, "confirmed"),
        (12, "confirmed"),
    ]


def test_a_slot_that_was_not_seen_gets_its_parent_from_the_list() -> None:
    confirmations = chain((10, 9), (15, 12))
    assert confirmations.listed([10, 12, 15], (10, 15)) == [
        (10, "confirmed", 9),
        (12, "confirmed", 10),
        (15, "confirmed", 12),
    ]


def test_listed_slots_outside_the_range_are_ignored() -> None:
    assert chain((10, 9)).listed([9, 11], (10, 10)) == []


def test_a_slot_that_is_never_confirmed_is_given_up() -> None:
    confirmations = chain(*((slot, slot - 1) for slot in range(1, 2000)))
    span = confirmations.span()
    assert span is not None
    assert span[1] - span[0] < SPAN_MAX


def test_a_late_slot_that_is_settled_is_ignored() -> None:
    confirmations = chain((10, 9))
    confirmations.listed([10], (10, 10))
    confirmations.processed(8, 7)
    assert confirmations.span() is None


def test_without_parents_the_list_alone_decides() -> None:
    confirmations = Confirmations()
    for slot in (10, 12, 11, 14):
        confirmations.processed(slot)
    assert confirmations.span() == (10, 14)
    assert confirmations.listed([10, 12], (10, 14)) == [
        (10, "confirmed", None),
        (11, "dead", None),
        (12, "confirmed", 10),
    ]
    assert confirmations.span() == (13, 14)


def test_a_known_parent_is_not_forgotten() -> None:
    confirmations = chain((10, 9))
    confirmations.processed(10)
    assert confirmations.listed([10], (10, 10)) == [(10, "confirmed", 9)]


def test_nothing_piles_up_where_nobody_asks() -> None:
    assert len(chain(*((slot, slot - 1) for slot in range(1, 2000)))._parents) <= SPAN_MAX
