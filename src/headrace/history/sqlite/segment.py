"""Writes one segment: its trades, keys, and minute candles."""

from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

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
from headrace.history.rows import first_row, last_row, slot_of
from headrace.history.sqlite import files
from headrace.model.facts import Proof, Traded

KEYS_MAX: Final = 100_000
CANDLES_MAX: Final = 20_000
EVENTS_MAX: Final = 50_000
"""Maximum number of keys, candles and events kept in memory. Events are those of the most recently written slots."""

_INSERT: Final = f"insert or replace into trades values ({','.join('?' * 14)})"
_MINUTE: Final = """insert into minutes values (?1, ?2, ?2) on conflict (minute) do update
    set first = min(first, excluded.first), last = max(last, excluded.last)"""
_CANDLE: Final = f"insert or replace into candles values ({','.join('?' * 22)})"
_ONE_CANDLE: Final = "select * from candles where mint = ? and quote_mint = ? and minute = ?"

_Key = tuple[int, int, int]
"""Id of the mint, id of the quote mint, and minute (Unix time / 60)."""


class Segment:
    """Writer of one segment. Its transaction begins with the first change and ends with `commit` or `roll_back`."""

    def __init__(self, path: Path) -> None:
        self._db = files.open_writer(path, files.SEGMENT)
        self._forget()
        self.trades: int = self._db.execute("select count(*) from trades").fetchone()[0]
        """Number of trades that are stored or wait to be written."""

    def _forget(self) -> None:
        """Clear all caches and pending rows, which may differ from the file after a rollback."""
        self._keys: dict[str, int] = {}
        self._programs: dict[str, int] = {}
        self._decimals: dict[int, int] = {}
        self._events: OrderedDict[int, dict[str, int]] = OrderedDict()
        self._count = 0
        self._candles: OrderedDict[_Key, Candle] = OrderedDict()
        self._rows: list[tuple[Any, ...]] = []
        self._minutes: dict[int, list[int]] = {}
        self._changed: dict[_Key, None] = {}
        self._reported: dict[CandleKey, None] = {}

    @property
    def last_minute(self) -> int | None:
        """Newest minute (Unix time / 60) that has trades."""
        found: int | None = self._db.execute("select max(minute) from minutes").fetchone()[0]
        return found

    @property
    def last_slot(self) -> int | None:
        """Newest slot that has trades."""
        found: int | None = self._db.execute("select max(id) from trades").fetchone()[0]
        return None if found is None else slot_of(found)

    def add(self, fact: Traded) -> None:
        """Store a trade. A stored trade changes only if the fact is `again` and the stored trade has no mint."""
        self._begin()
        seen, trade = fact.seen, fact.trade
        slot = seen.origin.slot
        known = self._known(slot)
        row = known.get(seen.event_id)
        if row is None:
            row = known[seen.event_id] = next(reversed(known.values()), first_row(slot) - 1) + 1
            self._count += 1
            self.trades += 1
        elif not fact.again or self._has_mint(row):
            return
        mint, quote_mint = self._id(trade.mint), self._id(trade.quote_mint)
        if fact.base.decimals is not None:
            self._learn(mint, fact.base.decimals)
        if fact.quote.decimals is not None:
            self._learn(quote_mint, fact.quote.decimals)
        signature = seen.origin.signature or ""
        self._rows.append(
            (
                row,
                fact.time_s,
                mint,
                quote_mint,
                self._program(seen.event.program_id, seen.event.program),
                trade.side == "sell",
                self._id(trade.user),
                self._id(trade.pool),
                self._id(trade.authority),
                wrapped(trade.base_amount),
                wrapped(trade.quote_amount),
                signature_bytes(signature),
                place_in(seen.event_id, slot, signature),
                standing_of(seen.origin),
            )
        )
        minute = fact.time_s // MINUTE_S
        bounds = self._minutes.setdefault(minute, [row, row])
        bounds[:] = min(bounds[0], row), max(bounds[1], row)
        if mint is not None and quote_mint is not None and is_counted(trade.base_amount, trade.quote_amount):
            key = (mint, quote_mint, minute)
            self._candle(key).add(row, trade.base_amount, trade.quote_amount)
            if key not in self._changed:
                self._change(key, CandleKey(trade.mint or "", trade.quote_mint or "", minute * MINUTE_S))

    def retract(self, slot: int) -> None:
        """Delete the trades of a slot, except those whose standing is CERTAIN."""
        self._take_back(slot, "standing <> ?", (CERTAIN,))

    def prove(self, proof: Proof) -> None:
        """Set the standing of unproven trades of landed signatures to BY_SLOT; delete those of absent signatures."""
        self._begin()
        self._flush()
        within = (first_row(proof.slot), last_row(proof.slot))
        for signature in proof.landed:
            self._db.execute(
                "update trades set standing = ? where id between ? and ? and signature = ? and standing = ?",
                (BY_SLOT, *within, signature_bytes(signature), UNPROVEN),
            )
        for signature in proof.absent:
            self._take_back(proof.slot, "standing = ? and signature = ?", (UNPROVEN, signature_bytes(signature)))

    def commit(self) -> dict[CandleKey, None]:
        """End the transaction; return the candles that changed."""
        if self._db.in_transaction:
            self._flush()
            self._db.execute("commit")
        reported, self._reported = self._reported, {}
        while self._count > EVENTS_MAX and len(self._events) > 1:
            self._count -= len(self._events.popitem(last=False)[1])
        while len(self._candles) > CANDLES_MAX:
            self._candles.popitem(last=False)
        if len(self._keys) > KEYS_MAX:
            self._keys.clear()
            self._decimals.clear()
        return reported

    def roll_back(self) -> None:
        """Undo all changes since the last commit."""
        self._forget()
        if self._db.in_transaction:
            self._db.execute("rollback")
        self.trades = self._db.execute("select count(*) from trades").fetchone()[0]

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("begin immediate")

    def _take_back(self, slot: int, which: str, values: tuple[Any, ...]) -> None:
        self._begin()
        self._flush()
        rows = self._db.execute(
            f"select id, mint, quote_mint, time from trades where id between ? and ? and {which}",
            (first_row(slot), last_row(slot), *values),
        ).fetchall()
        if not rows:
            return
        self._db.executemany("delete from trades where id = ?", [(row[0],) for row in rows])
        self.trades -= len(rows)
        if (known := self._events.pop(slot, None)) is not None:
            self._count -= len(known)
        touched = {(mint, quote, time // MINUTE_S) for _, mint, quote, time in rows if mint and quote}
        for key in touched:
            self._make_anew(key)

    def _make_anew(self, key: _Key) -> None:
        """Compute a candle again from the remaining trades, as removing a trade may change its high and low."""
        self._candles.pop(key, None)
        stored = self._db.execute(_ONE_CANDLE, key).fetchone()
        if stored is None:
            return
        mint, quote_mint, minute = key
        candle = Candle(minute * MINUTE_S)
        left = self._db.execute(
            "select id, base, quote from trades where mint = ? and id between ? and ?"
            " and quote_mint = ? and time / 60 = ? order by id",
            (mint, stored[4], stored[5], quote_mint, minute),
        ).fetchall()
        for row, base, quote in left:
            if is_counted(unwrapped(base), unwrapped(quote)):
                candle.add(row, unwrapped(base), unwrapped(quote))
        if candle.trades:
            self._candles[key] = candle
        else:
            self._db.execute("delete from candles where mint = ? and quote_mint = ? and minute = ?", key)
        self._change(key, CandleKey(self._text(mint), self._text(quote_mint), minute * MINUTE_S))

    def _change(self, key: _Key, named: CandleKey) -> None:
        self._changed[key] = None
        self._reported[named] = None

    def _flush(self) -> None:
        """Write pending rows and candles, so that statements see them."""
        if self._rows:
            self._db.executemany(_INSERT, self._rows)
            self._rows = []
        for minute, (first, last) in self._minutes.items():
            self._db.execute(_MINUTE, (minute, first))
            self._db.execute(_MINUTE, (minute, last))
        self._minutes = {}
        if self._changed:
            rows = [
                candle_columns(key, candle) for key in self._changed if (candle := self._candles.get(key)) is not None
            ]
            self._db.executemany(_CANDLE, rows)
            self._changed = {}

    def _known(self, slot: int) -> dict[str, int]:
        """Return the row numbers of the slot's events by event id, ascending; read them from the file if not cached."""
        known = self._events.get(slot)
        if known is None:
            rows = self._db.execute(
                "select id, signature, place from trades where id between ? and ? order by id",
                (first_row(slot), last_row(slot)),
            )
            known = {event_id_of(slot, signature_of(raw), place): row for row, raw, place in rows}
            self._events[slot] = known
            self._count += len(known)
        else:
            self._events.move_to_end(slot)
        return known

    def _has_mint(self, row: int) -> bool:
        self._flush()
        return self._db.execute("select mint from trades where id = ?", (row,)).fetchone()[0] is not None

    def _candle(self, key: _Key) -> Candle:
        """Return the candle, including trades that wait to be written."""
        candle = self._candles.get(key)
        if candle is None:
            stored = self._db.execute(_ONE_CANDLE, key).fetchone()
            candle = Candle(key[2] * MINUTE_S) if stored is None else candle_of(stored)
            self._candles[key] = candle
        else:
            self._candles.move_to_end(key)
        return candle

    def _id(self, text: str | None) -> int | None:
        if text is None:
            return None
        found = self._keys.get(text)
        if found is None:
            raw = key_bytes(text)
            row = self._db.execute("select id from keys where key = ?", (raw,)).fetchone()
            if row is None:
                row = self._db.execute("insert into keys (key) values (?) returning id", (raw,)).fetchone()
            found = self._keys[text] = int(row[0])
        return found

    def _text(self, key_id: int) -> str:
        return key_of(self._db.execute("select key from keys where id = ?", (key_id,)).fetchone()[0])

    def _learn(self, mint: int | None, decimals: int) -> None:
        if mint is not None and self._decimals.get(mint) != decimals:
            self._db.execute("update keys set decimals = ? where id = ?", (decimals, mint))
            self._decimals[mint] = decimals

    def _program(self, program_id: str, name: str) -> int:
        found = self._programs.get(program_id)
        if found is None:
            row = self._db.execute(
                "insert into programs (program_id, name) values (?, ?)"
                " on conflict (program_id) do update set name = excluded.name returning id",
                (program_id, name),
            ).fetchone()
            found = self._programs[program_id] = int(row[0])
        return found
