"""Metrics of orders, from the log as it is heard: what each stage takes, how many tries they need, how many wait."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from headrace.model.orders import TERMINAL, OrderEvent
from headrace.orders.store import Store
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics

ORDERS_MAX: Final = 10_000
"""Orders on their way whose times are remembered; the one unchanged longest is forgotten, and not measured."""

DEPTH_S: Final = 5.0
STAGES_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
TRIES: Final = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0)

_BEGINS: Final = {"claimed": "accepted", "journaled": "claimed", "landed": "journaled"}
"""Kind of an event → the one since which its stage lasted."""
_STAGES: Final = {"claimed": "queued", "journaled": "built", "landed": "confirmed"}


class OrderMetrics:
    """A sink for a store. Of the orders of all processes that this one hears of; times are those of the log."""

    def __init__(self, store: Store, clock: Clock, metrics: Metrics) -> None:
        self._store, self._clock = store, clock
        self._orders: OrderedDict[str, dict[str, int]] = OrderedDict()
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
        self._depth = metrics.gauge(
            "orders_waiting", "Orders not over: ready, resting for their price, or begun", ("state",)
        )

    def hear(self, events: Sequence[OrderEvent]) -> None:
        """Take committed events."""
        for event in events:
            if event.kind == "accepted":
                self._orders[event.order_id] = {"accepted": event.at_ms, "tries": 0}
                if len(self._orders) > ORDERS_MAX:
                    self._orders.popitem(last=False)
            elif (times := self._orders.get(event.order_id)) is not None:
                self._measure(event, times)
            if event.status in TERMINAL and event.kind not in ("finalized", "landing_lost", "retired"):
                self._ended.labels(event.status.value).inc()

    async def run(self) -> None:
        """Count what waits, again and again. Raises TransientError when the store is away; run it again then."""
        while True:
            depth = await self._store.depth()
            for state, count in depth._asdict().items():
                self._depth.labels(state).set(count)
            await self._clock.sleep(DEPTH_S)

    def _measure(self, event: OrderEvent, times: dict[str, int]) -> None:
        since_ms = times.get(_BEGINS.get(event.kind, ""))
        if since_ms is not None:
            self._observe(_STAGES[event.kind], event.at_ms - since_ms)
        times["tries"] += event.kind == "journaled"
        times[event.kind] = event.at_ms
        if event.kind == "triggered":
            times["accepted"] = event.at_ms  # it waited for its price, not for us
        self._orders.move_to_end(event.order_id)
        if event.status in TERMINAL:
            self._observe("in all", event.at_ms - times["accepted"])
            self._attempts.observe(times["tries"])
            del self._orders[event.order_id]

    def _observe(self, stage: str, took_ms: int) -> None:
        """Clocks of two machines may differ: never less than nothing."""
        self._stages.labels(stage).observe(max(0, took_ms) / 1000)
