"""Answers queries from the tables. The work for a page is bounded, and no transaction stays open between statements."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import asyncpg

from headrace.database.postgres_group_commit import Db
from headrace.history.candles import MINUTE_S, Candle, folded
from headrace.history.columns import candle_of, candles_of, times_of, token_of, trade_of
from headrace.history.encoding import STATUSES, key_bytes
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

EXAMINED_MAX: Final = 50_000
"""Maximum number of trades examined for one page if no index finds exactly the trades of the query."""
CANDLE_ROWS_MAX: Final = 50_000
FLY_MINUTES: Final = 30
"""Maximum number of minutes whose trades are read for one page of candles shorter than a minute."""

_TRADES: Final = """select t.id, t.time, p.name, p.program_id, t.sells, m.key, q.key, t.base, t.quote, u.key, o.key,
    a.key, t.signature, t.place, t.standing
    from ({inner}) t join history_programs p on p.id = t.program left join history_keys_{number} m on m.id = t.mint
    left join history_keys_{number} q on q.id = t.quote_mint left join history_keys_{number} u on u.id = t.trader
    left join history_keys_{number} o on o.id = t.pool left join history_keys_{number} a on a.id = t.authority
    order by t.id desc"""

_Row = Sequence[Any]


class Reading:
    """Answers queries through one connection, one query at a time. Segments that are dropped meanwhile are empty."""

    def __init__(self, db: Db) -> None:
        self._db = db

    async def extent(self) -> Extent:
        """Return the first and last slot of the history."""
        ((first, last),) = await self._fetch("select min(slot), max(slot) from history_slots")
        async for number in self._newest_first():
            rows = await self._fetch(f"select min(id), max(id) from history_trades_{number}")
            if rows and rows[0][0] is not None:
                low, high = map(slot_of, rows[0])
                first = low if first is None else min(first, low)
                last = high if last is None else max(last, high)
        return Extent(first, last)

    async def trades(self, query: TradeQuery) -> Page[StoredTrade]:
        """Return a page of trades, newest first."""
        found: list[_Row] = []
        before = ROW_MAX if query.before is None else query.before
        async for number in self._newest_first(slot_of(before)):
            (indexed, others), values = _conditions(number, query)
            first, last = await self._rows_of_times(number, query.from_s, query.to_s)
            values[:2] = first, min(last, before - 1)
            left = query.limit + 1 - len(found)
            inner = f"select * from history_trades_{number} where {indexed} order by id desc"
            if others:
                inner += f" limit {EXAMINED_MAX}"
                within = f"select * from ({inner}) e where {others} order by id desc limit {left}"
            else:
                within = f"{inner} limit {left}"
            found += await self._fetch(_TRADES.format(inner=within, number=number), *values)
            if len(found) > query.limit:
                return Page(await self._stored(found[: query.limit]), found[query.limit - 1][0])
            if others:
                ends = f"select id from history_trades_{number} where {indexed} order by id desc limit 1"
                floor = await self._fetch(f"{ends} offset {EXAMINED_MAX - 1}", *values[: indexed.count("$")])
                if floor:
                    return Page(await self._stored(found), floor[0][0])
        return Page(await self._stored(found))

    async def candles(self, query: CandleQuery) -> Page[Candle]:
        """Return a page of candles, oldest first."""
        interval_s = query.interval_s
        newest = await self._newest_minute()
        if newest is None:
            return Page(())
        begin_s, end_s = times_of(query, (newest + 1) * MINUTE_S)
        if interval_s >= MINUTE_S:
            rows_max = min(CANDLE_ROWS_MAX, (query.limit + 1) * interval_s // MINUTE_S)
        else:
            rows_max = FLY_MINUTES
        decimals: dict[str, int] = {}
        sources = [source async for source in self._sources(query, decimals)]
        read = [await self._minutes(*source, begin_s, end_s, rows_max) for source in sources]
        cut_s = min((rows[-1].time_s for rows in read if len(rows) == rows_max), default=end_s)
        cut_s = cut_s // interval_s * interval_s if interval_s >= MINUTE_S else cut_s  # whole intervals only
        if interval_s < MINUTE_S:
            first_s = min((rows[0].time_s for rows in read if rows), default=cut_s)
            read = [await self._fly(*source, max(begin_s, first_s), cut_s, interval_s) for source in sources]
        found = [each for each in folded([row for rows in read for row in rows], interval_s) if each.time_s < cut_s]
        items = found[: query.limit]
        for candle in items:
            candle.decimals, candle.quote_decimals = decimals.get(query.mint), decimals.get(query.quote_mint)
        more = bool(items) and (len(found) > query.limit or cut_s < end_s)
        return Page(items, items[-1].time_s if more else None)

    async def tokens(self, query: TokenQuery) -> Page[StoredToken]:
        """Return a page of tokens, newest first."""
        where, values = ["id < $1"], [ROW_MAX if query.before is None else query.before]
        for column, key in (("mint", query.mint), ("creator", query.creator)):
            if key is not None:
                values.append(key_bytes(key))  # type: ignore[arg-type]
                where.append(f"{column} = ${len(values)}")
        rows = await self._fetch(
            f"select * from history_tokens where {' and '.join(where)} order by id desc limit {query.limit + 1}",
            *values,
        )
        statuses = await self._statuses([slot_of(row[0]) for row in rows])
        items = [token_of(tuple(row), statuses.get(slot_of(row[0]))) for row in rows[: query.limit]]
        return Page(items, rows[query.limit - 1][0] if len(rows) > query.limit else None)

    async def gaps(self, query: GapQuery) -> Page[StoredGap]:
        """Return a page of gaps, newest first."""
        rows = await self._fetch(
            "select id, gap_id, feed, nullif(program, ''), first, last, state, reason from history_gaps"
            " where id < $1 and first <= $2 and last >= $3 and ($4::text is null or feed = $4)"
            " order by id desc limit $5",
            ROW_MAX if query.before is None else query.before,
            query.to_slot,
            query.from_slot,
            query.feed,
            query.limit + 1,
        )
        items = [StoredGap(*row[1:]) for row in map(tuple, rows[: query.limit])]
        return Page(items, rows[query.limit - 1][0] if len(rows) > query.limit else None)

    async def slots(self, query: SlotQuery) -> Page[StoredSlot]:
        """Return a page of slots, newest first."""
        to_slot = query.to_slot if query.before is None else min(query.to_slot, query.before - 1)
        rows = await self._fetch(
            "select slot, status, parent, reason from history_slots where slot between $1 and $2"
            " order by slot desc limit $3",
            query.from_slot,
            to_slot,
            query.limit + 1,
        )
        items = [StoredSlot(slot, STATUSES[status], *more) for slot, status, *more in rows[: query.limit]]
        return Page(items, items[-1].slot if len(rows) > query.limit else None)

    async def check(self) -> None:
        """Read the tables' version. Raises asyncpg's errors if the tables can't be used."""
        await self._db.fetchval("select max(version) from schema_version")

    async def _fetch(self, sql: str, *values: Any) -> list[_Row]:
        try:
            rows: list[_Row] = await self._db.fetch(sql, *values)
        except asyncpg.UndefinedTableError:  # the segment was dropped after its number was read
            return []
        return rows

    async def _newest_first(self, slot: int | None = None) -> AsyncIterator[int]:
        """Yield the numbers of segments, newest first. Segments after `slot` are left out."""
        rows = await self._fetch("select number, first_slot from history_segments order by number desc")
        for number, first in rows:
            if slot is None or first <= slot:
                yield number

    async def _newest_minute(self) -> int | None:
        found: list[int] = []
        async for number in self._newest_first():
            rows = await self._fetch(f"select max(minute) from history_minutes_{number}")
            found += [row[0] for row in rows if row[0] is not None]
        return max(found, default=None)

    async def _sources(self, query: CandleQuery, decimals: dict[str, int]) -> AsyncIterator[tuple[int, int, int]]:
        """Yield (segment, id of the mint, id of the quote mint) of segments with both; add to `decimals`."""
        named = {key_bytes(mint): mint for mint in (query.mint, query.quote_mint)}
        async for number in self._newest_first():
            rows = await self._fetch(
                f"select key, id, decimals from history_keys_{number} where key = any($1::bytea[])", list(named)
            )
            ids = {named[raw]: key_id for raw, key_id, _ in rows}
            for raw, _, known in rows:
                if known is not None:
                    decimals.setdefault(named[raw], known)
            if query.mint in ids and query.quote_mint in ids:
                yield number, ids[query.mint], ids[query.quote_mint]

    async def _minutes(
        self, number: int, mint: int, quote: int, begin_s: int, end_s: int, rows_max: int
    ) -> list[Candle]:
        """Return the first `rows_max` minute candles between the times."""
        rows = await self._fetch(
            f"select * from history_candles_{number} where mint = $1 and quote_mint = $2 and minute >= $3"
            f" and minute < $4 order by minute limit {rows_max}",
            mint,
            quote,
            begin_s // MINUTE_S,
            -(-end_s // MINUTE_S),
        )
        return [candle_of(tuple(row)) for row in rows]

    async def _fly(self, number: int, mint: int, quote: int, begin_s: int, end_s: int, interval_s: int) -> list[Candle]:
        """Return the candles of the trades between the times."""
        first, last = await self._rows_of_times(number, begin_s, end_s)
        rows = await self._fetch(
            f"select id, time, base, quote from history_trades_{number} where mint = $1 and id between $2 and $3"
            " and quote_mint = $4 and time >= $5 and time < $6",
            mint,
            first,
            last,
            quote,
            begin_s,
            end_s,
        )
        return candles_of(rows, interval_s)

    async def _rows_of_times(self, number: int, from_s: int | None, to_s: int | None) -> tuple[int, int]:
        """Return the first and last row number that trades from `from_s` to `to_s` can have."""
        if from_s is None and to_s is None:
            return 0, ROW_MAX
        rows = await self._fetch(
            f"select min(first), max(last) from history_minutes_{number} where minute >= $1 and minute <= $2",
            0 if from_s is None else from_s // MINUTE_S,
            ROW_MAX if to_s is None else to_s // MINUTE_S,
        )
        return (rows[0][0], rows[0][1]) if rows and rows[0][0] is not None else (1, 0)

    async def _statuses(self, slots: Sequence[int]) -> dict[int, int]:
        if not slots:
            return {}
        rows = await self._fetch(
            "select slot, status from history_slots where slot = any($1::bigint[])", sorted(set(slots))
        )
        return {row[0]: row[1] for row in rows}

    async def _stored(self, rows: Sequence[_Row]) -> list[StoredTrade]:
        statuses = await self._statuses([slot_of(row[0]) for row in rows])
        return [trade_of(tuple(row), statuses.get(slot_of(row[0]))) for row in rows]


def _conditions(number: int, query: TradeQuery) -> tuple[tuple[str, str], list[Any]]:
    """Return the SQL conditions of a query (indexed, others), and their values after those of $1 and $2.

    An index answers the indexed condition on the range of ids from $1 to $2.
    """
    indexed, others = ["id between $1 and $2"], list[str]()
    values: list[Any] = [0, 0]
    for column, key in (("trader", query.user), ("mint", query.mint)):
        if key is not None:
            values.append(key_bytes(key))
            is_first = len(indexed) == 1
            condition = f"{column} = (select id from history_keys_{number} where key = ${len(values)})"
            (indexed if is_first else others).append(condition)
    if query.program is not None:
        values.append(query.program)
        at = f"${len(values)}"
        others.append(f"program in (select id from history_programs where program_id = {at} or name = {at})")
    for comparison, time_s in ((">=", query.from_s), ("<", query.to_s)):
        if time_s is not None:
            values.append(time_s)
            others.append(f"time {comparison} ${len(values)}")
    return (" and ".join(indexed), " and ".join(others)), values
