"""What grows old in a store: keys, which do not; orders that are retired; portfolios, which are saved on the way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from headrace.model.amounts import BaseUnits
from headrace.model.orders import (
    AttemptEvent,
    Change,
    EventKind,
    Fill,
    Order,
    OrderRefused,
    OrderStatus,
    Token,
    Trigger,
)
from headrace.orders.intake import portfolio_of
from headrace.orders.portfolio import Portfolio
from headrace.orders.store import STORES, TICK_S, Rate, Store
from headrace.runtime.clock import ManualClock
from headrace.testing.orders import new_order
from tests.contracts.clocks import WrongClock
from tests.contracts.contexts import Opener, opened
from tests.contracts.test_store import attempt_of, submit
from tests.orders.store.servers import place_for, settings_of, write

HOUR_S: Final = 3600.0
LEASE_MS: Final = 60_000

CHANGED: Final = "update portfolios set state = replace(state, '{}', '{}') where user_id = ?"

Open: TypeAlias = Callable[[], Awaitable[Store]]


@pytest.fixture
def clock() -> WrongClock:
    return WrongClock()


@pytest.fixture
async def open_one(kind_of_store: tuple[str, str], store_place: str, clock: WrongClock) -> AsyncIterator[Open]:
    """Opens the same database each time, as another process would."""
    async with Opener(STORES, kind_of_store[0], clock) as opener:
        yield partial(opener.open, **settings_of(store_place))


@pytest.fixture
async def store(open_one: Open) -> Store:
    return await open_one()


async def ticks(store: Store, clock: ManualClock, count: int = 3) -> None:
    """Let time pass for the store."""
    for _ in range(count):
        await clock.advance(TICK_S)
        await store.tick()


async def executed(store: Store, order: Order, amount_out: int = 5, *, finality: str = "finalized") -> Order:
    """The order after it was placed, claimed, landed, and its landing became `finality` (`confirmed`: is open yet)."""
    await store.accept(order, [f"key:{order.id}"], "print")
    [claimed] = [each.order for each in await store.claim(1, LEASE_MS, Rate(0))]
    assert claimed.id == order.id
    order = await submit(store, claimed)
    outcome = replace(order.outcome, amount_out=BaseUnits(amount_out), fate="executed", tx_hash=f"s-{order.id}-1")
    outcome = replace(outcome, finality="confirmed")
    landed = AttemptEvent.LANDED_OK
    order = await store.apply(
        order, Change(kind=EventKind.LANDED, outcome=outcome, attempt=attempt_of(order), learnt=landed)
    )
    if finality != "confirmed":
        await store.finalize(order, replace(outcome, finality=finality))
    found = await store.get(order.id)
    assert found is not None
    return found


@pytest.mark.parametrize("off_h", [49, -49, 24 * 365])
async def test_a_key_is_known_whatever_the_clock_says(
    open_one: Open, store: Store, clock: WrongClock, off_h: int
) -> None:
    first = await store.accept(new_order("a", 1), ["key:k"], "print")
    clock.off_s = off_h * HOUR_S
    await ticks(store, clock)
    for each in (store, await open_one()):
        await ticks(each, clock)
        again = await each.accept(new_order("b", 1), ["key:k"], "print")
        assert (again.replayed, again.order) == (True, first.order)


async def test_a_key_is_known_years_later(store: Store, clock: WrongClock) -> None:
    await store.accept(new_order("a", 1), ["key:k"], "print")
    await clock.advance(3 * 365 * 24 * HOUR_S)
    await ticks(store, clock)
    assert (await store.accept(new_order("b", 1), ["key:k"], "print")).replayed


async def test_only_orders_over_and_final_for_long_are_retired(store: Store, clock: WrongClock) -> None:
    await executed(store, new_order("old", 1))
    await executed(store, new_order("open", 1), finality="confirmed")
    await store.accept(new_order("waits", 1), [], "print")
    assert await store.retire(round(HOUR_S * 1000), 10) == 0
    await clock.advance(HOUR_S - 1)
    assert await store.retire(round(HOUR_S * 1000), 10) == 0
    await clock.advance(2)
    await executed(store, new_order("aa", 1, priority=0))
    assert await store.retire(round(HOUR_S * 1000), 10) == 1
    listed = await store.list(user_id=None, status=None, mint=None, cursor=None, limit=10)
    assert {order.id for order in listed.orders} == {"open", "waits", "aa"}
    assert await store.retire(0, 1) == 1
    assert await store.retire(0, 9) == 0


@pytest.mark.parametrize("status", [OrderStatus.FAILED, OrderStatus.CANCELLED, OrderStatus.EXPIRED])
async def test_an_order_that_ended_without_a_landing_is_retired_too(
    store: Store, clock: WrongClock, status: OrderStatus
) -> None:
    await store.accept(new_order("a", 1), ["key:k"], "print")
    if status is OrderStatus.CANCELLED:
        await store.cancel("a", None)
    else:
        [claimed] = await store.claim(1, LEASE_MS, Rate(0))
        kind = EventKind.FAILED if status is OrderStatus.FAILED else EventKind.EXPIRED
        outcome = replace(claimed.order.outcome, fate="not_executed")
        await store.apply(claimed.order, Change(kind=kind, outcome=outcome))
    await store.retire(round(HOUR_S * 1000), 10)
    await clock.advance(HOUR_S + 1)
    assert await store.retire(round(HOUR_S * 1000), 10) == 1
    found = await store.get("a")
    assert found is not None
    assert (found.status, found.outcome.fate) == (status, "not_executed")


@pytest.mark.parametrize("off_h", [49, -49])
async def test_a_clock_that_is_set_wrong_retires_nothing(store: Store, clock: WrongClock, off_h: int) -> None:
    await executed(store, new_order("a", 1))
    await store.retire(round(HOUR_S * 1000), 10)
    clock.off_s = off_h * HOUR_S
    await ticks(store, clock)
    assert await store.retire(round(HOUR_S * 1000), 10) == 0


async def test_a_retired_order_answers_with_its_outcome(open_one: Open, store: Store) -> None:
    before = await executed(store, new_order("a", 1), 7)
    assert await store.retire(0, 10) == 1
    for each in (store, await open_one()):
        found = await each.get("a")
        assert found == replace(before, outcome=replace(before.outcome, quotes=(), left_out={}))
        again = await each.accept(new_order("b", 1), ["key:a", "key:other"], "print")
        assert (again.replayed, again.order) == (True, found)
        with pytest.raises(OrderRefused) as refused:
            await each.accept(new_order("b", 1), ["key:a"], "another print")
        assert refused.value.status == 422
        with pytest.raises(OrderRefused) as over:
            await each.cancel("a", None)
        assert (over.value.status, over.value.fate) == (409, "executed")
        assert await each.cancel("a", "somebody else") is None
        [event] = await each.events("a", 0, 10)
        assert (event.seq, event.kind, event.status) == (before.seq, "retired", OrderStatus.CONFIRMED)
        assert b'"fate":"executed"' in bytes(event.data)
        assert await each.events("a", before.seq, 10) == []
        assert await each.read("a", 0, 10) == (found, [event])
        assert [(fill.order_id, fill.amount_out) for fill in (await each.fills("u", 0, 9)).fills] == [("a", 7)]
    assert (await store.accept(new_order("c", 1), ["key:other"], "print")).replayed


async def test_an_order_that_can_not_be_read_is_not_retired_and_holds_up_no_other(
    store: Store, store_place: str
) -> None:
    for order_id in "ab":
        await executed(store, new_order(order_id, 1))
    await write(store_place, "update orders set request = '[]' where id = ?", "a")
    assert await store.retire(0, 1) + await store.retire(0, 1) == 1
    assert store.unreadable.order_ids == {"a"}
    await write(store_place, "update orders set status = status where id = ?", "a")


TOKENS: Final = [Token(f"mint{number}", 6) for number in range(3)]

Deed: TypeAlias = tuple[str, int, int, int, int]
DEEDS: Final = st.lists(
    st.tuples(
        st.sampled_from(["finalized", "finalized", "lost", "confirmed", "retire", "look", "settle"]),
        st.integers(0, 2),
        st.integers(0, 1),
        st.integers(1, 50),
        st.integers(0, 50),
    ),
    max_size=12,
)


class Book:
    """What each user's orders moved, kept beside the store."""

    def __init__(self) -> None:
        self.fills: list[Fill] = []

    def fold(self) -> Portfolio:
        portfolio = Portfolio()
        for fill in self.fills:
            portfolio.apply(fill)
        return portfolio


