"""The files of a SQLite history: segments that begin and go, and a model of what all of them together answer."""

import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.history import Kept
from headrace.history.candles import CandleKey
from headrace.history.rows import CandleQuery, TradeQuery
from headrace.history.sqlite import files
from headrace.history.sqlite.reading import FILES_OPEN, Reading
from headrace.history.sqlite.writing import SEGMENTS_OPEN, Writing
from headrace.model.errors import ConfigError
from headrace.model.facts import Dead, Proof, SlotChanged, Traded
from headrace.model.keys import WSOL_MINT
from tests.examples import examples
from tests.history_facts import key, signature, trade

START_S = 1_790_000_040
AGE_S = 86_400.0
GIB = 1024**3
MEMORY = "/dev/shm"  # a file in memory is made at once


def segments(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.glob(f"{path.name}-0*[0-9]"))


def many(first_slot: int, count: int) -> list[Kept]:
    """Trades of so many slots, one a second, each slot announced."""
    facts: list[Kept] = []
    for slot in range(first_slot, first_slot + count):
        facts += [
            trade(slot, f"{slot}", time_s=START_S + slot, user=f"u{slot}"),
            SlotChanged(slot, "confirmed", None, "s"),
        ]
    return facts


def slots_of(reading: Reading) -> list[int]:
    found, before = list[int](), None
    while True:
        page = reading.trades(TradeQuery(before=before, limit=1000))
        found += [item.slot for item in page.items]
        if page.next is None:
            return found
        before = page.next


@pytest.mark.parametrize("name", ["h.db", "odd ?#% name.db"])
def test_a_file_is_read_by_its_relative_and_its_odd_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    writing = Writing(Path(name), bytes_max=1_600_000, age_s=AGE_S)
    writing.write(many(1, 3))
    reading = Reading(Path(name))
    assert slots_of(reading) == [3, 2, 1]
    reading.close()
    writing.close()


def test_a_full_segment_is_followed_by_another_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    writing = Writing(path, bytes_max=1_600_000, age_s=AGE_S)
    for start in range(0, 6_000, 500):
        writing.write(many(start, 500))
    reading = Reading(path)
    kept = slots_of(reading)
    assert len(segments(path)) > 2
    assert "h.db-000001" not in segments(path)
    assert kept == list(range(5_999, kept[-1] - 1, -1))
    assert 1_000 < len(kept) < 6_000
    assert reading.extent().last == 5_999
    assert reading.extent().first == kept[-1]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2_000_000
    reading.close()
    writing.close()


