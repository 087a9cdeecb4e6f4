"""The order flow: claim → route → build → send → confirm → publish. Each step is on disk before the next relies on it.

The worker claims; what is published are the events that the store committed with each step.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from headrace.chains import Chain, Landing
from headrace.model.errors import InvariantError, TransientError
from headrace.model.instructions import Signed, memo
from headrace.model.orders import Attempt, AttemptStatus, LeaseLost, Order, OrderStatus, Quote
from headrace.orders.decisions import judge
from headrace.orders.machine import Step, Trace
from headrace.orders.observation import observe
from headrace.orders.quoting import ask_all
from headrace.orders.router import best, least_out
from headrace.orders.settings import ExecutionSettings
from headrace.orders.steps import Steps
from headrace.orders.store import FOREVER_MS, Store
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.venues import Venue

REST_MAX_S: Final = 60.0
TOO_LITTLE: Final = "quote_below_min_out"
NO_QUOTE: Final = "no_quote"
NO_SWAP: Final = "no_swap"
NO_BLOCKHASH: Final = "chain_unavailable"
"""Why a try failed, as the owner is told: constants, never the words of a node's or a venue's error."""


@dataclass
class Held:
    """Order under this worker's lease. `cancel_wanted` and `lost` are set from outside, at any moment."""

    order: Order
    attempt: Attempt | None
    cancel_wanted: bool = False
    lost: bool = False


