"""Takes orders in: what the client sent becomes a checked request, is stored once, and only then answered."""

import secrets
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from headrace.model.errors import TransientError
from headrace.model.identity import SUBJECT_LENGTH_MAX, is_subject
from headrace.model.orders import Order, OrderEvent, OrderRefused, OrderRequest, OrderStatus, Outcome
from headrace.orders.limits import AmountLimits
from headrace.orders.portfolio import view
from headrace.orders.recent import RecentOrders
from headrace.orders.requests import (
    AMOUNTS,
    begun,
    check_fraction,
    check_time,
    decimals_of,
    find_token,
    fingerprint,
    given_of,
    names_of,
    read_request,
)
from headrace.orders.running_portfolio import portfolio_of
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store import Accepted, Cancelled, Page, Room, Store
from headrace.orders.worker import Worker
from headrace.protocol.session import TokenBucket
from headrace.runtime.clock import Clock

USERS_MAX: Final = 10_000


class Intake:
    """The verbs that clients have. Each raises OrderRefused with a reason; a store that is away is 503, retryable.

    A `worker` of this process that has nothing else to do begins an order with its acceptance. `recent` knows the
    newest orders without asking the store.
    Raises ConfigError for limits that can't be read.
    """

    def __init__(self, store: Store, settings: ExecutionSettings, clock: Clock, worker: Worker | None = None) -> None:
        self._store, self._settings, self._clock, self._worker = store, settings, clock, worker
        self._amounts = AmountLimits.parse(settings.amount_limits)
        self._users: OrderedDict[str, TokenBucket] = OrderedDict()
        self.recent = RecentOrders()
        store.attach(self.recent.hear)

    async def execute(self, body: Any, key: str | None = None, *, user_id: str | None = None) -> Accepted:
        """Check and store an order; when this returns, it is on disk and will be executed, once.

        `key` is the client's idempotency key: the same key with the same body gives the first order again.
        """
        now_ms = self._clock.wall_ns() // 1_000_000
        request = begun(read_request(body, amount_max=self._settings.amount_max, user_id=user_id), now_ms)
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
        try:
            if self._worker is None:
                return await self._store.accept(order, keys, fingerprint(request), room, 0, refusal)
            with self._worker.promise() as lease_ms:
                accepted = await self._store.accept(order, keys, fingerprint(request), room, lease_ms, refusal)
                if accepted.claimed:
                    self._worker.begin(accepted.order)
                return accepted
        except TransientError as error:  # it may have been stored all the same; with a key, asking again is safe
            raise _unavailable() from error

    async def get(self, order_id: str, *, user_id: str | None = None) -> Order:
        """The order as it is now. Refused with 404 for one that this user (None: anyone) does not have."""
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
        """`get`, and `events` of the same moment."""
        try:
            found = await self._store.read(order_id, after_seq, limit)
        except TransientError as error:
            raise _unavailable() from error
        if found is None or user_id not in (None, found[0].request.user_id):
            raise _unknown()
        return found

    async def cancel(self, order_id: str, *, user_id: str | None = None) -> Cancelled:
        """Cancel it, or, when its bytes may be on their way, note the wish. Refused with 409 when it is over."""
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
        """Orders, newest first; `mint` may be a symbol."""
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
        """The order's log after `after_seq`; nothing for an order that does not exist."""
        try:
            return await self._store.events(order_id, after_seq, limit)
        except TransientError as error:
            raise _unavailable() from error

    async def portfolio(self, user_id: str) -> dict[str, Any]:
        """What the user's executed orders have come to."""
        if not is_subject(user_id):
            fields = {"user": f"is not 1 to {SUBJECT_LENGTH_MAX} printable ASCII characters"}
            raise OrderRefused(HTTPStatus.BAD_REQUEST, "invalid_query", "no such user", fields=fields)
        try:
            return view(user_id, await portfolio_of(self._store, user_id), decimals_of)
        except TransientError as error:
            raise _unavailable() from error

    def _refusal(self, request: OrderRequest, body: dict[str, Any], now_ms: int) -> OrderRefused | None:
        """Why the order can't be taken now. Under a key it may have been taken before: then it must not be said that
        nothing was executed."""
        try:
            check_fraction(body)
            check_time(request, now_ms)
            self._amounts.check(request, given_of(body, *AMOUNTS))
            self._check_rate(request.user_id)
        except OrderRefused as refusal:
            return refusal
        return None

    def _check_rate(self, user_id: str) -> None:
        """A bucket per user; the least recently seen user is forgotten when there are too many."""
        per_minute = self._settings.orders_per_minute_per_user
        if per_minute == 0:
            return
        now_min = self._clock.monotonic() / 60  # the bucket does not care which unit its "second" is
        bucket = self._users.get(user_id)
        if bucket is None:
            bucket = self._users[user_id] = TokenBucket(per_minute, now_min)
            if len(self._users) > USERS_MAX:
                self._users.popitem(last=False)
        self._users.move_to_end(user_id)
        if wait_min := bucket.take(now_min):
            raise OrderRefused(
                HTTPStatus.TOO_MANY_REQUESTS,
                "rate_limited",
                f"more than {per_minute} orders a minute",
                retry_after_ms=max(1, round(wait_min * 60_000)),
            )


def as_accepted(order: Order) -> Order:
    """The order as it was when it was taken: what the first answer said, and every later one for the same key."""
    return msgspec.structs.replace(
        order,
        status=OrderStatus.PENDING,
        outcome=Outcome(),
        seq=1,
        cancel_requested=False,
        updated_at_ms=order.created_at_ms,
    )


def new_id(now_ms: int) -> str:
    """A UUIDv7 (RFC 9562 §5.7): it sorts by time, so new rows go to the end of the index."""
    value = (now_ms & (1 << 48) - 1) << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def _unknown() -> OrderRefused:
    return OrderRefused(HTTPStatus.NOT_FOUND, "unknown_order", "no such order")


def _unavailable() -> OrderRefused:
    """Whatever was asked: who gets this must not believe that nothing was executed."""
    message = "the orders can't be reached for now"
    return OrderRefused(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", message, retry_after_ms=1000, fate="unknown")