def test_an_old_segment_goes(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    writing = Writing(path, bytes_max=GIB, age_s=AGE_S)
    writing._segment_bytes = 1
    writing.write([trade(1, "a", time_s=START_S)])
    writing.write([trade(2, "b", time_s=START_S + 3600)])
    reading = Reading(path)
    assert slots_of(reading) == [2, 1]
    writing.write([trade(3, "c", time_s=START_S + 86_400 + 120)])
    assert slots_of(reading) == [3, 2]
    reading.close()
    writing.close()


def test_writes_open_no_segment_again(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    writing = Writing(path, bytes_max=GIB, age_s=AGE_S)
    writing._segment_bytes = 1
    for slot in range(1, 10):
        writing.write([trade(slot, f"{slot}", time_s=START_S)])
    before = dict(writing._open)
    writing.write([SlotChanged(9, "confirmed", None, "s")])
    assert min(before) == 1
    assert writing._open == before
    assert len(before) == SEGMENTS_OPEN + 1
    writing.close()


def test_late_trades_go_to_the_segment_of_their_slot(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    writing = Writing(path, bytes_max=GIB, age_s=AGE_S)
    writing._segment_bytes = 1
    writing.write([trade(10, "a", time_s=START_S), SlotChanged(10, "confirmed", None, "s")])
    writing.write([trade(20, "b", time_s=START_S + 1), SlotChanged(20, "confirmed", None, "s")])
    late = writing.write([trade(5, "c", time_s=START_S, quote=4_000), Dead(10, "fork")])
    assert late.candles == (CandleKey(key("M"), WSOL_MINT, START_S),)
    reading = Reading(path)
    assert len(segments(path)) >= 2
    assert slots_of(reading) == [20, 5]
    (candle,) = reading.candles(CandleQuery(key("M"), WSOL_MINT, 60)).items
    assert (candle.trades, candle.text(candle.open), candle.text(candle.close)) == (2, "0.002", "0.0005")
    reading.close()
    writing.close()


def test_candles_are_read_from_more_segments_than_are_kept_open(tmp_path: Path) -> None:
    path, count = tmp_path / "h.db", FILES_OPEN + 3
    writing = Writing(path, bytes_max=GIB, age_s=AGE_S)
    writing._segment_bytes = 1
    for slot in range(1, count + 1):
        writing.write([trade(slot, f"{slot}", time_s=START_S)])
    reading = Reading(path)
    for interval_s in (1, 60):
        (candle,) = reading.candles(CandleQuery(key("M"), WSOL_MINT, interval_s, from_s=START_S)).items
        assert candle.trades == count
    reading.close()
    writing.close()


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    Writing(path, bytes_max=GIB, age_s=AGE_S).close()
    with sqlite3.connect(path) as db:
        db.execute(f"pragma user_version = {files.VERSION + 1}")
    db.close()
    with pytest.raises(ConfigError, match=r"HISTORY_FILE: got a history of version 2, expected version 1 or older"):
        Writing(path, bytes_max=GIB, age_s=AGE_S)


def test_a_segment_that_was_being_dropped_is_gone_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    writing = Writing(path, bytes_max=GIB, age_s=AGE_S)
    writing.write([trade(1, "a")])
    writing.close()
    with sqlite3.connect(path) as db:
        db.execute("update segments set number = 2")
    db.close()
    shutil.copy(files.segment_path(path, 1), files.segment_path(path, 2))
    again = Writing(path, bytes_max=GIB, age_s=AGE_S)
    assert segments(path) == ["h.db-000002"]
    again.close()


def test_a_file_that_is_no_segment_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    files.segment_path(path, 1).write_bytes(b"mine")
    (tmp_path / "h.db-20260101").write_bytes(b"mine")
    writing = Writing(path, bytes_max=GIB, age_s=AGE_S)
    writing.write([trade(1, "a")])
    writing.close()
    Writing(path, bytes_max=GIB, age_s=AGE_S).close()
    assert files.segment_path(path, 1).read_bytes() == (tmp_path / "h.db-20260101").read_bytes() == b"mine"
    assert files.segment_path(path, 2).exists()


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    writing = Writing(path, bytes_max=GIB, age_s=AGE_S)
    writing.write([trade(1, "a", time_s=START_S)])
    broken = SlotChanged(2, "no status", None, "s")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not in tuple"):
        writing.write([SlotChanged(3, "confirmed", None, "s"), broken])
    writing.write([trade(1, "a", time_s=START_S), trade(1, "b", time_s=START_S)])
    reading = Reading(path)
    assert slots_of(reading) == [1, 1]
    assert reading.candles(CandleQuery(key("M"), WSOL_MINT, 60)).items[0].trades == 2
    assert reading.extent() == (1, 1)
    reading.close()
    writing.close()


# What all of it together must be: a list of trades in memory, and candles made of those with fractions.

_trades = st.builds(
    lambda slot, name, mint, base, quote, time_s, standing: trade(
        slot,
        f"{slot}{name}",
        mint=mint,
        base=base,
        quote=quote,
        time_s=START_S + time_s,
        unproven=standing == 1,
        commitment="confirmed" if standing == 2 else "processed",
    ),
    st.integers(1, 6),
    st.sampled_from("abc"),
    st.sampled_from("MN"),
    st.integers(0, 5_000),
    st.integers(0, 5_000),
    st.integers(0, 150),
    st.integers(0, 2),
)
_deaths = st.builds(Dead, st.integers(1, 6), st.just("fork"))
_proofs = st.builds(
    lambda slot, landed, absent: Proof(
        slot,
        tuple(signature(f"{slot}{name}") for name in sorted(landed)),
        tuple(signature(f"{slot}{name}") for name in sorted(absent - landed)),
    ),
    st.integers(1, 6),
    st.sets(st.sampled_from("abc")),
    st.sets(st.sampled_from("abc")),
)
_facts = st.lists(st.lists(st.one_of(_trades, _trades, _trades, _deaths, _proofs), max_size=8), max_size=8)


class Naive:
    """Trades in memory, in the order in which they came, by event."""

    def __init__(self) -> None:
        self.trades: dict[str, tuple[Traded, int]] = {}

    def hear(self, fact: Traded | Dead | Proof) -> None:
        if isinstance(fact, Traded):
            origin = fact.seen.origin
            standing = 2 if origin.certain else 1 if origin.unproven else 0
            self.trades.setdefault(fact.seen.event_id, (fact, standing))
            return
        for event_id, (known, standing) in list(self.trades.items()):
            origin = known.seen.origin
            if origin.slot != fact.slot:
                continue
            if isinstance(fact, Dead):
                if standing != 2:
                    del self.trades[event_id]
            elif standing == 1 and origin.signature in fact.landed:
                self.trades[event_id] = (known, 0)
            elif standing == 1 and origin.signature in fact.absent:
                del self.trades[event_id]

    def in_order(self) -> list[Traded]:
        return sorted((known for known, _ in self.trades.values()), key=lambda known: known.seen.origin.slot)

    def candles(self, mint: str, interval_s: int) -> list[tuple[object, ...]]:
        found: dict[int, list[Traded]] = {}
        for known in self.in_order():
            if known.trade.mint == mint and known.trade.base_amount and known.trade.quote_amount:
                found.setdefault(known.time_s // interval_s * interval_s, []).append(known)
        return [(time_s, *_candle([known.trade for known in found[time_s]])) for time_s in sorted(found)]


def _candle(trades: Sequence[object]) -> tuple[object, ...]:
    amounts = [(each.base_amount, each.quote_amount) for each in trades]  # type: ignore[attr-defined]
    prices = [Fraction(quote, base) for base, quote in amounts if min(base, quote) >= 1_000]
    four = (prices[0], max(prices), min(prices), prices[-1]) if prices else (None,) * 4
    return (*four, sum(base for base, _ in amounts), sum(quote for _, quote in amounts), len(trades))


@settings(max_examples=examples(100), deadline=None)
@given(_facts, st.booleans(), st.booleans())
def test_history_is_what_is_left_of_the_facts(batches: list[list[Kept]], small: bool, restarts: bool) -> None:
    naive = Naive()
    with tempfile.TemporaryDirectory(dir=MEMORY if Path(MEMORY).is_dir() else None) as folder:
        path = Path(folder) / "h.db"
        writing = Writing(path, bytes_max=GIB, age_s=AGE_S)
        for batch in batches:
            if small:
                writing._segment_bytes = 1
            for fact in batch:
                assert isinstance(fact, Traded | Dead | Proof)
                naive.hear(fact)
            writing.write(batch)
            if restarts:
                writing.close()
                writing = Writing(path, bytes_max=GIB, age_s=AGE_S)
        reading = Reading(path)
        for mint in map(key, "MN"):
            found = [item.event_id for item in reading.trades(TradeQuery(mint=mint, limit=1000)).items]
            expected = [each.seen.event_id for each in naive.in_order() if each.trade.mint == mint]
            assert sorted(found) == sorted(expected)
            for interval_s in (1, 60, 300):
                page = reading.candles(CandleQuery(mint, WSOL_MINT, interval_s, from_s=START_S - 300, limit=1000))
                shown = [
                    (
                        each.time_s,
                        *(
                            None if price is None else Fraction(price.quote, price.base)
                            for price in (each.open, each.high, each.low, each.close)
                        ),
                        each.base_amount,
                        each.quote_amount,
                        each.trades,
                    )
                    for each in page.items
                ]
                assert shown == naive.candles(mint, interval_s)
        reading.close()
        writing.close()
