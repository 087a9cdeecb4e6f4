"""Metrics of orders, from their events: the duration of each stage, tries per order, and how many orders wait."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from headrace.model.orders import BPS_WHOLE, TERMINAL, EventKind, OrderEvent
from headrace.orders import machine
from headrace.orders.store import Store
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics

ORDERS_MAX: Final = 10_000
"""Maximum number of unfinished orders whose times are kept.

Above it, the order whose last event is oldest is forgotten.
"""

DEPTH_S: Final = 5.0
STAGES_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
TRIES: Final = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0)

FILL_BPS: Final = (-50.0, -10.0, -1.0, 0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0)


class _Fill(msgspec.Struct, frozen=True):
    quoted: str
    slippage: str
    spot: str | None = None
    fees: str | None = None
    impact: str | None = None


class _Landed(msgspec.Struct, frozen=True):
    fill: _Fill | None = None


_landed: Final = msgspec.json.Decoder(_Landed)

_STAGES: Final = {
    EventKind.CLAIMED: ("queued", EventKind.ACCEPTED),
    EventKind.JOURNALED: ("built", EventKind.CLAIMED),
    EventKind.LANDED: ("confirmed", EventKind.JOURNALED),
}
"""Event that ends a stage → the stage's name, and the event that begins the stage."""


class _Times:
    """Time of the last event of each kind, in wall ms, and how often a transaction was signed."""

    def __init__(self, accepted_ms: int) -> None:
        self.at_ms, self.tries = {EventKind.ACCEPTED: accepted_ms}, 0


class OrderMetrics:
    """Event sink that measures the orders of all processes whose events the store delivers.

    Durations are computed from the times in the events.
    """

    def __init__(self, store: Store, clock: Clock, metrics: Metrics) -> None:
        self._store, self._clock = store, clock
        self._orders: OrderedDict[str, _Times] = OrderedDict()
        self._stages = metrics.histogram(
            "order_stage_seconds",
            "How long orders took: queued until claimed, built until on disk, confirmed until landed, and in all",
            ("stage",),
            STAGES_S,
        )
        self._attempts = metrics.histogram(
            "order_attempts", "Transactions that orders which ended had needed", (), TRIES
        )
        self._ended = metrics.counter("orders_ended", "Orders that ended, by status", ("status",))
        self._fills = metrics.histogram(
            "order_fill_bps",
            "Parts of fills in basis points: fees and impact of the price before, slippage of the quote",
            ("part",),
            FILL_BPS,
        )
        self._depth = metrics.gauge(
            "orders_waiting", "Orders not over: ready, resting for their price, or begun", ("state",)
        )

    def hear(self, events: Sequence[OrderEvent]) -> None:
        """Measure committed events."""
        for event in events:
            if event.kind is EventKind.ACCEPTED:
                self._orders[event.order_id] = _Times(event.at_ms)
                if len(self._orders) > ORDERS_MAX:
                    self._orders.popitem(last=False)
            elif (times := self._orders.get(event.order_id)) is not None:
                self._measure(event, times)
            if event.kind is EventKind.LANDED:
                self._measure_fill(_landed.decode(event.data).fill)
            if event.status in TERMINAL and machine.ends(event.kind):
                self._ended.labels(event.status.value).inc()

    async def run(self) -> None:
        """Count waiting orders repeatedly.

        Raises TransientError if the store is unavailable; the caller then calls `run` again.
        """
        while True:
            depth = await self._store.depth()
            for state, count in depth._asdict().items():
                self._depth.labels(state).set(count)
            await self._clock.sleep(DEPTH_S)

    def _measure(self, event: OrderEvent, times: _Times) -> None:
        stage, begins_with = _STAGES.get(event.kind, ("", None))
        if begins_with is not None and begins_with in times.at_ms:
            self._observe(stage, event.at_ms - times.at_ms[begins_with])
        times.tries += event.kind is EventKind.JOURNALED
        times.at_ms[event.kind] = event.at_ms
        if event.kind is EventKind.TRIGGERED:
            times.at_ms[EventKind.ACCEPTED] = event.at_ms  # a limit or stop order is measured from its trigger
        self._orders.move_to_end(event.order_id)
        if event.status in TERMINAL:
            self._observe("in all", event.at_ms - times.at_ms[EventKind.ACCEPTED])
            self._attempts.observe(times.tries)
            del self._orders[event.order_id]

    def _measure_fill(self, fill: "_Fill | None") -> None:
        if fill is None:
            return
        parts = (("fees", fill.fees, fill.spot), ("impact", fill.impact, fill.spot))
        for part, amount, whole in (*parts, ("slippage", fill.slippage, fill.quoted)):
            if amount is not None and whole:
                self._fills.labels(part).observe(int(amount) * BPS_WHOLE / int(whole))

    def _observe(self, stage: str, took_ms: int) -> None:
        """Record a stage's duration, at least 0: the clocks of two machines may differ."""
        self._stages.labels(stage).observe(max(0, took_ms) / 1000)
