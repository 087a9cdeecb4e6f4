"""After an order's end: checks executed orders until their landing is final, and retires old orders.

Once an order has landed, nothing is signed for it again.
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
"""Pause after a full round, as a multiple of the round's duration, so that orders still being executed go first."""

RETIRE_PAUSE_S: Final = 60.0
RETIRED_AT_ONCE: Final = 200
"""Maximum number of orders retired per database transaction, to keep it short."""

_log = structlog.get_logger("execution")


class Finality:
    """Check landings until they are final.

    Several processes may run it: the store records each order's finality once.
    """

    def __init__(self, store: Store, chain: Chain, settings: ExecutionSettings, clock: Clock) -> None:
        self._store, self._chain, self._settings, self._clock = store, chain, settings, clock

    async def run(self) -> None:
        """Run `look_once` repeatedly until cancelled.

        Raises TransientError if the store is unavailable; the caller then calls `run` again.
        """
        pause_s = between_s = self._settings.finality_ms / 1000
        while True:
            await self._clock.sleep(pause_s)
            began_s = self._clock.monotonic()
            full = await self.look_once() >= AT_ONCE // 2
            pause_s = min(between_s, PAUSE_FACTOR * (self._clock.monotonic() - began_s)) if full else between_s

    async def look_once(self) -> int:
        """Check the oldest executed orders that are not final yet; return how many have become final."""
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
        received = None if landing is None else landing.brought(order.request.token_out.mint)
        if verdict == "finalized" and received is not None:
            outcome = replace(outcome, amount_out=received)  # another fork may have filled at another price
        return await self._store.finalize(order, outcome)


class Retirement:
    """Reduce old finished orders to their outcome, if `kept_s` is set.

    Several processes may run it at once: the store retires each order once.
    """

    def __init__(self, store: Store, settings: ExecutionSettings, clock: Clock, metrics: Metrics) -> None:
        self._store, self._clock, self._kept_ms = store, clock, round(settings.kept_s * 1000)
        self._retired = metrics.counter("orders_retired", "Orders that this process reduced to their outcome")

    async def run(self) -> None:
        """Retire orders repeatedly until cancelled.

        Raises TransientError if the store is unavailable; the caller then calls `run` again.
        """
        while True:
            count = await self._store.retire(self._kept_ms, RETIRED_AT_ONCE)
            self._retired.inc(count)
            if count < RETIRED_AT_ONCE:
                await self._clock.sleep(RETIRE_PAUSE_S)
