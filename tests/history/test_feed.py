"""Test the rows that wait for a history, the holes declared when none can wait, and the start after a process ended."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from headrace.history import HistorySettings, Kept, Written
from headrace.history.candles import CandleKey
from headrace.history.feed import HistoryFeed
from headrace.history.rows import Extent, GapQuery, StoredGap, TradeQuery
from headrace.history.sqlite.adapter import SqliteHistory
from headrace.model.errors import InvariantError, TransientError
from headrace.model.facts import Restarted, SlotChanged, Traded
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
    """A feed at work on a history in a folder."""

    def __init__(self, folder: Path) -> None:
        self.history = Faulty(HistorySettings(file=str(folder / "h.db")))
        self.metrics = Metrics()
        self.changed: list[CandleKey] = []
        self.feed = HistoryFeed(
            self.history, SystemClock(), self.metrics, buffer_bytes=BUFFER, changed=self.changed.extend
        )

    async def work(self, while_it_works: Callable[[], Awaitable[None]] | None = None) -> None:
        """Run the feed until all is written."""
        task = asyncio.create_task(self.feed.run())
        if while_it_works is not None:
            await while_it_works()
        self.feed.close()
        await task

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
    await running.history.close()


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
    await running.history.close()


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
    await running.history.close()


async def test_one_fact_that_cant_be_stored_is_a_gap_and_the_others_are_kept(tmp_path: Path) -> None:
    running = Running(tmp_path)
    running.history.poison = frozenset({8})
    running.feed.hear([trade(slot, f"{slot}") for slot in (6, 7, 8, 9, 10)])
    running.feed.hear([trade(11, "wide", base=2**80)])
    await running.work()
    assert await running.slots() == [10, 9, 7, 6]
    assert await running.gaps() == [gap(11, 11, "history_unstorable"), gap(8, 8, "history_unstorable")]
    await running.history.close()


async def test_slots_that_no_process_wrote_are_a_gap(tmp_path: Path) -> None:
    for first in (7, 20):
        running = Running(tmp_path)
        running.feed.hear([trade(first, f"{first}"), SlotChanged(first + 1, "processed", None, "s")])
        await running.work()
        last = running
        await running.history.close()
    last = Running(tmp_path)
    assert await last.gaps() == [gap(8, 21, "history_not_running")]
    await last.history.close()


async def test_a_recording_that_starts_over_begins_an_empty_history(tmp_path: Path) -> None:
    running = Running(tmp_path)
    running.feed.hear([trade(7, "a")])
    await running.work()
    running.feed.hear([trade(8, "b")])
    running.feed.hear([Restarted()])
    running.feed.hear([trade(3, "c")])
    await running.work()
    assert (await running.slots(), await running.history.extent()) == ([3], Extent(3, 3))
    assert await running.gaps() == []
    await running.history.close()


async def fault_of(running: Running) -> str:
    try:
        await running.feed.check(thorough=False)
    except TransientError as error:
        return str(error)
    return ""
