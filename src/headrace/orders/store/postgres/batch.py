"""What one group commit changes, decided in memory while the database holds the rows for us. No SQL here."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from headrace.model.errors import InvariantError
from headrace.model.orders import (
    TERMINAL,
    Attempt,
    AttemptStatus,
    Change,
    LeaseLost,
    Order,
    OrderEvent,
    OrderRefused,
    OrderStatus,
    Outcome,
)
from headrace.orders.store import Accepted, Cancelled, Renewal, Room, rows

ENDED: Final = 0
"""A lease of so many ms ends at once."""
READY: Final = -1
"""No lease: an order that may be claimed, or one that is final."""

WORKED_ON: Final = frozenset({OrderStatus.ROUTING, OrderStatus.BUILDING, OrderStatus.SUBMITTED})

Key = tuple[str, str]
"""User and idempotency key."""


class Known(NamedTuple):
    """What an idempotency key was used for."""

    fingerprint: str
    order_id: str


class Job(NamedTuple):
    """One verb: which rows it must have, and what it does with them.

    `decide` either changes the batch and returns, or raises a HeadraceError and has changed nothing. `held` is its row
    as the caller, who has the lease, believes it to be: good enough for a try that need not look first.
    """

    decide: Callable[["Batch"], Any]
    order_ids: Sequence[str] = ()
    keys: Sequence[Key] = ()
    moves_attempt: bool = False
    held: Order | None = None
    counts_resting_of: str | None = None

    @property
    def must_look(self) -> bool:
        """What it will find can't be guessed. New keys can: hardly any was used before."""
        return self.counts_resting_of is not None or (self.held is None and bool(self.order_ids))


class Batch:
    """The rows as found, then as changed; and what must be written. `was` are the rows as they are in the database.

    A batch that only `assumes` has not looked: its rows are what the jobs hold, and the database must confirm, as it
    writes, that each is still like that.
    """

    def __init__(self, *, assumes: bool = False) -> None:
        self.assumes = assumes
        self.was: dict[str, Order] = {}
        self.now: dict[str, Order] = {}
        self.known: dict[Key, Known] = {}
        self.attempts: dict[tuple[str, int], AttemptStatus] = {}
        self.leases: dict[str, int] = {}
        self.resting: Counter[str] = Counter()
        """Orders that await their trigger, by user; those of users whom nobody asked about are under the empty name."""
        self.new_orders: list[str] = []
        self.new_keys: list[tuple[Key, Known, int]] = []
        self.new_attempts: dict[tuple[str, int], Attempt] = {}
        self.moved_attempts: dict[tuple[str, int], tuple[Sequence[AttemptStatus], AttemptStatus]] = {}
        self.events: list[OrderEvent] = []

    def add(self, found: Iterable[Order]) -> None:
        """Rows that the database holds for us."""
        for order in found:
            self.was[order.id] = self.now[order.id] = order

    def changed(self) -> list[str]:
        """The stored orders that differ, or whose lease does; sorted, so that nobody waits in a circle."""
        touched = {order_id for order_id, order in self.was.items() if self.now[order_id] is not order}
        return sorted(touched | self.leases.keys() & self.was.keys())


def accept(
    order: Order,
    keys: Sequence[str],
    fingerprint: str,
    room: Room,
    lease_ms: int,
    refusal: OrderRefused | None,
    now_ms: int,
    batch: Batch,
) -> Accepted:
    user_id = order.request.user_id
    found = [known for key in keys if (known := batch.known.get((user_id, key))) is not None]
    rows.check_keys((known.fingerprint for known in found), fingerprint)
    for known in found:
        if known.order_id not in batch.now:
            raise InvariantError(f"order {known.order_id} is named by a key but is not there")
        _name(batch, known, [(user_id, key) for key in keys], order.created_at_ms)
        return Accepted(batch.now[known.order_id], replayed=True)
    if refusal is not None:
        raise refusal
    if order.awaits_trigger and any(room):
        rows.check_room(Room(batch.resting[user_id], batch.resting.total()), room)
        batch.resting[user_id] += 1
    _name(batch, Known(fingerprint, order.id), [(user_id, key) for key in keys], order.created_at_ms)
    claimed = lease_ms > 0 and not order.awaits_trigger
    if claimed:
        batch.leases[order.id] = lease_ms
    order, events = rows.taken_in(order, now_ms, claimed=claimed)
    batch.events += events
    batch.now[order.id] = order
    batch.new_orders.append(order.id)
    return Accepted(order, replayed=False, claimed=claimed)


