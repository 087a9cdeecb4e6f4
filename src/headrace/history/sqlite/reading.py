"""Answers queries from the files, in the reading thread. The work for a page is bounded.

All rows of a statement are fetched at once, as an open statement would prevent checkpoints of the file's log.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from headrace.history.candles import MINUTE_S, Candle, folded
from headrace.history.columns import candle_of, candles_of, times_of, token_of, trade_of
from headrace.history.encoding import (
    STATUSES,
    key_bytes,
)
from headrace.history.rows import (
    ROW_MAX,
    CandleQuery,
    Extent,
    GapQuery,
    Page,
    SlotQuery,
    StoredGap,
    StoredSlot,
    StoredToken,
    StoredTrade,
    TokenQuery,
    TradeQuery,
    slot_of,
)
from headrace.history.sqlite import files

FILES_OPEN: Final = 32
EXAMINED_MAX: Final = 50_000
"""Maximum number of trades examined for one page if no index finds exactly the trades of the query."""
CANDLE_ROWS_MAX: Final = 50_000
FLY_MINUTES: Final = 30
"""Maximum number of minutes whose trades are read for one page of candles shorter than a minute."""

_TRADES: Final = """select t.id, t.time, p.name, p.program_id, t.side, m.key, q.key, t.base, t.quote, u.key, o.key,
    a.key, t.signature, t.place, t.standing
    from ({}) t join programs p on p.id = t.program left join keys m on m.id = t.mint
    left join keys q on q.id = t.quote_mint left join keys u on u.id = t.user left join keys o on o.id = t.pool
    left join keys a on a.id = t.authority order by t.id desc"""


class _File(NamedTuple):
    """A segment's file. After the history is emptied, another file has the number of a deleted one."""

    number: int
    inode: int | None


