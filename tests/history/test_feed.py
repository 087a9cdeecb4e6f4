"""Test the rows that wait for a history, the holes declared when none can wait, and the start after a process ended."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from headrace.history import HistorySettings, Kept, Written
from headrace.history.candles import CandleKey
from headrace.history.feed import HistoryFeed
from headrace.history.rows import Extent, GapQuery, StoredGap, TradeQuery
from headrace.history.spill import Spill
from headrace.history.sqlite.adapter import SqliteHistory
from headrace.model.errors import InvariantError, TransientError
from headrace.model.facts import Dead, Restarted, SlotChanged, Traded
from headrace.model.keys import WSOL_MINT
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from tests.history_facts import key, trade

BUFFER = 100_000


class Faulty(SqliteHistory):
    """A history that fails while `fault` is set, and that never stores trades of `poison` slots."""

    fault: Exception | None = None
    poison: frozenset[int] = frozenset()

    async def write(self, facts: Sequence[Kept]) -> Written:
        if self.fault is not None:
            raise self.fault
        if any(isinstance(fact, Traded) and fact.seen.origin.slot in self.poison for fact in facts):
            raise InvariantError("can't be stored")
        return await super().write(facts)


class Running:
    """A feed at work on a history in a folder; `spill` is the kind of file that takes what memory does not."""

    def __init__(
        self, folder: Path, spill: type[Spill] | None = None, spill_bytes: int = 10_000_000, *, empties: bool = False
    ) -> None:
        self.history = Faulty(HistorySettings(file=str(folder / "h.db")))
        self.metrics = Metrics()
        self.spill = None if spill is None else spill(folder / "h.db-spill", bytes_max=spill_bytes)
        self.changed: list[CandleKey] = []
        self.feed = HistoryFeed(
            self.history,
            SystemClock(),
            self.metrics,
            buffer_bytes=BUFFER,
            spill=self.spill,
            empties=empties,
            changed=self.changed.extend,
        )

    async def work(self, while_it_works: Callable[[], Awaitable[None]] | None = None) -> None:
        """Run the feed until all is written."""
        task, spilling = asyncio.create_task(self.feed.run()), asyncio.create_task(self.feed.spill())
        if while_it_works is not None:
            await while_it_works()
        self.feed.close()
        await task
        spilling.cancel()
        await asyncio.wait([spilling])

    async def close(self) -> None:
        await self.history.close()
        if self.spill is not None:
            self.spill.close()

    async def gaps(self) -> Sequence[StoredGap]:
        return (await self.history.gaps(GapQuery())).items

    async def slots(self) -> list[int]:
        return [item.slot for item in (await self.history.trades(TradeQuery(limit=1000))).items]

    def count(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(f"headrace_history_{name}_total") or 0.0


def gap(first: int, last: int, reason: str) -> StoredGap:
    why = reason.removeprefix("history_")
    return StoredGap(f"history:{why}:{first}:{last}", "history", None, first, last, "unrecoverable", reason)


async def test_facts_are_written_and_their_candles_reported(tmp_path: Path) -> None:
    running = Running(tmp_path)
    running.feed.hear([trade(7, "a", time_s=65), SlotChanged(7, "processed", None, "s")])
    await running.work()
    assert (await running.slots(), await running.gaps()) == ([7], [])
    assert running.changed == [CandleKey(key("M"), WSOL_MINT, 60)]
    assert (running.count("written"), running.count("dropped")) == (2, 0)
    await running.close()


async def test_what_does_not_fit_the_buffer_is_a_declared_gap(tmp_path: Path) -> None:
    running = Running(tmp_path)
    for slot in range(10, 210):
        running.feed.hear([trade(slot, f"{slot}")])
    held = int(200 - running.count("dropped"))
    assert 0 < held <= BUFFER // 1_500
    assert "come faster" in await fault_of(running)
    await running.work()
    assert sorted(await running.slots()) == list(range(10, 10 + held))
    assert await running.gaps() == [gap(10 + held, 209, "history_full")]
    await running.feed.check(thorough=False)
    await running.close()


async def test_facts_wait_while_the_history_is_away(tmp_path: Path) -> None:
    running = Running(tmp_path)
    running.history.fault = TransientError("the history can't be used: disk full")
    running.feed.hear([trade(7, "a")])

    async def comes_back() -> None:
        async with asyncio.timeout(20):
            while "disk full" not in await fault_of(running):  # noqa: ASYNC110  (the feed reports to nobody)
                await asyncio.sleep(0.001)
        running.history.fault = None

    await running.work(comes_back)
    assert await running.slots() == [7]
    await running.feed.check(thorough=False)
    await running.close()


async def test_one_fact_that_cant_be_stored_is_a_gap_and_the_others_are_kept(tmp_path: Path) -> None:
    running = Running(tmp_path)
    running.history.poison = frozenset({8})
    running.feed.hear([trade(slot, f"{slot}") for slot in (6, 7, 8, 9, 10)])
    running.feed.hear([trade(11, "wide", base=2**80)])
    await running.work()
    assert await running.slots() == [10, 9, 7, 6]
    assert await running.gaps() == [gap(11, 11, "history_unstorable"), gap(8, 8, "history_unstorable")]
    await running.close()


async def test_slots_that_no_process_wrote_are_a_gap(tmp_path: Path) -> None:
    for first in (7, 20):
        running = Running(tmp_path)
        running.feed.hear([trade(first, f"{first}"), SlotChanged(first + 1, "processed", None, "s")])
        await running.work()
        last = running
        await running.close()
    last = Running(tmp_path)
    assert await last.gaps() == [gap(8, 21, "history_not_running")]
    await last.close()


async def test_a_recording_that_starts_over_begins_an_empty_history(tmp_path: Path) -> None:
    running = Running(tmp_path, empties=True)
    running.feed.hear([trade(7, "a")])
    await running.work()
    running.feed.hear([trade(8, "b")])
    running.feed.hear([Restarted()])
    running.feed.hear([trade(3, "c")])
    await running.work()
    assert (await running.slots(), await running.history.extent()) == ([3], Extent(3, 3))
    assert await running.gaps() == []
    await running.close()


async def test_a_recording_that_starts_over_deletes_nothing_of_a_kept_history(tmp_path: Path) -> None:
    running = Running(tmp_path)
    running.feed.hear([trade(7, "a"), trade(8, "b")])
    await running.work()
    running.feed.hear([trade(9, "c"), Restarted(), trade(8, "b"), trade(3, "d")])
    await running.work()
    assert await running.slots() == [9, 8, 7, 3]
    assert await running.gaps() == []
    await running.close()


class FullDisk(Spill):
    """A file for which there is no room after two batches."""

    def append(self, facts: Sequence[Kept]) -> list[Kept]:
        if self.frames >= 2:
            raise OSError(28, "No space left on device")
        return super().append(facts)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110  (the feed reports to nobody)
            await asyncio.sleep(0.001)


async def flood(running: Running, first: int, last: int) -> None:
    """Announce a trade in each of these slots while the history is away; wait until the facts are in the file."""
    running.history.fault = TransientError("the history can't be used: disk full")
    for start in range(first, last + 1, 10):
        running.feed.hear([trade(slot, f"{slot}") for slot in range(start, min(start + 10, last + 1))])
        await until(lambda: running.feed._buffer._overflow_bytes == 0)


async def test_what_does_not_fit_the_memory_goes_through_the_file_in_order(tmp_path: Path) -> None:
    running = Running(tmp_path, Spill)

    async def comes_back() -> None:
        await flood(running, 10, 409)
        assert running.spill is not None and running.spill.frames > 2
        running.history.fault = None
        await until(lambda: running.feed._buffer.frames == 0)
        running.feed.hear([Dead(409, "fork")])

    await running.work(comes_back)
    assert await running.slots() == list(range(408, 9, -1))
    assert (await running.gaps(), running.count("dropped")) == ([], 0)
    assert (tmp_path / "h.db-spill").stat().st_size == 0
    await running.close()


async def test_facts_in_the_file_wait_for_the_next_process(tmp_path: Path) -> None:
    running = Running(tmp_path, Spill)

    async def goes_away() -> None:
        running.feed.hear([trade(9, "9")])
        await until(lambda: running.count("written") == 1)
        await flood(running, 10, 409)

    task, spilling = asyncio.create_task(running.feed.run()), asyncio.create_task(running.feed.spill())
    await goes_away()
    for each in (task, spilling):
        each.cancel()
    await asyncio.wait([task, spilling])
    await running.close()
    running = Running(tmp_path, Spill)
    running.feed.hear([trade(500, "500")])
    await running.work(lambda: until(lambda: running.feed._buffer.frames == 0))
    slots = await running.slots()
    held = slots[:-1].index(409)
    first = slots[-2]
    assert slots == [500, *range(409, first - 1, -1), 9]
    assert held == 1
    (later, earlier) = await running.gaps()
    assert later == gap(409, 500, "history_not_running")
    assert earlier.from_slot == 9
    assert first <= earlier.to_slot < first + 100
    await running.close()


async def test_what_the_disk_does_not_take_is_a_declared_gap(tmp_path: Path) -> None:
    running = Running(tmp_path, FullDisk)

    async def comes_back() -> None:
        await flood(running, 10, 409)
        running.history.fault = None
        await until(lambda: running.feed._buffer.frames == 0)

    await running.work(comes_back)
    slots = await running.slots()
    assert slots == list(range(slots[0], 9, -1))
    assert await running.gaps() == [gap(slots[0] + 1, 409, "history_full")]
    assert running.count("dropped") == 409 - slots[0]
    await running.close()


async def test_beyond_the_limit_of_the_file_facts_are_dropped_and_declared(tmp_path: Path) -> None:
    running = Running(tmp_path, Spill, spill_bytes=10_000)

    async def comes_back() -> None:
        await flood(running, 10, 409)
        running.history.fault = None
        await until(lambda: running.feed._buffer.frames == 0)

    await running.work(comes_back)
    slots = await running.slots()
    assert slots == list(range(slots[0], 9, -1))
    assert await running.gaps() == [gap(slots[0] + 1, 409, "history_full")]
    await running.close()


async def test_a_recording_that_starts_over_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    running = Running(tmp_path, Spill, empties=True)

    async def starts_over() -> None:
        await flood(running, 10, 409)
        running.feed.hear([Restarted()])
        running.feed.hear([trade(3, "c")])
        running.history.fault = None
        buffer = running.feed._buffer
        await until(lambda: buffer.is_empty and not buffer.frames)  # a feed that is closed leaves facts in the file

    await running.work(starts_over)
    assert [slot for slot in await running.slots() if slot == 3] == [3]
    assert 409 not in await running.slots()
    await running.close()


async def fault_of(running: Running) -> str:
    try:
        await running.feed.check(thorough=False)
    except TransientError as error:
        return str(error)
    return ""
