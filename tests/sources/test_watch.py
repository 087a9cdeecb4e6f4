"""The watch gives up what stands, not what is quiet because the chain is."""

from headrace.sources.progress import Watch


def watch() -> Watch:
    return Watch(0.0, stall_s=10.0, stall_slots=32)


def test_a_connection_with_new_slots_is_kept() -> None:
    well = watch()
    for now in range(100):
        well.message(now)
        well.slot(1000 + now, now)
        assert well.verdict(now + 0.5) is None


def test_silence_longer_than_the_patience_is_a_stall() -> None:
    assert watch().verdict(10.0) is None
    assert watch().verdict(10.1) == "silent"


def test_messages_without_new_slots_are_a_standing_head() -> None:
    standing = watch()
    standing.slot(1000, 0)
    standing.message(10)
    standing.slot(999, 10)
    assert standing.verdict(10.1) == "head_stands"


def test_a_head_left_behind_is_found_before_the_silence_is() -> None:
    left = watch()
    left.slot(1000, 0)
    left.witness(1032, 6)
    assert left.verdict(6) is None
    left.witness(1033, 6)
    assert left.lag_slots == 33
    assert left.verdict(6) == "behind"


def test_a_stream_that_lags_but_moves_is_kept() -> None:
    slow = watch()
    slow.message(6)
    slow.slot(1000, 6)
    slow.witness(2000, 6)
    assert slow.verdict(7) is None


def test_a_chain_that_stands_is_waited_for_but_not_for_ever() -> None:
    quiet = watch()
    quiet.slot(1000, 0)
    for now in range(0, 60, 5):
        quiet.witness(1000, now)
        assert quiet.verdict(now) is None
    quiet.witness(1000, 61)
    assert quiet.verdict(61) == "silent"
    quiet.witness(1000, 62)
    assert quiet.verdict(75) == "silent"  # the witness itself is old
