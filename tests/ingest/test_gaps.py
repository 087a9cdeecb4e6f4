"""A gap is told on the topics it concerns, each of its states once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.ingest.gaps import FeedTopics, GapLedger
from headrace.model.facts import Gap
from headrace.model.updates import GapState, GapUpdate

PUMP = "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P"


def gap(gap_id: str, low: int, high: int, state: GapState, source: str = "rpc-0") -> GapUpdate:
    return GapUpdate(
        source=source,
        feed=f"logs:{PUMP}",
        received_ns=0,
        slot=high,
        gap_id=gap_id,
        from_slot=low,
        to_slot=high,
        state=state,
    )


def test_each_state_once_and_the_end_is_final() -> None:
    ledger = GapLedger()
    assert ledger.apply(gap("g", 3, 9, "open")) == Gap("g", 3, 9, "open", "")
    assert ledger.apply(gap("g", 4, 8, "open")) is None
    assert ledger.apply(gap("g", 1, 9, "open")) == Gap("g", 1, 9, "open", ""), "a stretch that grew is told"
    assert ledger.apply(gap("g", 3, 9, "open", "rpc-1")) is not None, "another source's gap"
    assert ledger.apply(gap("g", 3, 9, "backfilled")) == Gap("g", 1, 9, "backfilled", ""), "for the whole stretch"
    assert ledger.apply(gap("g", 3, 9, "unrecoverable")) is None
    assert ledger.apply(gap("g", 0, 99, "open")) is None
    assert ledger.apply(gap("h", 9, 3, "unrecoverable")) == Gap("h", 3, 9, "unrecoverable", "")


@given(
    st.lists(
        st.builds(
            gap,
            st.sampled_from("gh"),
            st.integers(0, 9),
            st.integers(0, 9),
            st.sampled_from(["open", "backfilled", "unrecoverable"]),
        )
    )
)
def test_what_was_declared_is_never_forgotten(updates: list[GapUpdate]) -> None:
    ledger, told = GapLedger(), dict[str, list[Gap]]()
    for update in updates:
        if said := ledger.apply(update):
            told.setdefault(said.gap_id, []).append(said)
            assert said.from_slot <= min(update.from_slot, update.to_slot)
            assert said.to_slot >= max(update.from_slot, update.to_slot)
    for gaps in told.values():
        assert all(one.state == "open" for one in gaps[:-1])
        assert len(gaps) == len(set(gaps))


def test_gaps_are_bounded() -> None:
    ledger = GapLedger(gaps_max=2)
    for name in "abc":
        ledger.apply(gap(name, 1, 2, "open"))
    assert len(ledger._gaps) == 2
    assert ledger.apply(gap("a", 1, 2, "backfilled")) == Gap("a", 1, 2, "backfilled", "")


@pytest.mark.parametrize(
    ("feed", "topics"),
    [
        (
            f"logs:{PUMP}",
            ["events:pump", "market-data:M3", "token_updates", "trades:M1", "trades:M2", "trades:pump", "tx:pump"],
        ),
        (f"program:{PUMP}", ["account:A1", "accounts:pump"]),
        (f"program:{PUMP}?dataSize=151", ["account:A1", "accounts:pump"]),
        ("account:A2", ["account:A2", "accounts:pump"]),
        ("slots", ["slots"]),
        ("signature:S", []),
        ("something new", []),
    ],
)
def test_topics_of_a_feed(feed: str, topics: list[str]) -> None:
    names = {PUMP: "pump"}
    fed = FeedTopics(lambda key: names.get(key, key), lambda: ["trades:M2", "account:A1", "slots", "market-data:M3"])
    fed.note(f"logs:{PUMP}", "trades:M1")
    fed.note("account:A2", "accounts:pump")
    assert fed.of(feed) == topics


def test_fed_topics_are_bounded() -> None:
    fed = FeedTopics(str, topics_max=2)
    for mint in "abc":
        fed.note("account:X", f"account:{mint}")
    assert fed.of("account:X") == ["account:X", "account:b", "account:c"]
