"""Test every history in the register by one contract; registering a new one is enough."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from headrace.history import HISTORIES, History, Kept
from headrace.history.candles import INTERVALS_S, Candle
from headrace.history.rows import (
    CandleQuery,
    Extent,
    GapQuery,
    SlotQuery,
    StoredGap,
    StoredSlot,
    StoredToken,
    StoredTrade,
    TokenQuery,
    TradeQuery,
)
from headrace.model.errors import TransientError
from headrace.model.facts import Dead, Gap, GapDeclared, Proof, SlotChanged
from headrace.model.keys import USDC_MINT, WSOL_MINT
from headrace.model.updates import SlotStatus
from tests.contracts.contexts import Opener
from tests.history_facts import PUMP, key, seen, signature, token, trade
from tests.orders.store.servers import empty_database, settings_of

MINUTE_S = 1_790_000_040
NOW_S = MINUTE_S + 40

Open = Callable[..., Awaitable[History]]


@pytest.fixture(scope="module")
def database(postgres_url: str) -> Iterator[str]:
    """The URL of a database for all tests of this file; to make one for each takes longer than most tests."""
    made = empty_database(postgres_url)
    with asyncio.Runner() as runner, ThreadPoolExecutor(1) as thread:  # a loop runs in this thread already
        yield thread.submit(runner.run, made.__aenter__()).result()
        thread.submit(runner.run, made.__aexit__(None, None, None)).result()
        thread.submit(runner.close).result()


@pytest.fixture
async def place(kind_of_store: tuple[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A file or database without a history."""
    if kind_of_store[0] == "sqlite":
        return str(tmp_path / "history.db")
    url: str = request.getfixturevalue("database")
    db = await asyncpg.connect(url)
    await db.execute("drop schema if exists headrace cascade")
    await db.close()
    return url


@pytest.fixture
async def open_one(kind_of_store: tuple[str, str], place: str) -> AsyncIterator[Open]:
    """Opens the same history each time, as another process would."""
    async with Opener(HISTORIES, kind_of_store[0]) as opener:
        yield partial(opener.open, **settings_of(place))


@pytest.fixture
async def history(open_one: Open) -> History:
    return await open_one()


def changed(slot: int, status: SlotStatus, parent: int | None = None) -> SlotChanged:
    return SlotChanged(slot, status, parent, "rpc-0")


async def ids(history: History, **query: Any) -> list[str]:
    """The names of the transactions of all trades of the query, page after page."""
    return [item.signature for item in await every(history, **query)]


async def every(history: History, **query: Any) -> list[StoredTrade]:
    found: list[StoredTrade] = []
    asked = TradeQuery(**query)
    while True:
        page = await history.trades(asked)
        found += page.items
        if page.next is None:
            return found
        asked = asked._replace(before=page.next)


async def candles(history: History, interval: str = "1m", **query: Any) -> Sequence[Candle]:
    asked = {"mint": key("M"), "quote_mint": WSOL_MINT, "interval_s": INTERVALS_S[interval], **query}
    return (await history.candles(CandleQuery(**asked))).items


async def candle_pages(history: History, asked: CandleQuery) -> list[Sequence[Candle]]:
    pages: list[Sequence[Candle]] = []
    while True:
        page = await history.candles(asked)
        pages.append(page.items)
        if page.next is None:
            return pages
        asked = asked._replace(after=page.next)


def numbers(candle: Candle) -> tuple[Any, ...]:
    prices = (candle.open, candle.high, candle.low, candle.close)
    return (candle.time_s, *map(candle.text, prices), candle.base_amount, candle.quote_amount, candle.trades)


async def test_a_trade_is_answered_as_it_was_written(history: History) -> None:
    await history.write([trade(7, "a", base=2**64 - 1, quote=2**63, time_s=NOW_S, side="sell")])
    (found,) = (await history.trades(TradeQuery())).items
    assert found == StoredTrade(
        slot=7,
        event_id=f"7:{signature('a')}:0:0",
        signature=signature("a"),
        time_s=NOW_S,
        program="pump",
        program_id=PUMP,
        side="sell",
        mint=key("M"),
        quote_mint=WSOL_MINT,
        base_amount=2**64 - 1,
        quote_amount=2**63,
        user=key("alice"),
        pool=key("pool"),
        authority=None,
        commitment="processed",
    )


