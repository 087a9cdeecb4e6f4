"""Wakes resting orders: hears the trades on the bus, and lets an order go when the market is there."""

import asyncio
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any, Final

import msgspec
import structlog

from headrace.model.errors import InvariantError
from headrace.model.events import Message
from headrace.model.orders import Order, OrderEvent, OrderStatus
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
"""About a minute, and as long as a transaction can wait to land: what comes of an earlier past is no price."""
_PREFIX: Final = "trades:"

_log = structlog.get_logger("execution")


class _Trade(msgspec.Struct, frozen=True):
    mint: str
    quote_mint: str
    base_amount: str
    quote_amount: str


class _Place(msgspec.Struct, frozen=True):
    slot: str | None = None


class _Message(msgspec.Struct, frozen=True):
    event_id: str
    data: _Trade
    chain: _Place = _Place()


_messages = msgspec.json.Decoder(_Message)


class Triggers:
    """Holds the resting orders by pair and rate, and compares each trade of their mints with what they wait for.

    Only trades that come after an order is known here count, and not those that fill a gap of long ago: `head` tells
    the highest slot, None where that is not known. An order whose price the venues did not have pauses, longer each
    time: else each trade would cost a claim, quotes and three lines of its log, and other orders their turn.

    Several processes may do this at once: the store lets one of them trigger an order, once. What is held here is only
    a copy: it is read from the store at each start.
    """

    def __init__(
        self, store: Store, clock: Clock, metrics: Metrics, head: Callable[[], int | None] = lambda: None
    ) -> None:
        self._store, self._clock, self._head = store, clock, head
        self._waiting = Waiting()
        self._new: set[str] = set()
        self._pauses_until_s: dict[str, float] = {}
        self._pausing: dict[str, Order] = {}
        self._pauses: list[tuple[float, str]] = []
        self._due: dict[str, dict[str, Any]] = {}
        self._wake = asyncio.Event()
        self._triggered = metrics.counter("orders_triggered", "Resting orders whose trigger this process saw")

    async def run(self) -> None:
        """Trigger until cancelled. Raises TransientError when the store is away; run it again then."""
        await self._load()
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            for order_id in list(self._new):
                await self._look_at(order_id)
            while self._due:
                due = list(self._due.items())[:AT_ONCE]
                results = await asyncio.gather(*[self._trigger(order_id, data) for order_id, data in due])
                self._triggered.inc(sum(results))
                for order_id, _ in due:
                    self._due.pop(order_id, None)

    async def _look_at(self, order_id: str) -> None:
        """A new order came to rest."""
        order = None
        try:
            order = await self._store.get(order_id)
        except InvariantError as error:
            self._store.unreadable.park(order_id, str(error))
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
            self._store.unreadable.park(order_id, str(error))
            return False

    def hear_orders(self, events: Sequence[OrderEvent]) -> None:
        """A sink for the store: orders come to rest, and stop resting."""
        for event in events:
            if event.status is not OrderStatus.PENDING or event.kind == "triggered":
                self._remove(event.order_id)
            elif b'"resting":true' in bytes(event.data):
                if event.kind == "rested":
                    self._pauses_until_s[event.order_id] = self._clock.monotonic() + pause_s(event.seq)
                self._new.add(event.order_id)
                self._wake.set()

    def hear_trades(self, messages: Sequence[Message]) -> None:
        """A sink for the bus. What nobody waits for is not even parsed."""
        self._end_pauses()
        for message in messages:
            of_mint = message.kind == "event" and message.topic.startswith(_PREFIX)
            if of_mint and self._waiting.has(message.topic[len(_PREFIX) :]):
                self._compare(message)

    def _compare(self, message: Message) -> None:
        try:
            trade = _messages.decode(b"{%b}" % message.body)
            base, quote = int(trade.data.base_amount), int(trade.data.quote_amount)
            slot = None if trade.chain.slot is None else int(trade.chain.slot)
        except (msgspec.DecodeError, ValueError):
            return  # a trade without known mints or amounts is no price
        if base <= 0 or quote <= 0 or self._is_stale(slot):
            return
        mint, quote_mint = trade.data.mint, trade.data.quote_mint
        for mint_in, mint_out, out, per in ((mint, quote_mint, quote, base), (quote_mint, mint, base, quote)):
            for order in self._waiting.take(mint_in, mint_out, out, per):
                self._due[order.id] = {"trigger": {**rate_view(order.request, out, per), "eventId": trade.event_id}}
                self._wake.set()

    def _end_pauses(self) -> None:
        now_s = self._clock.monotonic()
        while self._pauses and self._pauses[0][0] <= now_s:
            _, order_id = heappop(self._pauses)
            if order_id in self._pausing and self._pauses_until_s[order_id] <= now_s:  # not cancelled, nor paused anew
                self._pauses_until_s.pop(order_id)
                self._add(self._pausing.pop(order_id))

    def _is_stale(self, slot: int | None) -> bool:
        head = self._head()
        return slot is not None and head is not None and slot < head - STALE_SLOTS

    async def _load(self) -> None:
        """All that rest, as the store has them."""
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

    def _remove(self, order_id: str) -> None:
        self._pauses_until_s.pop(order_id, None)
        self._pausing.pop(order_id, None)
        self._waiting.remove(order_id)


def pause_s(seq: int) -> float:
    """How long to wait after an order came to rest with this line of its log. Each time in vain takes three lines
    (triggered, claimed, rested), so `seq` tells how often it was, in whichever process."""
    return min(PAUSE_MAX_S, PAUSE_S * 2.0 ** min(seq // 3 - 1, 10))