class Reading:
    """Owner of all reading connections. Not thread-safe: at most one call runs at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._main = files.open_reader(path)
        self._segments: OrderedDict[_File, sqlite3.Connection] = OrderedDict()

    def close(self) -> None:
        """Close all files."""
        for db in self._segments.values():
            db.close()
        self._segments.clear()
        self._main.close()

    def extent(self) -> Extent:
        """Return the first and last slot of the history."""
        first, last = self._main.execute("select min(slot), max(slot) from slots").fetchone()
        for db in self._newest_first():
            low, high = db.execute("select (select min(id) from trades), (select max(id) from trades)").fetchone()
            if low is not None:
                first = slot_of(low) if first is None else min(first, slot_of(low))
                last = slot_of(high) if last is None else max(last, slot_of(high))
        return Extent(first, last)

    def trades(self, query: TradeQuery) -> Page[StoredTrade]:
        """Return a page of trades, newest first."""
        found: list[tuple[Any, ...]] = []
        before = ROW_MAX if query.before is None else query.before
        examined = EXAMINED_MAX
        for db in self._newest_first(slot_of(before)):
            conditions = _conditions(db, query, before)
            if conditions is None:
                continue
            where, values, is_exact = conditions
            left = query.limit + 1 - len(found)
            inner = f"select * from trades where {where[0]} order by id desc"
            if not is_exact:
                inner += f" limit {examined}"
                within = f"select * from ({inner}) where {where[1]} limit {left}"
            else:
                within = f"{inner} limit {left}"
            found += db.execute(_TRADES.format(within), values).fetchall()
            if len(found) > query.limit:
                return Page(self._stored(found[: query.limit]), found[query.limit - 1][0])
            if not is_exact:
                ends = f"select id from trades where {where[0]} order by id desc limit 1 offset {examined - 1}"
                floor = db.execute(ends, values[: where[0].count("?")]).fetchone()
                if floor is not None:
                    return Page(self._stored(found), floor[0])
        return Page(self._stored(found))

    def candles(self, query: CandleQuery) -> Page[Candle]:
        """Return a page of candles, oldest first."""
        interval_s = query.interval_s
        minutes = [db.execute("select max(minute) from minutes").fetchone()[0] for db in self._newest_first()]
        newest = max((minute for minute in minutes if minute is not None), default=None)
        if newest is None:
            return Page(())
        begin_s, end_s = times_of(query, (newest + 1) * MINUTE_S)
        decimals: dict[str, int] = {}
        if interval_s >= MINUTE_S:
            rows_max = min(CANDLE_ROWS_MAX, (query.limit + 1) * interval_s // MINUTE_S)
        else:
            rows_max = FLY_MINUTES
        read = [_minutes(*source, begin_s, end_s, rows_max) for source in self._sources(query, decimals)]
        cut_s = min((rows[-1].time_s for rows in read if len(rows) == rows_max), default=end_s)
        cut_s = cut_s // interval_s * interval_s if interval_s >= MINUTE_S else cut_s  # whole intervals only
        if interval_s < MINUTE_S:
            first_s = min((rows[0].time_s for rows in read if rows), default=cut_s)
            read = [
                _fly(*source, max(begin_s, first_s), cut_s, interval_s) for source in self._sources(query, decimals)
            ]
        found = [each for each in folded([row for rows in read for row in rows], interval_s) if each.time_s < cut_s]
        items = found[: query.limit]
        for candle in items:
            candle.decimals, candle.quote_decimals = decimals.get(query.mint), decimals.get(query.quote_mint)
        more = bool(items) and (len(found) > query.limit or cut_s < end_s)
        return Page(items, items[-1].time_s if more else None)

    def tokens(self, query: TokenQuery) -> Page[StoredToken]:
        """Return a page of tokens, newest first."""
        where, values = ["id < ?"], [ROW_MAX if query.before is None else query.before]
        for column, key in (("mint", query.mint), ("creator", query.creator)):
            if key is not None:
                where.append(f"{column} = ?")
                values.append(key_bytes(key))  # type: ignore[arg-type]
        rows = self._main.execute(
            f"select * from tokens where {' and '.join(where)} order by id desc limit {query.limit + 1}", values
        ).fetchall()
        statuses = self._statuses([slot_of(row[0]) for row in rows])
        items = [token_of(row, statuses.get(slot_of(row[0]))) for row in rows[: query.limit]]
        return Page(items, rows[query.limit - 1][0] if len(rows) > query.limit else None)

    def gaps(self, query: GapQuery) -> Page[StoredGap]:
        """Return a page of gaps, newest first."""
        rows = self._main.execute(
            "select id, gap_id, feed, nullif(program, ''), first, last, state, reason from gaps"
            " where id < ? and first <= ? and last >= ? and (?4 is null or feed = ?4) order by id desc limit ?5",
            (ROW_MAX if query.before is None else query.before, query.to_slot, query.from_slot, query.feed,
             query.limit + 1),
        ).fetchall()  # fmt: skip
        items = [StoredGap(*row[1:]) for row in rows[: query.limit]]
        return Page(items, rows[query.limit - 1][0] if len(rows) > query.limit else None)

    def slots(self, query: SlotQuery) -> Page[StoredSlot]:
        """Return a page of slots, newest first."""
        to_slot = query.to_slot if query.before is None else min(query.to_slot, query.before - 1)
        rows = self._main.execute(
            "select slot, status, parent, reason from slots where slot between ? and ? order by slot desc limit ?",
            (query.from_slot, to_slot, query.limit + 1),
        ).fetchall()
        items = [StoredSlot(slot, STATUSES[status], *more) for slot, status, *more in rows[: query.limit]]
        return Page(items, items[-1].slot if len(rows) > query.limit else None)

    def _newest_first(self, slot: int | None = None) -> Iterator[sqlite3.Connection]:
        """Yield connections to segments, newest first. Segments after `slot`, or deleted meanwhile, are left out.

        A connection may be closed once FILES_OPEN further connections are yielded.
        """
        rows = self._main.execute("select number, first_slot from segments order by number desc").fetchall()
        listed = [
            (_File(number, files.inode_of(files.segment_path(self._path, number))), first) for number, first in rows
        ]
        for gone in self._segments.keys() - {file for file, _ in listed}:
            self._segments.pop(gone).close()
        for file, first in listed:
            if slot is not None and first > slot:
                continue
            db = self._segments.get(file)
            if db is None:
                try:
                    db = files.open_reader(files.segment_path(self._path, file.number))
                    db.execute("select 1 from trades limit 1")
                except sqlite3.OperationalError:
                    continue  # the file is not created yet, or already deleted
                self._segments[file] = db
                if len(self._segments) > FILES_OPEN:
                    self._segments.popitem(last=False)[1].close()
            self._segments.move_to_end(file)
            yield db

    def _sources(self, query: CandleQuery, decimals: dict[str, int]) -> Iterator[tuple[sqlite3.Connection, int, int]]:
        """Yield (segment, id of the mint, id of the quote mint) of segments with both; add to `decimals`."""
        for db in self._newest_first():
            mint, quote = (_learned(db, each, decimals) for each in (query.mint, query.quote_mint))
            if mint is not None and quote is not None:
                yield db, mint, quote

    def _statuses(self, slots: list[int]) -> dict[int, int]:
        if not slots:
            return {}
        given = sorted(set(slots))
        marks = ",".join("?" * len(given))
        return dict(self._main.execute(f"select slot, status from slots where slot in ({marks})", given).fetchall())

    def _stored(self, rows: list[tuple[Any, ...]]) -> list[StoredTrade]:
        statuses = self._statuses([slot_of(row[0]) for row in rows])
        return [trade_of(row, statuses.get(slot_of(row[0]))) for row in rows]


def _conditions(
    db: sqlite3.Connection, query: TradeQuery, before: int
) -> tuple[tuple[str, str], list[Any], bool] | None:
    """Return the SQL conditions of a query: (indexed, others), their values, and whether `others` is empty.

    An index answers the indexed condition. Returns None if the segment has no such trade.
    """
    first, last = _rows_of_times(db, query.from_s, query.to_s)
    indexed, others = ["id between ? and ?"], list[str]()
    values: list[Any] = [first, min(last, before - 1)]
    other_values: list[Any] = []
    for column, key in (("user", query.user), ("mint", query.mint)):
        if key is None:
            continue
        found = db.execute("select id from keys where key = ?", (key_bytes(key),)).fetchone()
        if found is None:
            return None
        if len(indexed) == 1:
            indexed.append(f"{column} = ?")
            values.append(found[0])
        else:
            others.append(f"{column} = ?")
            other_values.append(found[0])
    if query.program is not None:
        program = db.execute("select id from programs where program_id = ?1 or name = ?1", (query.program,)).fetchone()
        if program is None:
            return None
        others.append("program = ?")
        other_values.append(program[0])
    for comparison, time_s in ((">=", query.from_s), ("<", query.to_s)):
        if time_s is not None:
            others.append(f"time {comparison} ?")
            other_values.append(time_s)
    return (" and ".join(indexed), " and ".join(others)), [*values, *other_values], not others


def _rows_of_times(db: sqlite3.Connection, from_s: int | None, to_s: int | None) -> tuple[int, int]:
    """Return the first and last row number that trades from `from_s` to `to_s` can have."""
    if from_s is None and to_s is None:
        return 0, ROW_MAX
    first, last = db.execute(
        "select min(first), max(last) from minutes where minute >= ? and minute <= ?",
        (0 if from_s is None else from_s // MINUTE_S, ROW_MAX if to_s is None else to_s // MINUTE_S),
    ).fetchone()
    return (1, 0) if first is None else (first, last)


def _minutes(db: sqlite3.Connection, mint: int, quote: int, begin_s: int, end_s: int, rows_max: int) -> list[Candle]:
    """Return the first `rows_max` minute candles between the times."""
    rows = db.execute(
        "select * from candles where mint = ? and quote_mint = ? and minute >= ? and minute < ?"
        " order by minute limit ?",
        (mint, quote, begin_s // MINUTE_S, -(-end_s // MINUTE_S), rows_max),
    )
    return [candle_of(row) for row in rows.fetchall()]


def _fly(db: sqlite3.Connection, mint: int, quote: int, begin_s: int, end_s: int, interval_s: int) -> list[Candle]:
    """Return the candles of the trades between the times."""
    first, last = _rows_of_times(db, begin_s, end_s)
    rows = db.execute(
        "select id, time, base, quote from trades where mint = ? and id between ? and ? and +quote_mint = ?"
        " and +time >= ? and +time < ?",
        (mint, first, last, quote, begin_s, end_s),
    )
    return candles_of(rows.fetchall(), interval_s)


def _learned(db: sqlite3.Connection, mint: str, decimals: dict[str, int]) -> int | None:
    """Return the id of a mint, and add its decimals to `decimals`. Returns None if the segment lacks the mint."""
    row = db.execute("select id, decimals from keys where key = ?", (key_bytes(mint),)).fetchone()
    if row is None:
        return None
    if row[1] is not None:
        decimals.setdefault(mint, row[1])
    return int(row[0])
