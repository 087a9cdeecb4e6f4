"""The order flow: claim → route → build → send → confirm → publish. Each step is stored before the next relies on it.

The worker claims orders. Publishing is driven by the events that the store commits with each step.
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
"""Reason why a try failed, as shown to the order's owner: a constant, never the text of a node's or a venue's error."""


@dataclass
class Held:
    """Order under this worker's lease. Other tasks may set `cancel_wanted` and `lost` at any moment.

    - `unsent`: this worker has just journaled the transaction of `attempt` and has never sent it.
    - `ahead`: the preparation of a new order.
    """

    order: Order
    attempt: Attempt | None
    cancel_wanted: bool = False
    lost: bool = False
    unsent: bool = False
    ahead: "Ahead | None" = None


class Prepared(NamedTuple):
    """Changes that take a new order to its signed transaction, and the attempt. Nothing is stored or sent yet."""

    quoted: Change
    journaled: Change
    attempt: Attempt


class Ahead:
    """Preparation of an order that is not stored yet. `prepared` is None until the preparation has succeeded."""

    def __init__(self) -> None:
        self.prepared: Prepared | None = None
        self.over = asyncio.Event()
        self.cancel: Callable[[], object] = lambda: None

    async def result(self) -> Prepared | None:
        """Wait for the end of the preparation and return its result.

        None: it failed, so the engine asks for new quotes.
        """
        await self.over.wait()
        return self.prepared


class Engine:
    """Take one held order as far as possible. Raises LeaseLost if the lease is lost; nothing is sent after that."""

    def __init__(
        self, store: Store, chain: Chain, venues: Sequence[Venue], settings: ExecutionSettings, clock: Clock
    ) -> None:
        self._store, self._chain, self._venues = store, chain, venues
        self._settings, self._clock = settings, clock

    async def execute(self, held: Held) -> None:
        """Continue from the order's last stored change until the order ends or pauses before its next try."""
        order, attempt = held.order, held.attempt
        if order.status is OrderStatus.SUBMITTED:
            if attempt is None:
                raise InvariantError(f"order {order.id} is SUBMITTED, but its bytes are not there")
            sent = await self._send(attempt) if held.unsent and not self._is_late(order) else None
            return await self._confirm(held, order, attempt, sent)  # send no other: this one may have landed
        if order.cancel_requested:  # the cancel request arrived before the transaction was proven expired
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
        order = await self._store.apply(order, journaled)  # the transaction is on disk before it is sent
        sent = None if self._is_late(order) else await self._send(attempt)  # the commit may have taken long
        return await self._confirm(held, order, attempt, sent)

    async def prepare(self, order: Order, ahead: Ahead) -> None:
        """Get quotes for an order that is not stored yet, and sign the swap of the best quote. Sends nothing."""
        try:
            if not self._is_late(order):
                quoted, quote = await self._route(order)
                assert quoted.outcome is not None
                built = await self._build(replace(order, outcome=quoted.outcome), quote)
                ahead.prepared = Prepared(quoted, *built)
        except TransientError:
            pass  # the engine tries again once the order is stored
        finally:
            ahead.over.set()

    async def _route(self, order: Order) -> tuple[Change, Quote]:
        """Return the change to BUILDING, and the best quote. Raises TransientError if no venue quotes enough."""
        quotes, left_out = await ask_all(self._venues, order.request, self._settings.quote_timeout_ms / 1000)
        if not quotes:
            raise TransientError(NO_QUOTE)
        quote = best(quotes)
        if quote.amount_out < max(1, order.request.min_out or 0):
            raise TransientError(TOO_LITTLE)  # the chain would refuse the swap
        outcome = replace(order.outcome, venue=quote.venue, quotes=quotes, left_out=left_out)
        return Change(kind=EventKind.QUOTED, outcome=outcome), quote

    async def _build(self, order: Order, quote: Quote) -> tuple[Change, Attempt]:
        """Sign the swap in memory. The order's id is the transaction's memo.

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
        """Send the journaled transaction. After an error it is unknown whether the node received it."""
        try:
            await self._chain.send(attempt)
        except TransientError:
            return AttemptEvent.UNCLEAR
        return AttemptEvent.SENT

    async def _confirm(self, held: Held, order: Order, attempt: Attempt, sent: AttemptEvent | None = None) -> None:
        """Ask for the status and resend the same transaction until the chain has decided; then store the decision.

        `sent` is the result of a send a moment ago. If it is None, the transaction is sent only after the chain was
        asked, and not while it is in a block. Nothing is sent after the order has expired.
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
        """End an order whose transaction is in a block. `landing.err` is None if the transaction took effect."""
        if landing.err is None:
            outcome = replace(
                order.outcome,
                amount_out=landing.brought(order.request.token_out.mint),
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
        """End the order, or retry it.

        It may be signed again only now, because its previous transaction has provably expired.
        """
        if held.cancel_wanted:
            await self._end(order, EventKind.CANCELLED, None, attempt=attempt, learnt=AttemptEvent.EXPIRED)
        elif self._is_late(order):
            await self._end(order, EventKind.EXPIRED, "expired", attempt=attempt, learnt=AttemptEvent.EXPIRED)
        else:
            await self._try_again(order, "not_landed", attempt=attempt, learnt=AttemptEvent.EXPIRED)

    async def _try_again(
        self, order: Order, reason: str, *, attempt: Attempt | None = None, learnt: AttemptEvent | None = None
    ) -> None:
        """Return the order to routing after a pause, or end it as FAILED when it has used all its tries.

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
        """End an order of which nothing is on the chain, and nothing ever will be."""
        outcome = replace(order.outcome, error_reason=reason, fate="not_executed")
        await self._store.apply(order, Change(kind=kind, outcome=outcome, attempt=attempt, learnt=learnt))

    def _may_send(self, held: Held, order: Order) -> bool:
        """Return whether the transaction may be sent: the order is not being cancelled, and has not expired."""
        return not held.cancel_wanted and not self._is_late(order)

    def _time_left_ms(self, order: Order) -> int:
        expires_at_ms = order.request.expires_at_ms
        return FOREVER_MS if expires_at_ms is None else max(1, expires_at_ms - self._clock.wall_ns() // 1_000_000)

    def _is_late(self, order: Order) -> bool:
        """Return whether the order has expired.

        An order that still awaits its trigger is claimed only after it has expired, so such an order is late.
        """
        now_ms, expires_at_ms = self._clock.wall_ns() // 1_000_000, order.request.expires_at_ms
        return order.awaits_trigger or (expires_at_ms is not None and expires_at_ms <= now_ms)