def apply(order: Order, change: Change, now_ms: int, batch: Batch) -> Order:
    row = _held(order, batch)
    if row.status not in change.leaves:
        raise LeaseLost(order.id)
    attempt = change.attempt
    if attempt is not None and change.attempt_leaves:
        _move(attempt, change.attempt_leaves, batch)
    elif attempt is not None:
        batch.new_attempts[attempt.order_id, attempt.number] = attempt
        batch.attempts[attempt.order_id, attempt.number] = attempt.status
    after = changed(row, change, now_ms)
    batch.now[order.id] = after
    if change.rest_ms is not None:
        batch.leases[order.id] = change.rest_ms
    batch.events.append(rows.event_of(after, change.kind, now_ms, change.data))
    return after


def trigger(order_id: str, data: Mapping[str, Any], now_ms: int, batch: Batch) -> bool:
    row = batch.now.get(order_id)
    if row is None or row.status is not OrderStatus.PENDING or not row.awaits_trigger:
        return False
    outcome = replace(row.outcome, triggered=True)
    after = replace(row, seq=row.seq + 1, outcome=outcome, updated_at_ms=now_ms)
    batch.now[order_id] = after
    batch.leases[order_id] = READY
    batch.events.append(rows.event_of(after, "triggered", now_ms, dict(data)))
    return True


def changed(order: Order, change: Change, now_ms: int) -> Order:
    """The order after the change, if it is applied."""
    return replace(order, status=change.to, outcome=change.outcome, seq=order.seq + 1, updated_at_ms=now_ms)


def note(order: Order, attempt: Attempt, leaves: Sequence[AttemptStatus], batch: Batch) -> None:
    _held(order, batch)
    _move(attempt, leaves, batch)


def finalize(order_id: str, outcome: Outcome, data: Mapping[str, Any], now_ms: int, batch: Batch) -> bool:
    row = batch.now.get(order_id)
    if row is None or row.status is not OrderStatus.CONFIRMED or row.outcome.finality in ("finalized", "lost"):
        return False
    after = replace(row, outcome=outcome, seq=row.seq + 1, updated_at_ms=now_ms)
    batch.now[order_id] = after
    batch.leases[order_id] = READY
    kind = "finalized" if outcome.finality == "finalized" else "landing_lost"
    batch.events.append(rows.event_of(after, kind, now_ms, dict(data)))
    return True


def renew(held: Sequence[Order], lease_ms: int, batch: Batch) -> Renewal:
    rows_now = [(order.epoch, batch.now[order.id]) for order in held if order.id in batch.now]
    kept = [row for epoch, row in rows_now if row.epoch == epoch and row.status in WORKED_ON]
    batch.leases.update({row.id: lease_ms for row in kept})
    return Renewal(frozenset(row.id for row in kept), frozenset(row.id for row in kept if row.cancel_requested))


def cancel(order_id: str, user_id: str | None, now_ms: int, batch: Batch) -> Cancelled | None:
    row = batch.now.get(order_id)
    if row is None or user_id not in (None, row.request.user_id):
        return None
    if row.status in TERMINAL:
        raise _over(row)
    requested = row.status is OrderStatus.SUBMITTED
    if requested and row.cancel_requested:
        return Cancelled(row, requested=True)
    after = replace(row, seq=row.seq + 1, updated_at_ms=now_ms, cancel_requested=True)
    if not requested:
        outcome = replace(row.outcome, fate="not_executed")
        after = replace(after, status=OrderStatus.CANCELLED, epoch=row.epoch + 1, outcome=outcome)
    batch.now[order_id] = after
    kind, data = ("cancel_requested", {"cancelRequested": True}) if requested else ("cancelled", {})
    batch.events.append(rows.event_of(after, kind, now_ms, data))
    return Cancelled(after, requested)


def check_retired(order: Order, user_id: str | None) -> None:
    """Raise OrderRefused 409 when this user has the order: it is over."""
    if user_id in (None, order.request.user_id) and order.status in TERMINAL:
        raise _over(order)


def _over(order: Order) -> OrderRefused:
    message = f"the order is already {order.status}"
    return OrderRefused(409, "order_over", message, fate=order.outcome.fate or "unknown")


def _name(batch: Batch, known: Known, keys: Iterable[Key], at_ms: int) -> None:
    """From now on the order is found under these keys."""
    for key in keys:
        if key not in batch.known:
            batch.known[key] = known
            batch.new_keys.append((key, known, at_ms))


def _held(order: Order, batch: Batch) -> Order:
    row = batch.now.get(order.id)
    if row is None or row.epoch != order.epoch:
        raise LeaseLost(order.id)
    return row


def _move(attempt: Attempt, leaves: Sequence[AttemptStatus], batch: Batch) -> None:
    which = (attempt.order_id, attempt.number)
    known = batch.attempts.get(which)
    if known not in leaves and not (known is None and batch.assumes):
        raise LeaseLost(attempt.order_id)
    batch.attempts[which] = attempt.status
    if which in batch.new_attempts:
        batch.new_attempts[which] = replace(batch.new_attempts[which], status=attempt.status)
    else:
        first_leaves, _ = batch.moved_attempts.get(which, (leaves, None))
        batch.moved_attempts[which] = (first_leaves, attempt.status)
