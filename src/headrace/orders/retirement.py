"""Reduces orders that were over for long to their outcome, where the settings say so."""

from typing import Final

from headrace.orders.settings import ExecutionSettings
from headrace.orders.store import Store
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics

LOOK_S: Final = 60.0
AT_ONCE: Final = 200
"""Orders of one transaction, so that it stays short."""


class Retirement:
    """Several processes may do this at once: the store retires each order once."""

    def __init__(self, store: Store, settings: ExecutionSettings, clock: Clock, metrics: Metrics) -> None:
        self._store, self._clock, self._kept_ms = store, clock, round(settings.kept_s * 1000)
        self._retired = metrics.counter("orders_retired", "Orders that this process reduced to their outcome")

    async def run(self) -> None:
        """Look again and again, until cancelled. Raises TransientError when the store is away; run it again then."""
        while True:
            count = await self._store.retire(self._kept_ms, AT_ONCE)
            self._retired.inc(count)
            if count < AT_ONCE:
                await self._clock.sleep(LOOK_S)
