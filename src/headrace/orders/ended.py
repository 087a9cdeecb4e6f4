"""Follows executed orders until their landing is final; nothing is ever signed anew after a landing."""

import asyncio
from typing import Final

import structlog
from msgspec.structs import replace

from headrace.chains import Chain
from headrace.model.orders import Claimed
from headrace.orders.decisions import judge_final
from headrace.orders.observation import observe
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store import Store
from headrace.protocol.orders import told
from headrace.runtime.clock import Clock

AT_ONCE: Final = 20
BREATH: Final = 3
"""After a round that was full it rests this many times as long as that took: orders on their way go first."""

_log = structlog.get_logger("execution")


class Finality:
    """Several processes may do this at once: the store writes down each order's finality once."""

    def __init__(self, store: Store, chain: Chain, settings: ExecutionSettings, clock: Clock) -> None:
        self._store, self._chain, self._settings, self._clock = store, chain, settings, clock

    async def run(self) -> None:
        """Look again and again, until cancelled. Raises TransientError when the store is away; run it again then."""
        pause_s = between_s = self._settings.finality_ms / 1000
        while True:
            await self._clock.sleep(pause_s)
            began_s = self._clock.monotonic()
            full = await self.look_once() >= AT_ONCE // 2
            pause_s = min(between_s, BREATH * (self._clock.monotonic() - began_s)) if full else between_s

    async def look_once(self) -> int:
        """Look at the oldest that are not final yet; how many of them now are."""
        waiting = await self._store.unfinal(AT_ONCE)
        return sum(await asyncio.gather(*[self._look(each) for each in waiting]))

    async def _look(self, each: Claimed) -> bool:
        order, attempt = each.order, each.attempt
        if attempt is None:
            return False
        sighting = await observe(self._chain, attempt.signature)
        verdict = judge_final(attempt.last_valid_height, sighting)
        if verdict == "undecided":
            return False
        outcome = replace(order.outcome, finality=verdict)
        if verdict == "lost":
            outcome = replace(outcome, fate="not_executed")
            _log.error("landing_lost", order=order.id, signature=attempt.signature, meaning="a person must look")
        landing = sighting.answer.landing if sighting.answer is not None else None
        if verdict == "finalized" and landing is not None and landing.amount_out is not None:
            outcome = replace(outcome, amount_out=landing.amount_out)  # another fork may have had another price
        data = told(order.request, order.status, outcome, before=order.outcome)
        return await self._store.finalize(order, outcome, data)