async def test_trades_are_newest_first_by_slot_then_arrival(history: History) -> None:
    await history.write([trade(7, "a"), trade(9, "b"), trade(7, "c"), trade(8, "d")])
    assert await ids(history) == [*map(signature, "bdca")]


async def test_the_same_trade_again_changes_nothing(open_one: Open) -> None:
    history = await open_one()
    facts = [trade(7, "a", time_s=NOW_S), trade(7, "a", nth=1, time_s=NOW_S)]
    await history.write([*facts, *facts])
    await history.write(facts)
    await history.close()
    again = await open_one()
    await again.write(facts)
    assert len(await every(again)) == 2
    ((candle,),) = [await candles(again)]
    assert (candle.trades, candle.quote_amount) == (2, 2_000)


async def test_a_trade_gets_its_mints_when_they_are_known(open_one: Open) -> None:
    history = await open_one()
    await history.write([trade(7, "a", mint=None, quote_mint=None, time_s=NOW_S)])
    assert (await every(history))[0].mint is None
    assert not await candles(history)
    for _ in range(2):
        await history.write([trade(7, "a", time_s=NOW_S, again=True)])
    assert [item.mint for item in await every(history)] == [key("M")]
    assert [candle.trades for candle in await candles(history)] == [1]
    assert await ids(history, mint=key("M")) == [signature("a")]


async def test_trades_are_found_by_mint_user_program_and_time(history: History) -> None:
    await history.write(
        [
            trade(7, "a", mint="M", user="alice", time_s=NOW_S),
            trade(7, "b", mint="N", user="alice", time_s=NOW_S + 1),
            trade(8, "c", mint="M", user="bob", time_s=NOW_S + 60),
            trade(9, "d", mint="M", user="bob", program="raydium", program_id=key("R"), time_s=NOW_S + 61),
        ]
    )
    assert await ids(history, mint=key("M")) == [*map(signature, "dca")]
    assert await ids(history, user=key("alice")) == [*map(signature, "ba")]
    assert await ids(history, mint=key("M"), user=key("bob")) == [*map(signature, "dc")]
    assert await ids(history, program="pump") == [*map(signature, "cba")]
    assert await ids(history, program=PUMP) == [*map(signature, "cba")]
    assert await ids(history, mint=key("M"), program="raydium") == [signature("d")]
    assert await ids(history, from_s=NOW_S + 1, to_s=NOW_S + 61) == [*map(signature, "cb")]
    assert await ids(history, mint=key("M"), from_s=NOW_S, to_s=NOW_S + 60) == [signature("a")]
    assert await ids(history, from_s=NOW_S + 999) == []
    assert await ids(history, mint=key("nowhere")) == await ids(history, program="none") == []


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_pages_have_every_trade_once(history: History, limit: int) -> None:
    facts = [trade(slot, f"{slot}.{n}", mint="MN"[n % 2]) for slot in range(5) for n in range(4)]
    await history.write(facts)
    expected = [fact.seen.origin.signature for fact in reversed(facts)]
    assert await ids(history, limit=limit) == expected
    assert await ids(history, limit=limit, program="pump", mint=key("M")) == expected[1::2]


async def test_a_slot_that_dies_takes_its_trades_back(history: History) -> None:
    await history.write([trade(7, "a", time_s=NOW_S, quote=9_000), trade(8, "b", time_s=NOW_S, quote=5_000)])
    written = await history.write([changed(7, "dead"), Dead(7, "fork")])
    assert await ids(history) == [signature("b")]
    assert [numbers(candle)[2] for candle in await candles(history)] == ["0.0025"]
    assert [candle.quote_mint for candle in written.candles] == [WSOL_MINT]
    await history.write([Dead(8, "fork")])
    assert not await ids(history)
    assert not await candles(history)
    assert (await history.slots(SlotQuery())).items == [StoredSlot(7, "dead", None, "fork")]


async def test_a_slot_that_happens_anew_has_its_new_trades(history: History) -> None:
    await history.write(
        [trade(7, "a", time_s=NOW_S), Dead(7, "equivocation"), trade(7, "a", time_s=NOW_S, quote=1_500)]
    )
    assert [item.quote_amount for item in await every(history)] == [1_500]
    assert [candle.quote_amount for candle in await candles(history)] == [1_500]


