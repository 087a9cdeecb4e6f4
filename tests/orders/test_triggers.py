"""Resting orders: only the market wakes them, once, whoever dies in between."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from headrace.model.amounts import BaseUnits
from headrace.model.facts import Traded
from headrace.model.orders import Order, OrderStatus, Trigger
from headrace.order_types import ORDER_TYPES, OrderBody, register
from headrace.orders.store import Rate
from headrace.orders.store.sqlite import SqliteStore
from headrace.orders.triggers import Triggers, pause_s
from headrace.runtime.clock import ManualClock, SystemClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.testing.orders import FixedVenue, new_order
from tests.facts import traded
from tests.orders.one_order import OneOrder, begin
from tests.orders.trailing_stop import TrailingStop

FREE = Rate(0)
LIMIT = Trigger(when="at_least", out=BaseUnits(3), per=BaseUnits(20))  # 150 USDC for 1 SOL
STOP = replace(LIMIT, when="at_most")


def resting(order_id: str, trigger: Trigger = LIMIT, **more: Any) -> Order:
    order = new_order(order_id, SystemClock().wall_ns() // 1_000_000, **more)
    return replace(order, request=replace(order.request, trigger=trigger))


def trade(order: Order, base: int, quote: int, *, flipped: bool = False, slot: int = 1) -> Traded:
    """Return a trade of so much of the order's token in, for so much of its token out."""
    mints = [order.request.token_in.mint, order.request.token_out.mint]
    amounts = [base, quote]
    if flipped:
        mints, amounts = mints[::-1], amounts[::-1]
    return traded(mints[0], mints[1], amounts[0], amounts[1], slot=slot)


class Market:
    """Trades, and a Triggers that hears them."""

    def __init__(self, one: OneOrder) -> None:
        self.one = one
        self.clock = ManualClock()
        self.head: int | None = None
        self.triggers = Triggers(one.store, self.clock, Metrics(), lambda: self.head)
        one.store.attach(self.triggers.hear_orders)

    async def hears(self, *facts: Traded) -> None:
        """As in a process that has just started: what rests is read, the trades come, what is due is triggered."""
        async with Supervisor(SystemClock()) as tasks:
            running = tasks.start("test", "triggers", self.triggers.run)
            await self._settled()
            self.triggers.hear(facts)
            await self._settled()
            running.cancel()

    async def _settled(self) -> None:
        """The store does one thing after the other: when it answers this, it has answered the rest."""
        for _ in range(5):
            await self.one.store.get("none")


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize(("trigger", "quote", "wakes"), [(LIMIT, 15, True), (LIMIT, 14, False), (STOP, 15, True),
                                                         (STOP, 16, False)])  # fmt: skip
async def test_a_trade_triggers_exactly_the_orders_whose_rate_it_reaches(
    tmp_path: Path, trigger: Trigger, quote: int, wakes: bool, flipped: bool
) -> None:
    async with begin(tmp_path) as one:
        order = resting(one.order_id, trigger)
        await one.store.accept(order, [], "")
        assert await one.store.claim(1, 0, FREE) == []
        await Market(one).hears(trade(order, 100, quote, flipped=flipped))
        claimed = await one.store.claim(1, 0, FREE)
        assert len(claimed) == wakes
        if wakes:
            events = await one.store.events(one.order_id, 0, 9)
            assert [(event.kind, event.status) for event in events] == [
                ("accepted", "PENDING"),
                ("triggered", "PENDING"),
                ("claimed", "ROUTING"),
            ]
            told = json.loads(bytes(events[1].data))["trigger"]
            assert (told["out"], told["per"], told["eventId"]) == ("15", "100", "e1")


