"""Writes facts to the files, in the writing thread: begins and deletes segments, and deletes trades that forks void."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from headrace.history import Kept, Written
from headrace.history.candles import CandleKey
from headrace.history.columns import fits, standing_of
from headrace.history.encoding import (
    BY_SLOT,
    CERTAIN,
    STATUSES,
    UNPROVEN,
    key_bytes,
    place_in,
    signature_bytes,
)
from headrace.history.rows import SLOT_MAX, first_row, last_row
from headrace.history.sqlite import files
from headrace.history.sqlite.segment import Segment
from headrace.model.facts import Dead, GapDeclared, Proof, SlotChanged, TokenCreated, Traded

SEGMENT_TRADES: Final = 500_000
SEGMENT_BYTES: Final = 128 * 1024 * 1024
SEGMENTS_OPEN: Final = 4
TOKENS_MAX: Final = 500_000
GAPS_MAX: Final = 100_000
"""Maximum numbers of tokens and of gaps that are kept. They are in the main file; the oldest are deleted first."""

_SLOT: Final = """insert into slots values (?1, ?2, ?3, ?4) on conflict (slot) do update set
    status = excluded.status, parent = coalesce(excluded.parent, parent), reason = excluded.reason
    where excluded.status in (1, 2, 3) or status not in (1, 2) and (status <> 3 or reason = 'equivocation')"""
_DIES: Final = "update slots set reason = ?2 where slot = ?1 and status = 3"
_GAP: Final = """insert into gaps (gap_id, feed, program, first, last, state, reason) values (?, ?, ?, ?, ?, ?, ?)
    on conflict (gap_id, feed, program) do update set first = excluded.first, last = excluded.last,
    state = excluded.state, reason = excluded.reason"""
_MINTED: Final = "insert or ignore into tokens values (?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Writing:
    """Owns all connections that write. Not thread-safe: at most one call runs at a time."""

    def __init__(self, path: Path, *, bytes_max: int, age_s: float) -> None:
        self._path, self._bytes_max, self._age_s = path, bytes_max, age_s
        self._segment_bytes = min(SEGMENT_BYTES, bytes_max // 8)
        self._lock = files.lock(path)
        try:
            self._main = files.open_writer(path, files.MAIN)
        except BaseException:
            self._lock.close()
            raise
        self._open: dict[int, Segment] = {}
        self._first_slots: dict[int, int] = dict(self._main.execute("select * from segments order by number"))
        self._highest = self._main.execute("select coalesce(max(slot), 0) from slots").fetchone()[0]
        if self._first_slots:
            oldest = next(iter(self._first_slots))
            left = files.segment_path(path, oldest - 1)
            if files.is_database(left):  # the process ended during a deletion
                files.unlink(left)
            number, first = next(reversed(self._first_slots.items()))
            newest = self._open[number] = Segment(files.segment_path(path, number))
            self._highest = max(self._highest, first - 1, newest.last_slot or 0)

    def write(self, facts: Sequence[Kept]) -> Written:
        """Store the facts. Trades are committed first, so that a slot is stored only after its trades."""
        refused: dict[int, None] = {}
        changed: dict[CandleKey, None] = {}
        try:
            for fact in facts:
                if isinstance(fact, Traded):
                    if not fits(fact):
                        refused[fact.seen.origin.slot] = None
                    elif (segment := self._segment_of(fact.seen.origin.slot)) is not None:
                        self._highest = max(self._highest, fact.seen.origin.slot)
                        segment.add(fact)
                elif isinstance(fact, Dead | Proof) and (segment := self._segment_of(fact.slot)) is not None:
                    if isinstance(fact, Dead):
                        segment.retract(fact.slot)
                    else:
                        segment.prove(fact)
            for segment in self._open.values():
                changed |= segment.commit()
            self._main.execute("begin immediate")
            for fact in facts:
                self._write_main(fact)
            self._main.execute("commit")
        except BaseException:
            self._roll_back()
            raise
        self._keep_within_bounds()
        return Written(tuple(changed), tuple(refused))

    def clear(self) -> None:
        """Delete everything."""
        for number in list(self._first_slots):
            self._drop(number)
        self._main.execute("begin immediate")
        for table in ("slots", "gaps", "tokens"):
            self._main.execute(f"delete from {table}")
        self._main.execute("commit")
        self._highest = 0

    def check(self) -> None:
        """Commit a write without effect. Raises sqlite3.Error if the commit fails."""
        self._main.execute("begin immediate")
        self._main.execute(f"pragma user_version = {files.VERSION}")
        self._main.execute("commit")

    def close(self) -> None:
        """Close all files."""
        for segment in self._open.values():
            segment.close()
        self._open.clear()
        self._main.close()
        self._lock.close()

    def _write_main(self, fact: Kept) -> None:
        db = self._main
        if isinstance(fact, SlotChanged):
            if 0 <= fact.slot <= SLOT_MAX:
                self._highest = max(self._highest, fact.slot)
                db.execute(_SLOT, (fact.slot, STATUSES.index(fact.status), fact.parent, None))
        elif isinstance(fact, Dead):
            db.execute(_DIES, (fact.slot, fact.reason))
            self._take_back_tokens(fact.slot, "standing <> ?", CERTAIN)
        elif isinstance(fact, GapDeclared):
            gap = fact.gap
            first, last = max(0, gap.from_slot), min(SLOT_MAX, gap.to_slot)
            db.execute(_GAP, (gap.gap_id, fact.feed, fact.program or "", first, last, gap.state, gap.reason))
        elif isinstance(fact, TokenCreated):
            self._add_token(fact)
        elif isinstance(fact, Proof):
            within = (first_row(fact.slot), last_row(fact.slot))
            for signature in fact.landed:
                db.execute(
                    "update tokens set standing = ? where id between ? and ? and signature = ? and standing = ?",
                    (BY_SLOT, *within, signature_bytes(signature), UNPROVEN),
                )
            for signature in fact.absent:
                self._take_back_tokens(fact.slot, "signature = ? and standing = 1", signature_bytes(signature))

    def _add_token(self, fact: TokenCreated) -> None:
        seen, db = fact.seen, self._main
        origin = seen.origin
        signature = origin.signature or ""
        place, raw = place_in(seen.event_id, origin.slot, signature), signature_bytes(signature)
        within = (first_row(origin.slot), last_row(origin.slot))
        if db.execute(
            "select 1 from tokens where id between ? and ? and signature = ? and place = ?", (*within, raw, place)
        ).fetchone():
            return
        newest = db.execute("select max(id) from tokens where id between ? and ?", within).fetchone()[0]
        row = within[0] if newest is None else newest + 1
        name, symbol = (text.encode("utf-8", "surrogatepass") for text in (fact.name, fact.symbol))
        keys = key_bytes(fact.mint), key_bytes(fact.creator)
        db.execute(_MINTED, (row, *keys, name, symbol, seen.event.program, raw, place, standing_of(origin)))

    def _take_back_tokens(self, slot: int, which: str, value: object) -> None:
        self._main.execute(
            f"delete from tokens where id between ? and ? and {which}", (first_row(slot), last_row(slot), value)
        )

    def _segment_of(self, slot: int) -> Segment | None:
        """Return the segment for this slot. None: the slot is older than the history, or no valid slot."""
        if not 0 <= slot <= SLOT_MAX:
            return None
        if not self._first_slots:
            self._begin_segment(1, 0)
        number = next(reversed(self._first_slots))
        if slot < self._first_slots[number]:
            number = max((number for number, first in self._first_slots.items() if first <= slot), default=0)
        if not number:
            return None
        segment = self._open.get(number)
        if segment is None:
            segment = self._open[number] = Segment(files.segment_path(self._path, number))
        return segment

    def _begin_segment(self, number: int, first_slot: int) -> None:
        """Begin a segment with this number, or the next number without a file."""
        while files.segment_path(self._path, number).exists():
            number += 1
        self._main.execute("insert into segments values (?, ?)", (number, first_slot))
        self._first_slots[number] = first_slot

    def _keep_within_bounds(self) -> None:
        """Begin a segment if the newest is full, delete old segments beyond the bounds, and close old segments."""
        if not self._first_slots:
            return
        newest, oldest = max(self._first_slots), min(self._first_slots)
        path = files.segment_path(self._path, newest)
        segment = self._open.get(newest)
        if segment is not None and (segment.trades >= SEGMENT_TRADES or files.size_of(path) >= self._segment_bytes):
            self._begin_segment(newest + 1, max(self._highest, self._first_slots[newest]) + 1)
        while len(self._first_slots) > 1 and (self._size() > self._bytes_max or self._is_old(oldest)):
            self._drop(oldest)
            oldest = min(self._first_slots)
            self._forget_before(self._first_slots[oldest])
        for number in sorted(self._open.keys() - {oldest})[:-SEGMENTS_OPEN]:  # each write reads the age of the oldest
            self._open.pop(number).close()

    def _size(self) -> int:
        paths = [self._path, *(files.segment_path(self._path, number) for number in self._first_slots)]
        return sum(map(files.size_of, paths))

    def _is_old(self, number: int) -> bool:
        """Return whether a segment's newest trade is more than `age_s` older than the newest trade of all."""
        newest = self._last_minute(max(self._first_slots)) or self._last_minute(max(self._first_slots) - 1)
        last = self._last_minute(number)
        return newest is not None and last is not None and (newest - last) * 60 > self._age_s

    def _last_minute(self, number: int) -> int | None:
        path = files.segment_path(self._path, number)
        segment = self._open.get(number)
        if segment is None and path.exists():
            segment = self._open[number] = Segment(path)
        return None if segment is None else segment.last_minute

    def _drop(self, number: int) -> None:
        self._main.execute("delete from segments where number = ?", (number,))
        del self._first_slots[number]
        if (segment := self._open.pop(number, None)) is not None:
            segment.close()
        files.unlink(files.segment_path(self._path, number))

    def _forget_before(self, slot: int) -> None:
        """Delete slots and gaps before this slot from the main file, and tokens and gaps beyond their limits.

        Tokens before the slot stay, as their mints may still trade.
        """
        db = self._main
        db.execute("delete from slots where slot < ?", (slot,))
        db.execute("delete from gaps where last < ?", (slot,))
        db.execute(
            "delete from tokens where id <= (select id from tokens order by id desc limit 1 offset ?)", (TOKENS_MAX,)
        )
        db.execute("delete from gaps where id <= (select max(id) from gaps) - ?", (GAPS_MAX,))

    def _roll_back(self) -> None:
        """Undo all changes since the last commit. Close segments that fail, so that they are opened again."""
        for number, segment in list(self._open.items()):
            try:
                segment.roll_back()
            except sqlite3.Error:
                self._open.pop(number).close()
        if self._main.in_transaction:
            self._main.execute("rollback")
