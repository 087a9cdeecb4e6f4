"""The order flow: claim → route → build → send → confirm → publish. Each step is stored before the next relies on it.

The claim is the worker's part. Publishing follows from the events that the store commits with each step.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from msgspec.structs import replace

from headrace.chains import Chain, Landing
from headrace.model.errors import InvariantError, TransientError
from headrace.model.orders import (
    Attempt,
    AttemptEvent,
    AttemptStatus,
    Change,
    EventKind,
    LeaseLost,
    Order,
    OrderStatus,
    Quote,
)
from headrace.model.transactions import memo
from headrace.orders.asking import ask_all, look_at_chain
from headrace.orders.decisions import best, judge, least_out
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store import Store
from headrace.orders.verbs import FOREVER_MS
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.venues import Venue

REST_MAX_S: Final = 60.0
TOO_LITTLE: Final = "quote_below_min_out"
NO_QUOTE: Final = "no_quote"
NO_SWAP: Final = "no_swap"
NO_BLOCKHASH: Final = "chain_unavailable"
"""Reason of a failed try, as the owner reads it: a constant, never the text of a node's or a venue's error."""


@dataclass
class Held:
    """Order under this worker's lease. Other tasks may set `cancel_wanted` and `lost` at any moment.

    `unsent`: this worker has just journaled the bytes of `attempt` and never sent them. `ahead`: the preparation of a
    new order.
    """

    order: Order
    attempt: Attempt | None
    cancel_wanted: bool = False
    lost: bool = False
    unsent: bool = False
    ahead: "Ahead | None" = None


class Prepared(NamedTuple):
    """Changes that lead a new order to its signed bytes, and the attempt with them. Nothing is stored or sent yet."""

    quoted: Change
    journaled: Change
    attempt: Attempt


class Ahead:
    """Preparation of an order that is not stored yet. `prepared` is None until it has succeeded."""

    def __init__(self) -> None:
        self.prepared: Prepared | None = None
        self.over = asyncio.Event()
        self.cancel: Callable[[], object] = lambda: None

    async def result(self) -> Prepared | None:
        """Wait for the end of the preparation; return its result. None if it failed: then start with new quotes."""
        await self.over.wait()
        return self.prepared


class Engine:
    """Take one held order as far as possible. Raises LeaseLost if the lease is lost: then nothing more was sent."""

    def __init__(
        self, store: Store, chain: Chain, venues: Sequence[Venue], settings: ExecutionSettings, clock: Clock
    ) -> None:
        self._store, self._chain, self._venues = store, chain, venues
        self._settings, self._clock = settings, clock

    async def execute(self, held: Held) -> None:
        """Continue from the order's last stored change, until the order ends or pauses before its next try."""
        order, attempt = held.order, held.attempt
        if order.status is OrderStatus.SUBMITTED:
            if attempt is None:
                raise InvariantError(f"order {order.id} is SUBMITTED, but its bytes are not there")
            sent = await self._send(attempt) if held.unsent and not self._is_late(order) else None
            return await self._confirm(held, order, attempt, sent)  # send only the signed bytes: they may have landed
        if order.cancel_requested:  # the cancel request came in while the bytes were being proven expired
            return await self._end(order, EventKind.CANCELLED, None)
        if order.status is OrderStatus.BUILDING:
            order = self._store.apply_later(order, Change(kind=EventKind.RESTARTED))
        if self._is_late(order):
            return await self._end(order, EventKind.EXPIRED, "expired")
        prepared = None if held.ahead is None else await held.ahead.result()
        try:
            if prepared is None:
                quoted, quote = await self._route(order)
                order = self._store.apply_later(order, quoted)
                journaled, attempt = await self._build(order, quote)
            else:
                order = self._store.apply_later(order, prepared.quoted)
                journaled, attempt = prepared.journaled, prepared.attempt
        except TransientError as error:
            return await self._try_again(order, str(error))
        order = await self._store.apply(order, journaled)  # the bytes are on disk before any is sent
        sent = None if self._is_late(order) else await self._send(attempt)  # the commit may have taken long
        return await self._confirm(held, order, attempt, sent)

    async def prepare(self, order: Order, ahead: Ahead) -> None:
        """Get quotes for an order that is not stored yet, and sign the swap of the best one. Sends nothing."""
        try:
            if not self._is_late(order):
                quoted, quote = await self._route(order)
                assert quoted.outcome is not None
                built = await self._build(replace(order, outcome=quoted.outcome), quote)
                ahead.prepared = Prepared(quoted, *built)
        except TransientError:
            pass  # the engine tries again, once the order is stored
        finally:
            ahead.over.set()

    async def _route(self, order: Order) -> tuple[Change, Quote]:
        """Return the change to BUILDING, and the best quote. Raises TransientError if no venue quotes enough."""
        quotes, left_out = await ask_all(self._venues, order.request, self._settings.quote_timeout_ms / 1000)
        if not quotes:
            raise TransientError(NO_QUOTE)
        quote = best(quotes)
        if quote.amount_out < max(1, order.request.min_out or 0):
            raise TransientError(TOO_LITTLE)  # the chain would refuse it
        outcome = replace(order.outcome, venue=quote.venue, quotes=quotes, left_out=left_out)
        return Change(kind=EventKind.QUOTED, outcome=outcome), quote

    async def _build(self, order: Order, quote: Quote) -> tuple[Change, Attempt]:
        """Sign the swap, with the order's id as its memo, in memory only.

        Returns the change to SUBMITTED, and the attempt. Raises TransientError if the venue gives no instructions or
        the chain gives no blockhash.
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
        signed = self._chain.sign((*swap, memo(order.id)), blockhash)
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
        return Change(kind=EventKind.JOURNALED, outcome=outcome, attempt=attempt), attempt

    async def _send(self, attempt: Attempt) -> AttemptEvent:
        """Send the journaled bytes. After an error it is unknown whether they arrived."""
        try:
            await self._chain.send(attempt)
        except TransientError:
            return AttemptEvent.UNCLEAR
        return AttemptEvent.SENT

    async def _confirm(self, held: Held, order: Order, attempt: Attempt, sent: AttemptEvent | None = None) -> None:
        """Ask for the status and resend the same bytes until the chain has decided; then store the decision.

        `sent`: the result of a send a moment ago. If None, the bytes are sent only after a look at the chain, and not
        while they are in a block. Nothing is sent once the order's time is over.
        """
        resend_s = self._settings.resend_ms / 1000
        resend_at_s = self._clock.monotonic() + (resend_s if sent else 0)
        while not held.lost:
            status = await look_at_chain(self._chain, attempt.signature)
            verdict = judge(attempt.last_valid_height, status)
            if verdict == "expired":
                return await self._settle_expired(held, order, attempt)
            landing = status.answer.landing if status.answer is not None else None
            if verdict != "undecided" and landing is not None:
                return await self._settle_landed(order, attempt, landing)
            if landing is None and self._clock.monotonic() >= resend_at_s and self._may_send(held, order):
                sent = await self._send(attempt)
                resend_at_s = self._clock.monotonic() + resend_s
            if sent:
                attempt, sent = self._store.note(order, attempt, sent), None
            await self._chain.changed(attempt.signature, self._settings.look_ms / 1000)
        raise LeaseLost(order.id)

    async def _settle_landed(self, order: Order, attempt: Attempt, landing: Landing) -> None:
        """End an order whose bytes are in a block; `landing.err` says whether they did anything."""
        if landing.err is None:
            outcome = replace(
                order.outcome,
                amount_out=landing.amount_out,
                error_reason=None,  # drop the reason of an earlier failed try
                fate="executed",
                finality="confirmed",
            )
            change = Change(kind=EventKind.LANDED, outcome=outcome, attempt=attempt, learnt=AttemptEvent.LANDED_OK)
            await self._store.apply(order, change)
        else:
            reason = landing.reason or "chain_error"
            await self._end(order, EventKind.FAILED, reason, attempt=attempt, learnt=AttemptEvent.LANDED_ERR)

    async def _settle_expired(self, held: Held, order: Order, attempt: Attempt) -> None:
        """End the order, or try again. Only now may it be signed again: its bytes are proven expired."""
        if held.cancel_wanted:
            await self._end(order, EventKind.CANCELLED, None, attempt=attempt, learnt=AttemptEvent.EXPIRED)
        elif self._is_late(order):
            await self._end(order, EventKind.EXPIRED, "expired", attempt=attempt, learnt=AttemptEvent.EXPIRED)
        else:
            await self._try_again(order, "not_landed", attempt=attempt, learnt=AttemptEvent.EXPIRED)

    async def _try_again(
        self, order: Order, reason: str, *, attempt: Attempt | None = None, learnt: AttemptEvent | None = None
    ) -> None:
        """Store a pause and a return to routing; end the order as FAILED when its tries are used up.

        A triggered order whose quotes are too low waits for its trigger again.
        """
        if reason == TOO_LITTLE and order.outcome.triggered:
            outcome = replace(order.outcome, triggered=False)
            change = Change(kind=EventKind.RESTED, outcome=outcome, rest_ms=self._time_left_ms(order))
            await self._store.apply(order, change)
            return
        failed = order.outcome.failed_tries + 1
        if failed >= self._settings.tries_max:
            await self._end(order, EventKind.FAILED, reason, attempt=attempt, learnt=learnt)
            return
        rest_s = min(REST_MAX_S, self._settings.retry_ms / 1000 * 2 ** (failed - 1))
        rest_ms = round(Backoff(rest_s, REST_MAX_S).next_s() * 1000)
        outcome = replace(order.outcome, failed_tries=failed, error_reason=reason)
        change = Change(kind=EventKind.RETRIED, outcome=outcome, attempt=attempt, learnt=learnt, rest_ms=rest_ms)
        await self._store.apply(order, change)

    async def _end(
        self,
        order: Order,
        kind: EventKind,
        reason: str | None,
        *,
        attempt: Attempt | None = None,
        learnt: AttemptEvent | None = None,
    ) -> None:
        """End an order that has nothing on the chain and never will have."""
        outcome = replace(order.outcome, error_reason=reason, fate="not_executed")
        await self._store.apply(order, Change(kind=kind, outcome=outcome, attempt=attempt, learnt=learnt))

    def _may_send(self, held: Held, order: Order) -> bool:
        """Return whether signed bytes may be sent: nobody cancels the order, and its time is not over."""
        return not held.cancel_wanted and not self._is_late(order)

    def _time_left_ms(self, order: Order) -> int:
        expires_at_ms = order.request.expires_at_ms
        return FOREVER_MS if expires_at_ms is None else max(1, expires_at_ms - self._clock.wall_ns() // 1_000_000)

    def _is_late(self, order: Order) -> bool:
        """Return whether the order's time is over.

        An order that was claimed while it still awaits its trigger is late, too: it is claimed only once it has
        expired.
        """
        now_ms, expires_at_ms = self._clock.wall_ns() // 1_000_000, order.request.expires_at_ms
        return order.awaits_trigger or (expires_at_ms is not None and expires_at_ms <= now_ms)