async def test_a_certain_trade_stands_when_its_slot_dies(history: History) -> None:
    await history.write([trade(7, "a", commitment="confirmed"), trade(7, "b"), token(7, "c", commitment="confirmed")])
    await history.write([Dead(7, "fork")])
    assert [(item.signature, item.commitment) for item in await every(history)] == [(signature("a"), "confirmed")]
    assert [item.commitment for item in (await history.tokens(TokenQuery())).items] == ["confirmed"]


async def test_commitment_follows_the_slot(history: History) -> None:
    await history.write([trade(7, "a"), trade(7, "b", unproven=True), token(7, "c")])
    steps: tuple[tuple[SlotStatus, str], ...] = (
        ("processed", "processed"),
        ("confirmed", "confirmed"),
        ("finalized", "finalized"),
        ("processed", "finalized"),
    )
    for status, shown in steps:
        await history.write([changed(7, status, 6)])
        assert [item.commitment for item in await every(history)] == ["processed", shown]
        assert [item.commitment for item in (await history.tokens(TokenQuery())).items] == [shown]
    assert (await history.slots(SlotQuery())).items == [StoredSlot(7, "finalized", 6, None)]


async def test_a_proof_decides_unproven_trades(history: History) -> None:
    unproven = [trade(7, name, unproven=True, time_s=NOW_S) for name in "abc"]
    await history.write([*unproven, trade(7, "d", time_s=NOW_S), changed(7, "confirmed")])
    await history.write([Proof(7, (signature("a"),), (signature("b"), signature("d")), (signature("c"),))])
    shown = [(item.signature, item.commitment) for item in await every(history)]
    assert shown == [(signature("d"), "confirmed"), (signature("c"), "processed"), (signature("a"), "confirmed")]
    assert [candle.trades for candle in await candles(history)] == [3]


async def test_a_dead_slot_lives_again_only_where_it_was_built_anew(history: History) -> None:
    await history.write([changed(7, "dead"), Dead(7, "fork"), changed(8, "dead"), Dead(8, "equivocation")])
    await history.write([changed(7, "processed"), changed(8, "processed")])
    assert [item.status for item in (await history.slots(SlotQuery())).items] == ["processed", "dead"]
    await history.write([changed(7, "confirmed")])
    assert (await history.slots(SlotQuery(to_slot=7))).items == [StoredSlot(7, "confirmed", None, None)]