async def live(store: Store, clock: ManualClock, deeds: list[Deed]) -> None:
    """Execute orders, retire them, look at the portfolio: it must always be the fold of all fills."""
    book, open_orders = Book(), list[tuple[int, Order]]()
    for number, (what, token_in, other, amount, amount_out) in enumerate(deeds):
        if what in ("finalized", "lost", "confirmed"):
            token_out = (token_in + 1 + other) % 3
            order = new_order(f"o{number:03}", number)
            request = replace(
                order.request, token_in=TOKENS[token_in], token_out=TOKENS[token_out], amount=BaseUnits(amount)
            )
            order = await executed(store, replace(order, request=request), amount_out, finality=what)
            of_fill: dict[str, Any] = {"mint_in": TOKENS[token_in].mint, "mint_out": TOKENS[token_out].mint}
            of_fill |= {"amount_in": amount, "amount_out": amount_out, "finality": what}
            book.fills.append(Fill(position=number, order_id=order.id, at_ms=0, **of_fill))
            if what == "confirmed":
                open_orders.append((len(book.fills) - 1, order))
        elif what == "settle" and open_orders:
            place, order = open_orders.pop(0)
            outcome = replace(order.outcome, finality="lost" if other else "finalized")
            await store.finalize(order, outcome)
            book.fills[place] = replace(book.fills[place], finality=outcome.finality)
        elif what == "retire":
            await store.retire(0, amount)
        else:
            await ticks(store, clock)
        found, wanted = await portfolio_of(store, "u", save_at=1 + other), book.fold()
        assert (found.fills, found.balances, found.holdings) == (wanted.fills, wanted.balances, wanted.holdings)


