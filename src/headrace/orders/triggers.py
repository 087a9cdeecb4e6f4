"""Triggers waiting orders: compares trades with the rate that each order waits for."""

import asyncio
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any, Final

import structlog
from msgspec.structs import replace

from headrace.model.amounts import BaseUnits
from headrace.model.errors import InvariantError
from headrace.model.facts import News, Traded
from headrace.model.orders import EventKind, Order, OrderEvent, OrderStatus, Trigger, Watch
from headrace.order_types.register import observed
from headrace.orders.store import Store
from headrace.orders.waiting import Waiting
from headrace.protocol.orders import rate_view
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics

PAGE: Final = 500
AT_ONCE: Final = 100
PAUSE_S: Final = 1.0
PAUSE_MAX_S: Final = 60.0
STALE_SLOTS: Final = 150
"""About a minute, the longest that a transaction can take to land. An older trade does not show a current price."""

_log = structlog.get_logger("execution")


class Triggers:
    """Keep the waiting orders by pair and rate, and compare each trade of their mints with these rates.

    A trade can trigger an order only if this object already had the order when the trade arrived. A trade that fills an
    old gap triggers nothing: `head` returns the chain's highest slot, or None if unknown.
    An order whose quotes were too low pauses, longer each time. Otherwise each trade would cost a claim, quotes and
    three lines of the log, and would delay other orders. A trade also moves the watches of orders whose type has state,
    and a moved watch is stored.
    Several processes may run it at once: the store lets only one process trigger an order, once, and merges watches.
    The orders in memory are only a copy, read from the store at each start.
    """

    def __init__(
        self, store: Store, clock: Clock, metrics: Metrics, head: Callable[[], int | None] = lambda: None
    ) -> None:
        self._store, self._clock, self._head = store, clock, head
        self._waiting = Waiting()
        self._moving = Waiting(_moves)
        self._moved: dict[str, Watch] = {}
        self._new: set[str] = set()
        self._pauses_until_s: dict[str, float] = {}
        self._pausing: dict[str, Order] = {}
        self._pauses: list[tuple[float, str]] = []
        self._due: dict[str, dict[str, Any]] = {}
        self._wake = asyncio.Event()
        self._triggered = metrics.counter("orders_triggered", "Resting orders whose trigger this process saw")

    async def run(self) -> None:
        """Trigger until cancelled.

        Raises TransientError if the store is unavailable; the caller then calls `run` again.
        """
        await self._load()
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            for order_id in list(self._new):
                await self._look_at(order_id)
            for order_id, watch in list(self._moved.items()):
                await self._keep_watch(order_id, watch)
            while self._due:
                due = list(self._due.items())[:AT_ONCE]
                results = await asyncio.gather(*[self._trigger(order_id, data) for order_id, data in due])
                self._triggered.inc(sum(results))
                for order_id, _ in due:
                    self._due.pop(order_id, None)

    async def _look_at(self, order_id: str) -> None:
        """Read an order that has begun to wait."""
        order = None
        try:
            order = await self._store.get(order_id)
        except InvariantError as error:
            self._store.unreadable.add(order_id, str(error))
        self._new.discard(order_id)
        until_s = self._pauses_until_s.get(order_id, 0.0)
        if order is not None and until_s > self._clock.monotonic():
            self._pausing[order_id] = order
            heappush(self._pauses, (until_s, order_id))
        elif order is not None:
            self._add(order)

    async def _trigger(self, order_id: str, data: dict[str, Any]) -> bool:
        try:
            return await self._store.trigger(order_id, data)
        except InvariantError as error:
            self._store.unreadable.add(order_id, str(error))
            return False

    async def _keep_watch(self, order_id: str, watch: Watch) -> None:
        """Store a moved watch. If a newer trade has moved it again meanwhile, it stays queued."""
        try:
            await self._store.keep_watch(order_id, watch)
        except InvariantError as error:
            self._store.unreadable.add(order_id, str(error))
        if self._moved.get(order_id) is watch:
            del self._moved[order_id]

    def hear_orders(self, events: Sequence[OrderEvent]) -> None:
        """Handle the store's events, which show the orders that begin to wait or stop waiting."""
        for event in events:
            if event.status is not OrderStatus.PENDING or event.kind is EventKind.TRIGGERED:
                self._remove(event.order_id)
            elif event.rests:
                if event.kind is EventKind.RESTED:
                    self._pauses_until_s[event.order_id] = self._clock.monotonic() + pause_s(event.seq)
                self._new.add(event.order_id)
                self._wake.set()

    def hear(self, news: Sequence[News]) -> None:
        """Handle facts (`model.facts.FactConsumer`). A trade costs only one look-up if no order has its mint."""
        self._end_pauses()
        for each in news:
            if isinstance(each, Traded) and each.trade.mint is not None and self._concerns(each.trade.mint):
                self._compare(each)

    def _compare(self, fact: Traded) -> None:
        trade, seen = fact.trade, fact.seen
        mint, quote_mint, base, quote = trade.mint, trade.quote_mint, trade.base_amount, trade.quote_amount
        if mint is None or quote_mint is None or base <= 0 or quote <= 0 or self._is_stale(seen.origin.slot):
            return  # without known mints and amounts there is no price
        for mint_in, mint_out, out, per in ((mint, quote_mint, quote, base), (quote_mint, mint, base, quote)):
            for order in self._waiting.take(mint_in, mint_out, out, per):
                self._moving.remove(order.id)
                self._due[order.id] = {"trigger": {**rate_view(order.request, out, per), "eventId": seen.event_id}}
                self._wake.set()
            for order in self._moving.take(mint_in, mint_out, out, per):
                self._move(order, out, per)

    def _move(self, order: Order, out: int, per: int) -> None:
        """Update the watch of an order whose type has state, after a trade."""
        watch = observed(order, BaseUnits(out), BaseUnits(per))
        if watch == order.watch:
            self._moving.add(order)
            return
        self._waiting.remove(order.id)
        self._add(replace(order, outcome=replace(order.outcome, watch=watch)))
        self._moved[order.id] = watch
        self._wake.set()

    def _concerns(self, mint: str) -> bool:
        return self._waiting.has(mint) or self._moving.has(mint)

    def _end_pauses(self) -> None:
        now_s = self._clock.monotonic()
        while self._pauses and self._pauses[0][0] <= now_s:
            _, order_id = heappop(self._pauses)
            # the order was neither cancelled nor paused again
            if order_id in self._pausing and self._pauses_until_s[order_id] <= now_s:
                self._pauses_until_s.pop(order_id)
                self._add(self._pausing.pop(order_id))

    def _is_stale(self, slot: int) -> bool:
        head = self._head()
        return head is not None and slot < head - STALE_SLOTS

    async def _load(self) -> None:
        """Read all waiting orders from the store."""
        after_id = ""
        while page := await self._store.resting(after_id, PAGE):
            for order in page:
                self._add(order)
            after_id = page[-1].id
        _log.debug("resting_orders_read", count=len(self._waiting))

    def _add(self, order: Order) -> None:
        elsewhere = order.id in self._due or order.id in self._pausing
        if order.awaits_trigger and order.status is OrderStatus.PENDING and not elsewhere:
            self._waiting.add(order)
            self._moving.add(order)

    def _remove(self, order_id: str) -> None:
        self._pauses_until_s.pop(order_id, None)
        self._pausing.pop(order_id, None)
        self._moved.pop(order_id, None)
        self._waiting.remove(order_id)
        self._moving.remove(order_id)


def _moves(order: Order) -> Trigger | None:
    return None if order.watch is None else order.watch.moves


def pause_s(seq: int) -> float:
    """Return how long an order pauses that began to wait again with event number `seq` of its log.

    Each try without success writes three events (triggered, claimed, rested), so `seq` counts the tries of all
    processes.
    """
    return min(PAUSE_MAX_S, PAUSE_S * 2.0 ** min(seq // 3 - 1, 10))