async def test_candles_are_those_of_the_trades(history: History) -> None:
    amounts = [(4_000, 1_000), (1_000, 2_000), (999, 1), (8_000, 1_000), (2_000, 1_000), (5, 0)]
    await history.write(
        [trade(7 + n, f"{n}", base=base, quote=quote, time_s=NOW_S + n) for n, (base, quote) in enumerate(amounts)]
    )
    ((candle,),) = [await candles(history)]
    assert numbers(candle) == (MINUTE_S, "0.00025", "0.002", "0.000125", "0.0005", 15_999, 5_001, 5)
    assert [numbers(one)[0] for one in await candles(history, "1s")] == [NOW_S + n for n in range(5)]
    assert [numbers(one)[1] for one in await candles(history, "1s")] == ["0.00025", "0.002", None, "0.000125", "0.0005"]
    for interval in ("1m", "5m", "15m", "1h", "4h", "1d"):
        (longer,) = await candles(history, interval)
        assert numbers(longer) == (NOW_S // INTERVALS_S[interval] * INTERVALS_S[interval], *numbers(candle)[1:])


async def test_a_late_trade_is_the_open_of_its_candle(history: History) -> None:
    await history.write([trade(9, "b", quote=2_000, time_s=NOW_S)])
    await history.write([trade(8, "a", quote=1_000, time_s=NOW_S)])
    ((candle,),) = [await candles(history)]
    assert numbers(candle)[1:5] == ("0.0005", "0.001", "0.0005", "0.001")


async def test_candles_are_paged_oldest_first(history: History) -> None:
    times = [MINUTE_S + minutes * 60 for minutes in (0, 1, 2, 5, 9)]
    await history.write([trade(7 + n, f"{n}", time_s=time_s) for n, time_s in enumerate(times)])
    pages = await candle_pages(history, CandleQuery(key("M"), WSOL_MINT, 60, from_s=times[0], limit=2))
    assert all(len(page) <= 2 for page in pages)
    assert [candle.time_s for page in pages for candle in page] == times
    assert [candle.time_s for candle in await candles(history, limit=5)] == times[3:]
    assert [candle.time_s for candle in await candles(history, from_s=times[1], to_s=times[3])] == times[1:3]
    assert not await candles(history, quote_mint=USDC_MINT)


@pytest.mark.parametrize("interval", ["1s", "15s", "1m", "1h"])
@pytest.mark.parametrize("limit", [3, 1000])
async def test_pages_of_candles_have_every_trade_once(history: History, interval: str, limit: int) -> None:
    times = [MINUTE_S + 61 * n for n in range(100)]
    await history.write([trade(7 + n, f"{n}", time_s=time_s) for n, time_s in enumerate(times)])
    length_s = INTERVALS_S[interval]
    pages = await candle_pages(history, CandleQuery(key("M"), WSOL_MINT, length_s, from_s=0, limit=limit))
    found = [(candle.time_s, candle.trades) for page in pages for candle in page]
    counts = Counter(time_s // length_s * length_s for time_s in times)
    assert found == sorted(counts.items())


async def test_a_candle_is_whole_wherever_the_question_ends(history: History) -> None:
    await history.write([trade(7 + n, f"{n}", time_s=NOW_S // 3600 * 3600 + 60 * n) for n in range(60)])
    begin_s = NOW_S // 3600 * 3600
    (candle,) = await candles(history, "1h", from_s=begin_s, to_s=begin_s + 90)
    assert candle.trades == 60


async def test_sums_may_go_beyond_64_bits(history: History) -> None:
    most = 2**64 - 1
    await history.write([trade(7, f"{n}", base=most, quote=most, time_s=NOW_S) for n in range(5)])
    ((candle,),) = [await candles(history)]
    assert (candle.base_amount, candle.quote_amount) == (5 * most, 5 * most)


async def test_a_price_without_decimals_is_not_known(history: History) -> None:
    await history.write([trade(7, "a", time_s=NOW_S, decimals=(None, 9))])
    ((candle,),) = [await candles(history)]
    assert numbers(candle)[1] is None
    await history.write([trade(8, "b", time_s=NOW_S, decimals=(6, None))])
    ((candle,),) = [await candles(history)]
    assert numbers(candle)[1] == "0.0005"


async def test_tokens_are_found_by_mint_and_creator(history: History) -> None:
    facts = [token(7, "a", mint="M"), token(8, "b", mint="N", creator="bob"), token(8, "c", mint="O")]
    await history.write([*facts, *facts])
    assert [item.symbol for item in (await history.tokens(TokenQuery())).items] == ["O", "N", "M"]
    (found,) = (await history.tokens(TokenQuery(mint=key("N")))).items
    event_id = f"8:{signature('b')}:0:0"
    assert found == StoredToken(8, event_id, signature("b"), "pump", key("N"), "The N", "N", key("bob"), "processed")
    assert [item.symbol for item in (await history.tokens(TokenQuery(creator=key("alice")))).items] == ["O", "M"]
    first = await history.tokens(TokenQuery(limit=2))
    rest = await history.tokens(TokenQuery(limit=2, before=first.next))
    assert [item.symbol for item in (*first.items, *rest.items)] == ["O", "N", "M"]
    assert rest.next is None
    await history.write([Dead(8, "fork")])
    assert [item.symbol for item in (await history.tokens(TokenQuery())).items] == ["M"]


async def test_a_gap_is_as_it_was_declared_last(history: History) -> None:
    gap = Gap("g1", 7, 9, "open", "lost")
    await history.write(
        [GapDeclared(gap, "logs:P"), GapDeclared(Gap("g2", 20, 30, "unrecoverable", "x"), "slots", "pump")]
    )
    await history.write([GapDeclared(gap._replace(state="backfilled"), "logs:P")])
    first, last = (
        StoredGap("g1", "logs:P", None, 7, 9, "backfilled", "lost"),
        StoredGap("g2", "slots", "pump", 20, 30, "unrecoverable", "x"),
    )
    assert (await history.gaps(GapQuery())).items == [last, first]
    assert (await history.gaps(GapQuery(from_slot=9, to_slot=19))).items == [first]
    assert (await history.gaps(GapQuery(feed="slots"))).items == [last]
    page = await history.gaps(GapQuery(limit=1))
    assert (page.items, (await history.gaps(GapQuery(limit=1, before=page.next))).items) == ([last], [first])


async def test_slots_are_paged_newest_first(history: History) -> None:
    await history.write([changed(slot, "processed", slot - 1) for slot in range(1, 8)])
    page = await history.slots(SlotQuery(from_slot=2, to_slot=6, limit=3))
    assert [item.slot for item in page.items] == [6, 5, 4]
    page = await history.slots(SlotQuery(from_slot=2, to_slot=6, limit=3, before=page.next))
    assert ([item.slot for item in page.items], page.next) == ([3, 2], None)


async def test_what_does_not_fit_is_refused_and_the_rest_is_kept(history: History) -> None:
    written = await history.write(
        [
            trade(7, "a"),
            trade(8, "b", base=2**64),
            trade(9, "c", quote=-1),
            trade(2**40, "d"),
            trade(10, "e", time_s=2**32),
        ]
    )
    assert sorted(written.refused) == [8, 9, 10, 2**40]
    assert await ids(history) == [signature("a")]


async def test_text_of_any_kind_is_kept(history: History) -> None:
    odd = trade(7, "a")
    odd = odd.__class__(
        odd.seen, odd.trade.__class__("no key\0\ud800", WSOL_MINT, "buy", "", 1, 2, None), 0, odd.base, odd.quote
    )
    named = token(7, "b")
    await history.write([odd, named.__class__(seen(7, "b"), named.mint, "\ud83d\0'\"", "", named.creator)])
    (found,) = await every(history)
    assert (found.mint, found.user, found.pool) == ("no key\0\ud800", "", None)
    assert (await history.tokens(TokenQuery())).items[0].name == "\ud83d\0'\""


async def test_what_was_written_outlives_the_process(open_one: Open) -> None:
    history = await open_one()
    assert await history.extent() == Extent(None, None)
    await history.write([trade(7, "a", time_s=NOW_S), token(7, "b"), changed(9, "confirmed")])
    await history.close()
    again = await open_one()
    assert await again.extent() == Extent(7, 9)
    await again.write([trade(8, "c", time_s=NOW_S)])
    assert await ids(again) == [*map(signature, "ca")]
    assert [candle.trades for candle in await candles(again)] == [2]


async def test_a_history_has_one_writer(open_one: Open) -> None:
    history = await open_one()
    await history.write([trade(7, "a")])
    with pytest.raises(TransientError, match="another process has the history"):
        await (await open_one()).write([trade(8, "b")])
    await history.close()
    await (await open_one()).write([trade(8, "b")])


async def test_clear_forgets_everything(history: History) -> None:
    facts: list[Kept] = [trade(7, "a", time_s=NOW_S), token(7, "b"), changed(9, "confirmed")]
    await history.write([*facts, GapDeclared(Gap("g1", 7, 9, "open", "lost"), "logs:P")])
    await history.clear()
    assert await history.extent() == Extent(None, None)
    assert not await ids(history)
    assert not await candles(history)
    assert not (await history.tokens(TokenQuery())).items
    assert not (await history.gaps(GapQuery())).items
    await history.write(facts)
    assert await ids(history) == [signature("a")]
    assert [candle.trades for candle in await candles(history)] == [1]


async def test_a_cleared_history_that_was_read_answers_with_what_is_written_next(history: History) -> None:
    for slot in (7, 8, 9):
        name = str(slot)
        await history.write([trade(slot, name, time_s=NOW_S, quote=slot), changed(slot, "confirmed")])
        assert await ids(history) == [signature(name)]
        assert [(candle.trades, candle.quote_amount) for candle in await candles(history)] == [(1, slot)]
        assert await history.extent() == Extent(slot, slot)
        await history.clear()
    assert not await ids(history)
    assert not await candles(history)


async def test_a_closed_history_is_away(history: History) -> None:
    await history.close()
    await history.close()
    for ask in (history.extent, partial(history.write, []), partial(history.trades, TradeQuery())):
        with pytest.raises(TransientError, match="closed"):
            await ask()