class Engine:
    """Brings one held order as far as it goes. Raises LeaseLost when it is not ours any more: nothing was sent then."""

    def __init__(
        self, store: Store, chain: Chain, venues: Sequence[Venue], settings: ExecutionSettings, clock: Clock
    ) -> None:
        self._steps = Steps(store)
        self._chain, self._venues, self._settings, self._clock = chain, venues, settings, clock

    async def execute(self, held: Held) -> None:
        """From wherever the order was left to its end, or to the rest before its next try."""
        order, attempt = held.order, held.attempt
        if order.status is OrderStatus.SUBMITTED:
            if attempt is None:
                raise InvariantError(f"order {order.id} is SUBMITTED, but its bytes are not there")
            return await self._confirm(held, order, attempt)  # its bytes may be anywhere: these, and no others
        if order.cancel_requested:  # the wish and the proof that its bytes had expired crossed each other
            return await self._end(order, Step.CANCELLED, None)
        if order.status is OrderStatus.BUILDING:
            order = self._steps.take_later(order, Step.RESTARTED)
        if self._is_late(order):
            return await self._end(order, Step.EXPIRED, "expired")
        try:
            order, quote = await self._route(order)
            signed = await self._build(order, quote)
        except TransientError as error:
            return await self._try_again(order, str(error))
        order, attempt = await self._journal(order, quote, signed)
        return await self._confirm(held, order, attempt, sent=await self._send(attempt))

    async def _route(self, order: Order) -> tuple[Order, Quote]:
        """ROUTING → BUILDING with the best quote. Raises TransientError when no venue gave any, or too little."""
        quotes, left_out = await ask_all(self._venues, order.request, self._settings.quote_timeout_ms / 1000)
        if not quotes:
            raise TransientError(NO_QUOTE)
        quote = best(quotes)
        if quote.amount_out < max(1, order.request.min_out or 0):
            raise TransientError(TOO_LITTLE)  # the chain would refuse it
        outcome = replace(order.outcome, venue=quote.venue, quotes=quotes, left_out=left_out)
        return self._steps.take_later(order, Step.QUOTED, outcome), quote

    async def _build(self, order: Order, quote: Quote) -> Signed:
        """Return the signed swap and the order's id as its memo, in memory only.

        Raises TransientError when the venue gives no instructions or the chain no blockhash.
        """
        venue = next(venue for venue in self._venues if venue.name == quote.venue)
        try:
            async with asyncio.timeout(self._settings.quote_timeout_ms / 1000):
                swap = await venue.swap(quote, self._chain.owner, least_out(order.request, quote))
        except (TransientError, TimeoutError) as error:
            raise TransientError(NO_SWAP) from error
        try:
            blockhash = await self._chain.blockhash()
        except TransientError as error:
            raise TransientError(NO_BLOCKHASH) from error
        return self._chain.sign((*swap, memo(order.id)), blockhash)

    async def _journal(self, order: Order, quote: Quote, signed: Signed) -> tuple[Order, Attempt]:
        """BUILDING → SUBMITTED: returns when the bytes are on disk, and not one of them leaves before."""
        attempt = Attempt(
            order_id=order.id,
            number=order.outcome.failed_tries + 1,
            status=AttemptStatus.JOURNALED,
            signature=signed.signature,
            raw=signed.raw,
            last_valid_height=signed.last_valid_height,
            quote=quote,
            min_out=least_out(order.request, quote),
        )
        outcome = replace(order.outcome, min_out=attempt.min_out, tx_hash=attempt.signature)
        return await self._steps.take(order, Step.JOURNALED, outcome, attempt=attempt), attempt

    async def _send(self, attempt: Attempt) -> Trace:
        """The journaled bytes. An error means that nobody knows whether they arrived."""
        try:
            await self._chain.send(attempt)
        except TransientError:
            return Trace.UNCLEAR
        return Trace.SENT

    async def _confirm(self, held: Held, order: Order, attempt: Attempt, sent: Trace | None = None) -> None:
        """Look, and send the same bytes again, until the chain has decided; then write down what it was.

        `sent`: they were a moment ago. Else they are sent again only after a look, and not while they are in a block.
        """
        resend_s = self._settings.resend_ms / 1000
        resend_at_s = self._clock.monotonic() + (resend_s if sent else 0)
        while not held.lost:
            sighting = await observe(self._chain, attempt.signature)
            verdict = judge(attempt.last_valid_height, sighting)
            if verdict == "expired":
                return await self._settle_expired(held, order, attempt)
            landing = sighting.answer.landing if sighting.answer is not None else None
            if verdict != "undecided" and landing is not None:
                return await self._settle_landed(order, attempt, landing)
            if landing is None and self._clock.monotonic() >= resend_at_s and not held.cancel_wanted:
                sent = await self._send(attempt)
                resend_at_s = self._clock.monotonic() + resend_s
            if sent:
                attempt, sent = self._steps.note(order, attempt, sent), None
            await self._chain.changed(attempt.signature, self._settings.look_ms / 1000)
        raise LeaseLost(order.id)

    async def _settle_landed(self, order: Order, attempt: Attempt, landing: Landing) -> None:
        """It is in a block; `err` says whether it did anything."""
        if landing.err is None:
            outcome = replace(
                order.outcome,
                amount_out=landing.amount_out,
                error_reason=None,  # of an earlier try
                fate="executed",
                finality="confirmed",
            )
            await self._steps.take(order, Step.LANDED, outcome, attempt=attempt, trace=Trace.LANDED_OK)
        else:
            reason = landing.reason or "chain_error"
            await self._end(order, Step.FAILED, reason, attempt=attempt, trace=Trace.LANDED_ERR)

    async def _settle_expired(self, held: Held, order: Order, attempt: Attempt) -> None:
        """It can never land: only now may the order end without it, or be signed anew."""
        if held.cancel_wanted:
            await self._end(order, Step.CANCELLED, None, attempt=attempt, trace=Trace.EXPIRED)
        elif self._is_late(order):
            await self._end(order, Step.EXPIRED, "expired", attempt=attempt, trace=Trace.EXPIRED)
        else:
            await self._try_again(order, "not_landed", attempt=attempt, trace=Trace.EXPIRED)

    async def _try_again(
        self, order: Order, reason: str, *, attempt: Attempt | None = None, trace: Trace | None = None
    ) -> None:
        """Rest, then begin anew from routing; or give up. What has a trigger and can't have its price waits for it."""
        if reason == TOO_LITTLE and order.request.trigger is not None:
            outcome = replace(order.outcome, triggered=False)
            await self._steps.take(order, Step.RESTED, outcome, rest_ms=self._time_left_ms(order))
            return
        failed = order.outcome.failed_tries + 1
        if failed >= self._settings.tries_max:
            await self._end(order, Step.FAILED, reason, attempt=attempt, trace=trace)
            return
        rest_s = min(REST_MAX_S, self._settings.retry_ms / 1000 * 2 ** (failed - 1))
        rest_ms = round(Backoff(rest_s, REST_MAX_S).next_s() * 1000)
        outcome = replace(order.outcome, failed_tries=failed, error_reason=reason)
        await self._steps.take(order, Step.RETRIED, outcome, attempt=attempt, trace=trace, rest_ms=rest_ms)

    async def _end(
        self,
        order: Order,
        step: Step,
        reason: str | None,
        *,
        attempt: Attempt | None = None,
        trace: Trace | None = None,
    ) -> None:
        """The order is over, and nothing of it is or will be on the chain."""
        outcome = replace(order.outcome, error_reason=reason, fate="not_executed")
        await self._steps.take(order, step, outcome, attempt=attempt, trace=trace)

    def _time_left_ms(self, order: Order) -> int:
        expires_at_ms = order.request.expires_at_ms
        return FOREVER_MS if expires_at_ms is None else max(1, expires_at_ms - self._clock.wall_ns() // 1_000_000)

    def _is_late(self, order: Order) -> bool:
        """Its time is over. One that was claimed without its trigger had rested until then, by the database's clock."""
        now_ms, expires_at_ms = self._clock.wall_ns() // 1_000_000, order.request.expires_at_ms
        return order.awaits_trigger or (expires_at_ms is not None and expires_at_ms <= now_ms)
