"""Writes facts to the tables: begins and drops segments, and deletes what forks void."""

from collections.abc import Sequence
from typing import Any, Final, Self

from headrace.database.postgres_group_commit import Db
from headrace.history import Kept, Written
from headrace.history.candles import MINUTE_S, CandleKey
from headrace.history.columns import fits, standing_of
from headrace.history.encoding import BY_SLOT, CERTAIN, STATUSES, key_bytes, place_in, signature_bytes
from headrace.history.postgres import tables
from headrace.history.postgres.segment import Segment
from headrace.history.rows import SLOT_MAX, first_row, last_row
from headrace.model.facts import Dead, GapDeclared, Proof, SlotChanged, TokenCreated, Traded

SEGMENT_TRADES: Final = 500_000
SEGMENT_BYTES: Final = 256 * 1024 * 1024
SEGMENTS_OPEN: Final = 4
TOKENS_MAX: Final = 500_000
GAPS_MAX: Final = 100_000
"""Maximum number of tokens, and of gaps, that are kept. They are in common tables. The oldest are deleted first."""
MEASURED_FACTS: Final = 10_000
"""Facts after whose writing the sizes of the tables are measured again."""

_Statement = tuple[str, tuple[Any, ...]]


class Writing:
    """Writer of a history through one connection. At most one call runs at a time.

    After an exception the object must be discarded: what it remembers may differ from the tables.
    """

    def __init__(self, db: Db, first_slots: dict[int, int], highest: int, *, bytes_max: int, age_s: float) -> None:
        self._db, self._first_slots, self._highest = db, first_slots, highest
        self._bytes_max, self._age_s = bytes_max, age_s
        self._segment_bytes = min(SEGMENT_BYTES, bytes_max // 8)
        self._segment_trades, self._measured_facts = SEGMENT_TRADES, MEASURED_FACTS
        self._open: dict[int, Segment] = {}
        self._programs: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self._unmeasured = 0

    @classmethod
    async def open(cls, db: Db, *, bytes_max: int, age_s: float) -> Self:
        """Return the writer of the history that this connection's database has."""
        segments = await db.fetch("select number, first_slot from history_segments order by number")
        first_slots: dict[int, int] = {row[0]: row[1] for row in segments}
        highest = await db.fetchval("select coalesce(max(slot), 0) from history_slots")
        writing = cls(db, first_slots, highest, bytes_max=bytes_max, age_s=age_s)
        if first_slots:
            number, first = next(reversed(first_slots.items()))
            newest = await writing._segment(number)
            writing._highest = max(highest, first - 1, newest.last_slot or 0)
        return writing

    async def write(self, facts: Sequence[Kept]) -> Written:
        """Store the facts in one transaction."""
        refused: dict[int, None] = {}
        async with self._db.transaction():
            await self._read_programs(facts)
            waiting: dict[int, list[Traded]] = {}
            for fact in facts:
                if isinstance(fact, Traded):
                    slot = fact.seen.origin.slot
                    if not fits(fact):
                        refused[slot] = None
                    elif number := await self._number_of(slot):
                        self._highest = max(self._highest, slot)
                        waiting.setdefault(number, []).append(fact)
                elif isinstance(fact, Dead | Proof) and (number := await self._number_of(fact.slot)):
                    segment = await self._segment(number)
                    if trades := waiting.pop(number, None):
                        await segment.add(self._db, trades, self._programs)
                    if isinstance(fact, Dead):
                        await segment.retract(self._db, fact.slot)
                    else:
                        await segment.prove(self._db, fact)
            for number, trades in waiting.items():
                await (await self._segment(number)).add(self._db, trades, self._programs)
            await self._write_common([statement for fact in facts for statement in self._statements(fact)])
        changed: dict[CandleKey, None] = {}
        for segment in self._open.values():
            changed |= segment.report()
        self._unmeasured += len(facts)
        return Written(tuple(changed), tuple(refused))

    async def clear(self) -> None:
        """Delete everything."""
        async with self._db.transaction():
            for number in self._first_slots:
                await self._db.execute(f"drop table {', '.join(tables.names_of(number))}")
            for table in ("segments", "slots", "gaps", "tokens", "programs"):
                await self._db.execute(f"delete from history_{table}")
        self._first_slots, self._highest = {}, 0
        self._open, self._programs, self._names = {}, {}, {}

    async def check(self) -> None:
        """Commit a write without effect. Raises asyncpg's errors if the commit fails."""
        await self._db.execute("update history_segments set first_slot = first_slot where number = 0")

    async def keep_within_bounds(self) -> None:
        """Begin a segment if the newest is full, and drop old segments beyond the bounds.

        Does nothing until enough was written since the last call that did something.
        """
        if not self._first_slots:
            return
        newest = max(self._first_slots)
        segment = await self._segment(newest)
        if segment.trades < self._segment_trades and self._unmeasured < self._measured_facts:
            return
        self._unmeasured = 0
        names = tables.names_of(newest)
        if segment.trades >= self._segment_trades or await self._db.fetchval(tables.SIZE_OF_SEGMENT, names) >= (
            self._segment_bytes
        ):
            async with self._db.transaction():
                await self._begin_segment(max(self._highest, self._first_slots[newest]) + 1)
        while len(self._first_slots) > 1:
            oldest = min(self._first_slots)
            if await self._db.fetchval(tables.SIZE) <= self._bytes_max and not await self._is_old(oldest):
                break
            await self._drop(oldest)
        for number in sorted(self._open)[:-SEGMENTS_OPEN]:
            del self._open[number]

    def _statements(self, fact: Kept) -> list[_Statement]:
        """Return what a fact changes in the common tables."""
        if isinstance(fact, SlotChanged):
            if not 0 <= fact.slot <= SLOT_MAX:
                return []
            self._highest = max(self._highest, fact.slot)
            return [(tables.SLOT, (fact.slot, STATUSES.index(fact.status), fact.parent))]
        if isinstance(fact, Dead):
            within = (first_row(fact.slot), last_row(fact.slot))
            return [(tables.DIES, (fact.slot, fact.reason)), (tables.TOKENS_VOID, (*within, CERTAIN))]
        if isinstance(fact, GapDeclared):
            gap = fact.gap
            first, last = max(0, gap.from_slot), min(SLOT_MAX, gap.to_slot)
            return [(tables.GAP, (gap.gap_id, fact.feed, fact.program or "", first, last, gap.state, gap.reason))]
        if isinstance(fact, TokenCreated):
            origin = fact.seen.origin
            signature = origin.signature or ""
            texts = (text.encode("utf-8", "surrogatepass") for text in (fact.name, fact.symbol))
            row = (
                first_row(origin.slot),
                last_row(origin.slot),
                key_bytes(fact.mint),
                key_bytes(fact.creator),
                *texts,
                fact.seen.event.program,
                signature_bytes(signature),
                place_in(fact.seen.event_id, origin.slot, signature),
                standing_of(origin),
            )
            return [(tables.MINTED, row)]
        if isinstance(fact, Proof):
            within = (first_row(fact.slot), last_row(fact.slot))
            landed, absent = ([signature_bytes(each) for each in some] for some in (fact.landed, fact.absent))
            found: list[_Statement] = []
            if landed:
                found.append((tables.TOKENS_LANDED, (*within, landed, BY_SLOT)))
            if absent:
                found.append((tables.TOKENS_ABSENT, (*within, absent)))
            return found
        return []

    async def _write_common(self, statements: Sequence[_Statement]) -> None:
        """Run statements in their order; those with the same text that follow each other are sent together."""
        run: list[tuple[Any, ...]] = []
        for number, (sql, values) in enumerate(statements):
            run.append(values)
            if number + 1 == len(statements) or statements[number + 1][0] != sql:
                await self._db.executemany(sql, run)
                run = []

    async def _read_programs(self, facts: Sequence[Kept]) -> None:
        """Read the ids of the programs of all trades; store new programs and names."""
        for fact in facts:
            if isinstance(fact, Traded):
                event = fact.seen.event
                if self._names.get(event.program_id) != event.program:
                    number = await self._db.fetchval(tables.PROGRAM, event.program_id, event.program)
                    self._programs[event.program_id], self._names[event.program_id] = number, event.program

    async def _number_of(self, slot: int) -> int:
        """Return the number of the segment for this slot. 0: the slot is older than the history, or no valid slot."""
        if not 0 <= slot <= SLOT_MAX:
            return 0
        if not self._first_slots:
            await self._begin_segment(0)
        number = next(reversed(self._first_slots))
        if slot < self._first_slots[number]:
            return max((number for number, first in self._first_slots.items() if first <= slot), default=0)
        return number

    async def _segment(self, number: int) -> Segment:
        if number not in self._open:
            self._open[number] = await Segment.open(self._db, number)
        return self._open[number]

    async def _begin_segment(self, first_slot: int) -> None:
        number = await self._db.fetchval(
            "insert into history_segments (first_slot) values ($1) returning number", first_slot
        )
        await self._db.execute(tables.creation(number))
        self._first_slots[number] = first_slot

    async def _is_old(self, number: int) -> bool:
        """Return whether a segment's newest trade is more than `age_s` older than the newest trade of all."""
        numbers = sorted(self._first_slots)
        newest = next(filter(None, [await self._last_minute(each) for each in reversed(numbers[-2:])]), None)
        last = await self._last_minute(number)
        return newest is not None and last is not None and (newest - last) * MINUTE_S > self._age_s

    async def _last_minute(self, number: int) -> int | None:
        found: int | None = await self._db.fetchval(f"select max(minute) from history_minutes_{number}")
        return found

    async def _drop(self, number: int) -> None:
        """Drop a segment, and what the common tables have from before the segment that is then the oldest.

        Tokens from before stay, as their mints may still trade.
        """
        first_slot = min(first for other, first in self._first_slots.items() if other != number)
        async with self._db.transaction():
            # A reader of the segment delays the drop, and the drop the readers after it: better later than long.
            await self._db.execute("set local lock_timeout = '50ms'")
            await self._db.execute(f"drop table {', '.join(tables.names_of(number))}")
            await self._db.execute("delete from history_segments where number = $1", number)
            await self._db.execute("delete from history_slots where slot < $1", first_slot)
            await self._db.execute("delete from history_gaps where last < $1", first_slot)
            for table, most in (("tokens", TOKENS_MAX), ("gaps", GAPS_MAX)):
                await self._db.execute(
                    f"delete from history_{table}"
                    f" where id <= (select id from history_{table} order by id desc limit 1 offset {most})"
                )
        del self._first_slots[number]
        self._open.pop(number, None)