async def test_a_trade_without_mints_or_amounts_triggers_nothing(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        order = resting(one.order_id)
        await one.store.accept(order, [], "")
        other = replace(order, request=replace(order.request, token_out=replace(order.request.token_out, mint="X")))
        none = trade(order, 1, 10**9)
        await Market(one).hears(
            trade(order, 0, 10), trade(order, -1, -10), trade(other, 1, 10**9),
            replace(none, trade=replace(none.trade, mint=None, quote_mint=None)),
            replace(none, trade=replace(none.trade, quote_mint=None)),
        )  # fmt: skip
        assert await one.store.claim(1, 0, FREE) == []


@pytest.mark.parametrize(
    ("head", "slot", "wakes"),
    [(1000, 849, False), (1000, 850, True), (None, 1, True), (9, 9, True)],
)
async def test_a_trade_that_fills_an_old_gap_triggers_nothing(
    tmp_path: Path, head: int | None, slot: int, wakes: bool
) -> None:
    """It may be older than the order, and the market elsewhere by now."""
    async with begin(tmp_path) as one:
        order = resting(one.order_id, STOP)
        await one.store.accept(order, [], "")
        market = Market(one)
        market.head = head
        await market.hears(trade(order, 100, 1, slot=slot))
        assert len(await one.store.claim(1, 0, FREE)) == wakes


async def test_many_prices_and_many_processes_trigger_once(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        order = resting(one.order_id)
        await one.store.accept(order, [], "")
        markets = [Market(one) for _ in range(5)]
        for market in markets:
            await market.hears(*[trade(order, 1, 10)] * 10)
        kinds = [event.kind for event in await one.store.events(one.order_id, 0, 99)]
        assert kinds == ["accepted", "triggered"]


async def test_an_order_placed_while_trades_come_is_triggered(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        market = Market(one)
        async with Supervisor(SystemClock()) as tasks:
            running = tasks.start("test", "triggers", market.triggers.run)
            await market._settled()
            order = resting(one.order_id)
            await one.store.accept(order, [], "")
            await market._settled()
            market.triggers.hear([trade(order, 1, 10)])
            await market._settled()
            running.cancel()
        assert len(await one.store.claim(1, 0, FREE)) == 1


async def test_a_death_between_trigger_and_claim_neither_loses_nor_doubles(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        one.chain.on_send = one.chain.land
        order = resting(one.order_id)
        await one.store.accept(order, [], "")
        await Market(one).hears(trade(order, 1, 10))
        # That process is gone. The next reads what rests, sees the same price, and a worker finds the order.
        await Market(one).hears(trade(order, 1, 10))
        await one.end()
        assert (await one.check()).status is OrderStatus.CONFIRMED
        kinds = [event.kind for event in await one.store.events(one.order_id, 0, 99)]
        assert kinds == ["accepted", "triggered", "claimed", "quoted", "journaled", "landed"]


async def test_when_the_venues_give_less_than_the_limit_it_rests_again(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        one.chain.on_send = one.chain.land
        order = resting(one.order_id)
        order = replace(order, request=replace(order.request, min_out=BaseUnits(101)))
        await one.store.accept(order, [], "")
        market = Market(one)
        await market.hears(trade(order, 1, 10))
        await one.work()
        again = await one.order()
        assert (again.status, again.awaits_trigger, one.chain.sent) == (OrderStatus.PENDING, True, [])
        assert one.held is not None
        assert not (await one.store.renew([one.held.order], 0)).held, "its former worker can't end its rest"
        assert await one.store.claim(1, 0, FREE) == []
        one.venues = [FixedVenue(amount_out=101)]
        await market.clock.advance(1)
        await market.hears(trade(order, 1, 10))
        await one.end()
        assert (await one.check()).status is OrderStatus.CONFIRMED
        kinds = [event.kind for event in await one.store.events(one.order_id, 0, 99)]
        assert kinds[:6] == ["accepted", "triggered", "claimed", "rested", "triggered", "claimed"]


async def test_a_price_that_the_venues_never_have_costs_little(tmp_path: Path) -> None:
    """The bus is a market, the venues are another. Trades come by the hundred; the log must not grow with them."""
    async with begin(tmp_path) as one:
        order = resting(one.order_id)
        order = replace(order, request=replace(order.request, min_out=BaseUnits(101)))
        await one.store.accept(order, [], "")
        market = Market(one)
        async with Supervisor(SystemClock()) as tasks:
            running = tasks.start("test", "triggers", market.triggers.run)
            await market._settled()

            async def rests_after(trades: int) -> int:
                for _ in range(trades):
                    market.triggers.hear([trade(order, 1, 10)])
                    await market._settled()
                    await one.work()
                    await market._settled()
                events = await one.store.events(one.order_id, 0, 1000)
                return sum(event.kind == "rested" for event in events)

            assert await rests_after(5) == 1
            await market.clock.advance(1)
            assert await rests_after(5) == 2
            await market.clock.advance(1)
            assert await rests_after(5) == 2, "longer each time"
            await market.clock.advance(1)
            assert await rests_after(5) == 3
            running.cancel()
        assert [pause_s(seq) for seq in (4, 7, 10, 22, 10**9)] == [1, 2, 4, 60, 60]


async def test_a_resting_order_is_cancelled_and_stays_so(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        order = resting(one.order_id)
        await one.store.accept(order, [], "")
        market = Market(one)
        cancelled = await one.store.cancel(one.order_id, None)
        assert cancelled is not None
        assert (cancelled.requested, cancelled.order.status) == (False, OrderStatus.CANCELLED)
        await market.hears(trade(order, 1, 10))
        assert not await one.store.trigger(one.order_id, {})
        assert await one.store.claim(1, 0, FREE) == []


async def test_a_resting_order_expires_without_any_market(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        await one.store.accept(resting(one.order_id, expires_at_ms=1), [], "")
        await one.store.accept(resting("later", expires_at_ms=2**50), [], "")
        await one.end()
        assert (await one.check()).status is OrderStatus.EXPIRED
        assert not one.chain.sent
        later = await one.store.get("later")
        assert later is not None
        assert later.status is OrderStatus.PENDING


async def test_by_a_fast_clock_of_the_database_it_expires_rather_than_being_executed(tmp_path: Path) -> None:
    """Claimed when its rest ended, by a worker whose own clock says that it has time left."""
    async with begin(tmp_path) as one:
        one.chain.on_send = one.chain.land
        await one.store.accept(resting(one.order_id, expires_at_ms=2**50), [], "")
        assert isinstance(one.store, SqliteStore)
        await one.store._thread.ask(lambda db: db.execute("update orders set lease_until = 1"))
        await one.end()
        assert (await one.check()).status is OrderStatus.EXPIRED


async def test_a_trailing_stop_follows_the_highest_trade_over_a_restart_and_triggers_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {**ORDER_TYPES, "trailing_stop": "tests.orders.trailing_stop:TrailingStop"}
    monkeypatch.setattr(register, "ORDER_TYPES", known)
    async with begin(tmp_path) as one:
        order = new_order(one.order_id, SystemClock().wall_ns() // 1_000_000)
        asked = OrderBody({"trailBps": 1000}, order.request.token_in, order.request.token_out, order.request.amount)
        watch = TrailingStop().terms(asked).watch
        assert watch is not None
        order = replace(order, request=replace(order.request, type="trailing_stop", watch=watch))
        await one.store.accept(order, [], "")
        await Market(one).hears(trade(order, 10, 100), trade(order, 10, 200), trade(order, 10, 150))
        assert (await one.order()).outcome.triggered, "150 is below 200 less 10 %"
        await one.store.accept(replace(order, id="b"), [], "")
        await Market(one).hears(trade(order, 10, 200), trade(order, 10, 190))
        stored = await one.store.get("b")
        assert stored is not None
        assert stored.trigger == Trigger(when="at_most", out=BaseUnits(18), per=BaseUnits(1))
        await Market(one).hears(trade(order, 10, 181))
        stored = await one.store.get("b")
        assert stored is not None
        assert not stored.outcome.triggered
        await Market(one).hears(trade(order, 10, 180))
        stored = await one.store.get("b")
        assert stored is not None
        assert stored.outcome.triggered
