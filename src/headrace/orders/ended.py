"""After the end: executed orders are followed until their landing is final, and old orders are retired.

Nothing is ever signed anew after a landing.
"""

import asyncio
from typing import Final

import structlog
from msgspec.structs import replace

from headrace.chains import Chain
from headrace.model.orders import Claimed
from headrace.orders.asking import look_at_chain
from headrace.orders.decisions import judge_final
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store import Store
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics

AT_ONCE: Final = 20
PAUSE_FACTOR: Final = 3
"""After a full round, the pause is so many times the round's length: orders on their way go first."""

RETIRE_PAUSE_S: Final = 60.0
RETIRED_AT_ONCE: Final = 200
"""Orders of one transaction, so that the transaction stays short."""

_log = structlog.get_logger("execution")


class Finality:
    """Follow landings. Several processes may do so at once: the store writes down each order's finality once."""

    def __init__(self, store: Store, chain: Chain, settings: ExecutionSettings, clock: Clock) -> None:
        self._store, self._chain, self._settings, self._clock = store, chain, settings, clock

    async def run(self) -> None:
        """Look again and again, until cancelled. Raise TransientError when the store is away: then run again."""
        pause_s = between_s = self._settings.finality_ms / 1000
        while True:
            await self._clock.sleep(pause_s)
            began_s = self._clock.monotonic()
            full = await self.look_once() >= AT_ONCE // 2
            pause_s = min(between_s, PAUSE_FACTOR * (self._clock.monotonic() - began_s)) if full else between_s

    async def look_once(self) -> int:
        """Look at the oldest orders that are not final yet; return how many now are."""
        waiting = await self._store.unfinal(AT_ONCE)
        return sum(await asyncio.gather(*[self._look(each) for each in waiting]))

    async def _look(self, each: Claimed) -> bool:
        order, attempt = each.order, each.attempt
        if attempt is None:
            return False
        status = await look_at_chain(self._chain, attempt.signature)
        verdict = judge_final(attempt.last_valid_height, status)
        if verdict == "undecided":
            return False
        outcome = replace(order.outcome, finality=verdict)
        if verdict == "lost":
            outcome = replace(outcome, fate="not_executed")
            _log.error("landing_lost", order=order.id, signature=attempt.signature, meaning="a person must look")
        landing = status.answer.landing if status.answer is not None else None
        if verdict == "finalized" and landing is not None and landing.amount_out is not None:
            outcome = replace(outcome, amount_out=landing.amount_out)  # another fork may have had another price
        return await self._store.finalize(order, outcome)


class Retirement:
    """Reduce orders that were over for long to their outcome, where the settings say so.

    Several processes may do so at once: the store retires each order once.
    """

    def __init__(self, store: Store, settings: ExecutionSettings, clock: Clock, metrics: Metrics) -> None:
        self._store, self._clock, self._kept_ms = store, clock, round(settings.kept_s * 1000)
        self._retired = metrics.counter("orders_retired", "Orders that this process reduced to their outcome")

    async def run(self) -> None:
        """Look again and again, until cancelled. Raise TransientError when the store is away: then run again."""
        while True:
            count = await self._store.retire(self._kept_ms, RETIRED_AT_ONCE)
            self._retired.inc(count)
            if count < RETIRED_AT_ONCE:
                await self._clock.sleep(RETIRE_PAUSE_S)