@settings(max_examples=15)
@given(deeds=DEEDS)
@pytest.mark.parametrize("kind", sorted(STORES))
def test_a_portfolio_is_the_fold_of_all_fills(
    kind: str, postgres_url: str, tmp_path_factory: pytest.TempPathFactory, deeds: list[Deed]
) -> None:
    async def once() -> None:
        clock = ManualClock()
        folder: Path = await asyncio.to_thread(tmp_path_factory.mktemp, "book")
        async with (
            place_for(kind, folder, postgres_url) as place,
            opened(STORES, kind, clock, **settings_of(place)) as (store, _),
        ):
            await live(store, clock, deeds)

    asyncio.run(once())


async def test_a_saved_portfolio_is_used_and_one_of_other_rules_is_made_anew(
    store: Store, store_place: str, clock: WrongClock
) -> None:
    await executed(store, new_order("a", 1))
    await executed(store, new_order("b", 1))
    async with asyncio.timeout(30):
        while await store.portfolio("u") is None:  # until what others do on the same server has ended
            await ticks(store, clock)
            assert (await portfolio_of(store, "u", save_at=1)).fills == 2
    await write(
        store_place,
        "update portfolios set state = replace(state, '\"fills\":2', '\"fills\":9')  where user_id = ?",
        "u",
    )
    assert (await portfolio_of(store, "u")).fills == 9, "what was saved is not used"
    await write(
        store_place,
        "update portfolios set state = replace(state, '\"rules\":1', '\"rules\":0')  where user_id = ?",
        "u",
    )
    assert (await portfolio_of(store, "u")).fills == 2


async def test_orders_that_are_not_over_are_counted(store: Store) -> None:
    assert await store.depth() == (0, 0, 0)
    await executed(store, new_order("a", 1))
    for order_id in "bcd":
        await store.accept(new_order(order_id, 1), [], "print")
    await store.claim(1, LEASE_MS, Rate(0))
    trigger = Trigger(when="at_least", out=BaseUnits(1), per=BaseUnits(2))
    rests = new_order("e", 1)
    await store.accept(replace(rests, request=replace(rests.request, trigger=trigger)), [], "print")
    assert await store.depth() == (2, 1, 1)
