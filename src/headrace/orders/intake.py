"""Accepts orders: checks a client's request, stores it once, and only then answers."""

import secrets
import uuid
from asyncio import Event
from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

import msgspec

from headrace.model.errors import TransientError
from headrace.model.identity import SUBJECT_LENGTH_MAX, is_subject
from headrace.model.orders import U64_MAX, Order, OrderEvent, OrderRefused, OrderRequest, OrderStatus, Outcome
from headrace.orders.idempotency import fingerprint, names_of
from headrace.orders.limits import AmountLimits, OrderRates, check_amount, check_fraction, check_time
from headrace.orders.offers import Offer, find_offer, read_asked, revision_of
from headrace.orders.portfolio import Portfolio, view
from headrace.orders.recent import RecentOrders
from headrace.orders.requests import AMOUNTS, begun, decimals_of, find_token, given_of, read_request
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store import Accepted, Cancelled, Page, SavedPortfolio, Store
from headrace.orders.verbs import Room
from headrace.orders.worker import Worker
from headrace.runtime.clock import Clock
from headrace.venues import Venue

FILLS_PAGE: Final = 500
SAVE_AT: Final = 100
"""Minimum number of fills beyond the saved portfolio before the portfolio is saved again."""


class Intake:
    """Operations on orders that clients may call. Each raises OrderRefused with a reason.

    If the store is unavailable, the refusal is 503 and may be retried. If `worker` is given and idle, a new order is
    claimed for it in the commit that accepts the order. `recent` holds the newest orders, so that reading them needs no
    query. `venues` are asked for offers. The constructor raises ConfigError for limits that can't be parsed.
    """

    def __init__(
        self,
        store: Store,
        settings: ExecutionSettings,
        clock: Clock,
        worker: Worker | None = None,
        venues: Sequence[Venue] = (),
    ) -> None:
        self._store, self._settings, self._clock, self._worker = store, settings, clock, worker
        self._venues = venues
        self._amounts = AmountLimits.parse(settings.amount_limits)
        self._rates = OrderRates(settings.orders_per_minute_per_user)
        self.recent = RecentOrders()
        self._preparing: dict[Event, Collection[str]] = {}
        store.attach(self.recent.hear)

    async def execute(self, body: Any, key: str | None = None, *, user_id: str | None = None) -> Accepted:
        """Check and store an order. Once this returns, the order is on disk and will be executed, once.

        `key` is the client's idempotency key: the same key with the same body returns the first order again.
        """
        now_ms = self._clock.wall_ns() // 1_000_000
        request = begun(read_request(body, amount_max=U64_MAX, user_id=user_id), now_ms)
        keys = names_of(request, key)
        refusal = self._refusal(request, body, now_ms)
        if refusal is not None and not keys:
            raise refusal
        order = Order(
            id=new_id(now_ms),
            request=request,
            outcome=Outcome(),
            status=OrderStatus.PENDING,
            seq=1,
            epoch=0,
            cancel_requested=False,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )
        room = Room(self._settings.resting_per_user, self._settings.resting_in_all)
        self.recent.expect(order)
        if refusal is not None:
            await self._prepared(keys)
        try:
            if self._worker is None or order.awaits_trigger or refusal is not None:
                return await self._store.accept(order, keys, fingerprint(request), room, 0, refusal)
            with self._worker.promise() as lease_ms:
                if not lease_ms:
                    return await self._store.accept(order, keys, fingerprint(request), room)
                return await self._accept_and_begin(self._worker, order, keys, fingerprint(request), lease_ms)
        except TransientError as error:  # the order may have been stored all the same; with a key, a retry is safe
            raise _unavailable() from error

    async def _accept_and_begin(
        self, worker: Worker, order: Order, keys: Sequence[str], known_by: str, lease_ms: int
    ) -> Accepted:
        """Store an order and claim it for this worker.

        If its transaction is already signed, the same commit stores it.
        """
        over = Event()
        self._preparing[over] = keys
        ahead, claimed = None, False
        try:
            ahead = await worker.prepare(order) if self._settings.sign_first else None
            prepared = None if ahead is None else ahead.prepared
            steps = () if prepared is None else (prepared.quoted, prepared.journaled)
            accepted = await self._store.accept(order, keys, known_by, lease_ms=lease_ms, steps=steps)
            claimed = accepted.claimed
        finally:
            del self._preparing[over]
            over.set()
            if ahead is not None and not claimed:
                ahead.cancel()
        if claimed:
            worker.begin(accepted.order, ahead)
        return accepted

    async def _prepared(self, keys: Sequence[str]) -> None:
        """Wait until no order under these keys is being prepared.

        If a refusal were sent before such an order is stored, the client would believe that nothing was executed under
        its key.
        """
        for over in [over for over, others in self._preparing.items() if not set(keys).isdisjoint(others)]:
            await over.wait()

    async def get(self, order_id: str, *, user_id: str | None = None) -> Order:
        """Return the current order. Raises OrderRefused 404 if no order of this user (None: of any user) has the id."""
        try:
            order = await self._store.get(order_id)
        except TransientError as error:
            raise _unavailable() from error
        if order is None or user_id not in (None, order.request.user_id):
            raise _unknown()
        return order

    async def read(
        self, order_id: str, after_seq: int, limit: int, *, user_id: str | None = None
    ) -> tuple[Order, Sequence[OrderEvent]]:
        """Return what `get` and `events` return, as of the same moment."""
        try:
            found = await self._store.read(order_id, after_seq, limit)
        except TransientError as error:
            raise _unavailable() from error
        if found is None or user_id not in (None, found[0].request.user_id):
            raise _unknown()
        return found

    async def cancel(self, order_id: str, *, user_id: str | None = None) -> Cancelled:
        """Cancel the order. If its transaction may have been sent, store the cancel request.

        Raises OrderRefused 409 if the order has ended.
        """
        try:
            cancelled = await self._store.cancel(order_id, user_id)
        except TransientError as error:
            raise _unavailable() from error
        if cancelled is None:
            raise _unknown()
        return cancelled

    async def list(
        self,
        *,
        user_id: str | None = None,
        status: str | None = None,
        mint: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        """Return orders, newest first. `mint` may be a symbol."""
        if status is not None and status not in OrderStatus.__members__:
            raise OrderRefused(HTTPStatus.BAD_REQUEST, "invalid_query", "no such status", fields={"status": "unknown"})
        wanted = None if status is None else OrderStatus(status)
        found = None if mint is None else find_token(mint)
        if mint is not None and found is None:
            raise OrderRefused(HTTPStatus.BAD_REQUEST, "invalid_query", "no such mint", fields={"mint": "unknown"})
        try:
            return await self._store.list(
                user_id=user_id, status=wanted, mint=None if found is None else found.mint, cursor=cursor, limit=limit
            )
        except TransientError as error:
            raise _unavailable() from error

    async def events(self, order_id: str, after_seq: int = 0, limit: int = 1000) -> Sequence[OrderEvent]:
        """Return the order's log after `after_seq`; empty if the order does not exist."""
        try:
            return await self._store.events(order_id, after_seq, limit)
        except TransientError as error:
            raise _unavailable() from error

    async def portfolio(self, user_id: str) -> dict[str, Any]:
        """Return the portfolio of the user's executed orders, in the form that clients get."""
        if not is_subject(user_id):
            fields = {"user": f"is not 1 to {SUBJECT_LENGTH_MAX} printable ASCII characters"}
            raise OrderRefused(HTTPStatus.BAD_REQUEST, "invalid_query", "no such user", fields=fields)
        try:
            return view(user_id, await portfolio_of(self._store, user_id), decimals_of)
        except TransientError as error:
            raise _unavailable() from error

    async def offer(self, asked: Mapping[str, str | int | None]) -> Offer:
        """Return what all venues offer for a query's parameters. Nothing is stored or ordered."""
        timeout_s = self._settings.quote_timeout_ms / 1000
        return await find_offer(self._venues, asked, amount_max=self._settings.amount_max, timeout_s=timeout_s)

    def check_offer(self, asked: Mapping[str, str | int | None]) -> None:
        """Raise OrderRefused 400 if no venue can answer a query with these parameters."""
        read_asked(asked, self._settings.amount_max)

    def revision(self) -> Hashable:
        """Return a value that changes whenever the offers of the venues may have changed."""
        return revision_of(self._venues, self._clock.monotonic())

    def _refusal(self, request: OrderRequest, body: dict[str, Any], now_ms: int) -> OrderRefused | None:
        """Return why the order can't be taken now; None if it can be taken.

        The refusal is returned, not raised: an order under the same key may have been taken earlier, and may have been
        executed.
        """
        try:
            check_fraction(body)
            check_time(request, now_ms)
            name = given_of(body, *AMOUNTS)
            check_amount(request, name, self._settings.amount_max)
            self._amounts.check(request, name)
            self._rates.take(request.user_id, self._clock.monotonic())
        except OrderRefused as refusal:
            return refusal
        return None


async def portfolio_of(store: Store, user_id: str, *, save_at: int = SAVE_AT) -> Portfolio:
    """Add up all of the user's fills, starting from the saved portfolio. Save the part that can no longer change.

    Raises TransientError if the store is unavailable.
    """
    saved = await store.portfolio(user_id)
    portfolio = None if saved is None else Portfolio.of_state(saved.state)
    after: int | None = 0 if saved is None or portfolio is None else saved.position
    portfolio = portfolio or Portfolio()
    settled, before, next_save = True, portfolio.fills, None
    while after is not None:
        fills, after, settled_to, unreadable = await store.fills(user_id, after, FILLS_PAGE)
        portfolio.unreadable += unreadable
        final = [fill for fill in fills if settled and fill.position <= settled_to]
        for fill in final:
            portfolio.apply(fill)
        if settled and portfolio.fills - before >= save_at:
            next_save = SavedPortfolio(settled_to, portfolio.state())
        for fill in fills[len(final) :]:
            portfolio.apply(fill)
        settled = settled and after == settled_to
    if next_save is not None:
        with suppress(TransientError):  # the portfolio is complete; the next request tries to save it again
            await store.save_portfolio(user_id, next_save)
    return portfolio


def as_accepted(order: Order) -> Order:
    """Return the order as it was when accepted. The first and every later answer for its key show this order."""
    return msgspec.structs.replace(
        order,
        status=OrderStatus.PENDING,
        outcome=Outcome(),
        seq=1,
        cancel_requested=False,
        updated_at_ms=order.created_at_ms,
    )


def new_id(now_ms: int) -> str:
    """Return a UUIDv7 (RFC 9562 §5.7). Its ids sort by time, so new rows go to the end of the index."""
    value = (now_ms & (1 << 48) - 1) << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def _unknown() -> OrderRefused:
    return OrderRefused(HTTPStatus.NOT_FOUND, "unknown_order", "no such order")


def _unavailable() -> OrderRefused:
    """Return the refusal to send while the store is unavailable, when it is unknown whether anything was executed."""
    message = "the orders can't be reached for now"
    return OrderRefused(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", message, retry_after_ms=1000, fate="unknown")
