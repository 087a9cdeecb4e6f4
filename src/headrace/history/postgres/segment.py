"""Writes one segment: its trades, keys, and minute candles."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Final, Self

from headrace.database.postgres_group_commit import Db
from headrace.history.candles import MINUTE_S, Candle, CandleKey, is_counted
from headrace.history.columns import candle_columns, candle_of, standing_of
from headrace.history.encoding import (
    BY_SLOT,
    CERTAIN,
    UNPROVEN,
    event_id_of,
    key_bytes,
    key_of,
    place_in,
    signature_bytes,
    signature_of,
    unwrapped,
    wrapped,
)
from headrace.history.postgres import tables
from headrace.history.rows import first_row, last_row, slot_of
from headrace.model.facts import Proof, Traded

KEYS_MAX: Final = 100_000
CANDLES_MAX: Final = 20_000
EVENTS_MAX: Final = 50_000
"""Maximum number of keys, of candles and of events in memory. The events are those of the slots written last."""
TURN: Final = 200
"""Trades after which other tasks of the event loop get their turn."""
COPY_MAX: Final = 1_000

_MINT: Final = tables.TRADE_COLUMNS.index("mint")

_Key = tuple[int, int, int]
"""Id of the mint, id of the quote mint, and minute (Unix time / 60)."""


class Segment:
    """Writer of one segment, inside the transactions of its caller.

    If a transaction fails, the object must be discarded: what it remembers may differ from the tables.
    """

    def __init__(self, number: int, trades: int, last: int, keys: int) -> None:
        self.number = number
        self.trades = trades
        """Number of trades that are stored."""
        self._last, self._next_key = last, keys + 1
        self._keys: dict[str, int] = {}
        self._decimals: dict[int, int] = {}
        self._events: OrderedDict[int, dict[str, int]] = OrderedDict()
        self._count = 0
        self._candles: OrderedDict[_Key, Candle] = OrderedDict()
        self._rows: dict[int, tuple[Any, ...]] = {}
        self._replaced: list[int] = []
        self._minutes: dict[int, list[int]] = {}
        self._changed: dict[_Key, None] = {}
        self._reported: dict[CandleKey, None] = {}

    @classmethod
    async def open(cls, db: Db, number: int) -> Self:
        """Return the writer of a segment whose tables exist."""
        found = await db.fetchrow(
            f"select (select count(*) from history_trades_{number}), (select max(id) from history_trades_{number}),"
            f" (select max(id) from history_keys_{number})"
        )
        trades, last, keys = found or (0, None, None)
        return cls(number, trades, -1 if last is None else last, keys or 0)

    @property
    def last_slot(self) -> int | None:
        """Newest slot that has trades."""
        return None if self._last < 0 else slot_of(self._last)

    async def add(self, db: Db, facts: Sequence[Traded], programs: dict[str, int]) -> None:
        """Store trades. A stored trade changes only if the fact is `again` and the stored trade has no mint.

        `programs` has the number of each trade's program.
        """
        await self._read_events(db, {fact.seen.origin.slot for fact in facts})
        await self._read_keys(db, facts)
        await self._read_candles(db, facts)
        without_mint = await self._read_without_mint(db, facts)
        for number, fact in enumerate(facts):
            if number % TURN == TURN - 1:
                await asyncio.sleep(0)
            self._take(fact, programs[fact.seen.event.program_id], without_mint)
        await self._flush(db)

    async def retract(self, db: Db, slot: int) -> None:
        """Delete the trades of a slot, except those whose standing is CERTAIN."""
        if first_row(slot) <= self._last:
            await self._take_back(db, slot, "standing <> $3", CERTAIN)

    async def prove(self, db: Db, proof: Proof) -> None:
        """Set the standing of unproven trades of landed signatures to BY_SLOT; delete those of absent signatures."""
        if first_row(proof.slot) > self._last:
            return
        if proof.landed:
            await db.execute(
                f"update history_trades_{self.number} set standing = {BY_SLOT}"
                f" where id between $1 and $2 and signature = any($3::bytea[]) and standing = {UNPROVEN}",
                first_row(proof.slot),
                last_row(proof.slot),
                [signature_bytes(each) for each in proof.landed],
            )
        if proof.absent:
            absent = [signature_bytes(each) for each in proof.absent]
            await self._take_back(db, proof.slot, f"standing = {UNPROVEN} and signature = any($3::bytea[])", absent)

    def report(self) -> dict[CandleKey, None]:
        """Return the candles that changed since the last call. Called after a commit."""
        while self._count > EVENTS_MAX and len(self._events) > 1:
            self._count -= len(self._events.popitem(last=False)[1])
        while len(self._candles) > CANDLES_MAX:
            self._candles.popitem(last=False)
        if len(self._keys) > KEYS_MAX:
            self._keys.clear()
            self._decimals.clear()
        reported, self._reported = self._reported, {}
        return reported

    def _take(self, fact: Traded, program: int, without_mint: set[int]) -> None:
        seen, trade = fact.seen, fact.trade
        slot = seen.origin.slot
        known = self._events[slot]
        row = known.get(seen.event_id)
        if row is None:
            row = known[seen.event_id] = next(reversed(known.values()), first_row(slot) - 1) + 1
            self._count += 1
            self.trades += 1
        elif not fact.again:
            return
        elif (pending := self._rows.get(row)) is not None:
            if pending[_MINT] is not None:
                return
        elif row in without_mint:
            self._replaced.append(row)
        else:
            return
        mint, quote_mint = self._id(trade.mint), self._id(trade.quote_mint)
        signature = seen.origin.signature or ""
        self._rows[row] = (
            row,
            fact.time_s,
            wrapped(trade.base_amount),
            wrapped(trade.quote_amount),
            mint,
            quote_mint,
            self._id(trade.user),
            self._id(trade.pool),
            self._id(trade.authority),
            program,
            standing_of(seen.origin),
            trade.side == "sell",
            signature_bytes(signature),
            place_in(seen.event_id, slot, signature),
        )
        minute = fact.time_s // MINUTE_S
        bounds = self._minutes.setdefault(minute, [row, row])
        bounds[:] = min(bounds[0], row), max(bounds[1], row)
        if mint is not None and quote_mint is not None and is_counted(trade.base_amount, trade.quote_amount):
            key = (mint, quote_mint, minute)
            self._candles[key].add(row, trade.base_amount, trade.quote_amount)
            if key not in self._changed:
                self._change(key, CandleKey(trade.mint or "", trade.quote_mint or "", minute * MINUTE_S))

    async def _read_events(self, db: Db, slots: set[int]) -> None:
        """Read the events of slots that are not in memory, with their row numbers."""
        unknown = [slot for slot in slots if slot not in self._events]
        for slot in slots - set(unknown):
            self._events.move_to_end(slot)
        for slot in unknown:
            self._events[slot] = {}
        stored = [slot for slot in unknown if first_row(slot) <= self._last]
        if not stored:
            return
        rows = await db.fetch(
            f"select t.id, t.signature, t.place from unnest($1::bigint[], $2::bigint[]) as slot (first, last)"
            f" join history_trades_{self.number} t on t.id between slot.first and slot.last order by t.id",
            [first_row(slot) for slot in stored],
            [last_row(slot) for slot in stored],
        )
        for row, raw, place in rows:
            slot = slot_of(row)
            self._events[slot][event_id_of(slot, signature_of(raw), place)] = row
        self._count += len(rows)

    async def _read_keys(self, db: Db, facts: Sequence[Traded]) -> None:
        """Read the ids of the facts' keys. Store new keys, and the decimals that the facts know."""
        wanted: dict[str, None] = {}
        for fact in facts:
            trade = fact.trade
            for text in (trade.mint, trade.quote_mint, trade.user, trade.pool, trade.authority):
                if text is not None and text not in self._keys:
                    wanted[text] = None
        raws = {key_bytes(text): text for text in wanted}
        new: list[tuple[int, bytes, int | None]] = []
        if raws:
            rows = await db.fetch(
                f"select id, key, decimals from history_keys_{self.number} where key = any($1::bytea[])", list(raws)
            )
            for number, raw, decimals in rows:
                self._keys[raws.pop(raw)] = number
                if decimals is not None:
                    self._decimals[number] = decimals
        learned: dict[int, int] = {}
        for raw, text in raws.items():
            self._keys[text] = self._next_key
            new.append((self._next_key, raw, None))
            self._next_key += 1
        for fact in facts:
            for text, of_mint in ((fact.trade.mint, fact.base), (fact.trade.quote_mint, fact.quote)):
                if text is not None and (decimals := of_mint.decimals) is not None:
                    number = self._keys[text]
                    if self._decimals.get(number) != decimals:
                        learned[number] = self._decimals[number] = decimals
        if new:
            records = [(number, raw, learned.pop(number, None)) for number, raw, _ in new]
            await db.copy_records_to_table(
                f"history_keys_{self.number}", records=records, columns=("id", "key", "decimals")
            )
        if learned:
            await db.execute(
                f"update history_keys_{self.number} k set decimals = l.decimals"
                " from unnest($1::integer[], $2::integer[]) as l (id, decimals) where k.id = l.id",
                list(learned),
                list(learned.values()),
            )

    async def _read_candles(self, db: Db, facts: Sequence[Traded]) -> None:
        """Read the candles that the facts may change."""
        wanted: dict[_Key, None] = {}
        for fact in facts:
            mint, quote_mint = self._id(fact.trade.mint), self._id(fact.trade.quote_mint)
            if mint is not None and quote_mint is not None:
                key = (mint, quote_mint, fact.time_s // MINUTE_S)
                if key in self._candles:
                    self._candles.move_to_end(key)
                else:
                    wanted[key] = None
        if not wanted:
            return
        rows = await db.fetch(
            "select c.* from unnest($1::integer[], $2::integer[], $3::integer[]) as key (mint, quote_mint, minute)"
            f" join history_candles_{self.number} c using (mint, quote_mint, minute)",
            *_turned(wanted),
        )
        for key in wanted:
            self._candles[key] = Candle(key[2] * MINUTE_S)
        for row in rows:
            self._candles[row[0], row[1], row[2]] = candle_of(tuple(row))

    async def _read_without_mint(self, db: Db, facts: Sequence[Traded]) -> set[int]:
        """Return the rows of facts that come again and are stored without a mint."""
        rows = [
            row
            for fact in facts
            if fact.again and (row := self._events[fact.seen.origin.slot].get(fact.seen.event_id)) is not None
        ]
        if not rows:
            return set()
        found = await db.fetch(
            f"select id from history_trades_{self.number} where id = any($1::bigint[]) and mint is null", rows
        )
        return {row[0] for row in found}

    async def _take_back(self, db: Db, slot: int, which: str, value: object) -> None:
        rows = await db.fetch(
            f"delete from history_trades_{self.number} where id between $1 and $2 and {which}"
            " returning mint, quote_mint, time",
            first_row(slot),
            last_row(slot),
            value,
        )
        if not rows:
            return
        self.trades -= len(rows)
        if (known := self._events.pop(slot, None)) is not None:
            self._count -= len(known)
        touched = {(mint, quote, time // MINUTE_S): None for mint, quote, time in rows if mint and quote}
        for key in touched:
            await self._make_anew(db, key)
        await self._flush(db)

    async def _make_anew(self, db: Db, key: _Key) -> None:
        """Compute a candle again from the remaining trades, as removing a trade may change its high and low."""
        self._candles.pop(key, None)
        of_key = f"from history_candles_{self.number} where mint = $1 and quote_mint = $2 and minute = $3"
        stored = await db.fetchrow(f"select first, last {of_key}", *key)
        if stored is None:
            return
        mint, quote_mint, minute = key
        candle = Candle(minute * MINUTE_S)
        left = await db.fetch(
            f"select id, base, quote from history_trades_{self.number} where mint = $1 and id between $2 and $3"
            " and quote_mint = $4 and time / 60 = $5 order by id",
            mint,
            stored[0],
            stored[1],
            quote_mint,
            minute,
        )
        for row, base, quote in left:
            if is_counted(unwrapped(base), unwrapped(quote)):
                candle.add(row, unwrapped(base), unwrapped(quote))
        if candle.trades:
            self._candles[key] = candle
        else:
            await db.execute(f"delete {of_key}", *key)
        texts = [await self._text(db, each) for each in (mint, quote_mint)]
        self._change(key, CandleKey(texts[0], texts[1], minute * MINUTE_S))

    def _change(self, key: _Key, named: CandleKey) -> None:
        self._changed[key] = None
        self._reported[named] = None

    async def _flush(self, db: Db) -> None:
        """Write pending rows and candles."""
        if self._replaced:
            await db.execute(f"delete from history_trades_{self.number} where id = any($1::bigint[])", self._replaced)
            self._replaced = []
        rows = list(self._rows.values())
        for start in range(0, len(rows), COPY_MAX):
            await db.copy_records_to_table(
                f"history_trades_{self.number}", records=rows[start : start + COPY_MAX], columns=tables.TRADE_COLUMNS
            )
        if rows:
            self._last = max(self._last, max(self._rows))
            self._rows = {}
        if self._minutes:
            minutes = [(minute, first, last) for minute, (first, last) in self._minutes.items()]
            await db.execute(tables.upsert_minutes(self.number), *_turned(minutes))
            self._minutes = {}
        changed = [(key, candle) for key in self._changed if (candle := self._candles.get(key)) is not None]
        for start in range(0, len(changed), COPY_MAX):
            columns = _turned(candle_columns(key, candle) for key, candle in changed[start : start + COPY_MAX])
            await db.execute(tables.upsert_candles(self.number), *columns)
        self._changed = {}

    def _id(self, text: str | None) -> int | None:
        return None if text is None else self._keys[text]

    async def _text(self, db: Db, key_id: int) -> str:
        return key_of(await db.fetchval(f"select key from history_keys_{self.number} where id = $1", key_id))


def _turned(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Return a list for each column of the rows, of which there is at least one."""
    return [list(column) for column in zip(*rows, strict=True)]
