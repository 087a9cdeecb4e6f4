"""One group commit, decided in memory by calling the verbs. Contains no SQL."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from headrace.model.errors import InvariantError
from headrace.model.orders import (
    WORKED_ON,
    Attempt,
    AttemptStatus,
    Change,
    LeaseLost,
    Order,
    OrderEvent,
    OrderRefused,
    OrderStatus,
    Outcome,
    Watch,
)
from headrace.orders import machine, verbs
from headrace.orders.store import Accepted, Cancelled, Renewal
from headrace.orders.verbs import Changed, Room

ENDED: Final = 0
"""Lease duration in ms that ends a lease at once."""

Key = tuple[str, str]
"""User and idempotency key."""


class Known(NamedTuple):
    """Request for which an idempotency key was used."""

    fingerprint: str
    order_id: str


class Job(NamedTuple):
    """One call of a verb: the rows that it needs, and `decide`, which changes the batch.

    `decide` either changes the batch and returns a result, or raises a HeadraceError and changes nothing. `held` is the
    order as the lease's holder knows it. With `held`, the first try does not read the row.
    """

    decide: Callable[["Batch"], Any]
    order_ids: Sequence[str] = ()
    keys: Sequence[Key] = ()
    moves_attempt: bool = False
    held: Order | None = None
    counts_resting_of: str | None = None

    @property
    def must_look(self) -> bool:
        """Return whether the job's rows must be read before the batch is written.

        Rows of new keys need not be read: keys are hardly ever used twice, and the write detects a key that is.
        """
        return self.counts_resting_of is not None or (self.held is None and bool(self.order_ids))


class Batch:
    """The rows as found (`was`) and as changed (`now`), and everything that must be written.

    A batch with `assumes` has not read its rows. It uses the orders that the jobs hold, and the write itself checks
    that each is still the same in the database.
    """

    def __init__(self, *, assumes: bool = False) -> None:
        self.assumes = assumes
        self.was: dict[str, Order] = {}
        self.now: dict[str, Order] = {}
        self.known: dict[Key, Known] = {}
        self.attempts: dict[tuple[str, int], AttemptStatus] = {}
        self.leases: dict[str, int] = {}
        self.resting: Counter[str] = Counter()
        """Number of orders that await their trigger, by user.

        The empty name has the sum for all users that no job names.
        """
        self.new_orders: list[str] = []
        self.new_keys: list[tuple[Key, Known, int]] = []
        self.new_attempts: dict[tuple[str, int], Attempt] = {}
        self.moved_attempts: dict[tuple[str, int], tuple[Sequence[AttemptStatus], AttemptStatus]] = {}
        self.events: list[OrderEvent] = []

    def add(self, found: Iterable[Order]) -> None:
        """Add rows that are locked for this commit."""
        for order in found:
            self.was[order.id] = self.now[order.id] = order

    def put(self, changed: Changed) -> Order:
        """Record the result of a verb. Return the order."""
        order, events, lease_ms = changed
        self.now[order.id] = order
        if lease_ms is not None:
            self.leases[order.id] = lease_ms
        self.events += events
        return order

    def changed(self) -> list[str]:
        """Return the ids of the stored orders that changed or whose lease did.

        Sorted, so that no two commits deadlock.
        """
        touched = {order_id for order_id, order in self.was.items() if self.now[order_id] is not order}
        return sorted(touched | self.leases.keys() & self.was.keys())


def accept(
    order: Order,
    keys: Sequence[str],
    fingerprint: str,
    room: Room,
    lease_ms: int,
    refusal: OrderRefused | None,
    steps: Sequence[Change],
    now_ms: int,
    batch: Batch,
) -> Accepted:
    user_id = order.request.user_id
    found = [known for key in keys if (known := batch.known.get((user_id, key))) is not None]
    verbs.check_keys((known.fingerprint for known in found), fingerprint)
    for known in found:
        if known.order_id not in batch.now:
            raise InvariantError(f"order {known.order_id} is named by a key but is not there")
        _name(batch, known, [(user_id, key) for key in keys], order.created_at_ms)
        return Accepted(batch.now[known.order_id], replayed=True)
    if refusal is not None:
        raise refusal
    if order.awaits_trigger and any(room):
        verbs.check_room(Room(batch.resting[user_id], batch.resting.total()), room)
        batch.resting[user_id] += 1
    _name(batch, Known(fingerprint, order.id), [(user_id, key) for key in keys], order.created_at_ms)
    changed = verbs.accept(order, now_ms, lease_ms, steps)
    claimed = changed.lease_ms is not None
    batch.new_orders.append(order.id)
    for attempt in (step.attempt for step in steps if claimed):
        if attempt is not None:
            _journal(attempt, batch)
    return Accepted(batch.put(changed), replayed=False, claimed=claimed)


def apply(held: Order, change: Change, expected: Changed, now_ms: int, batch: Batch) -> Order:
    """Apply a change. `expected` is its result if the row is as the holder knows it."""
    row = _held(held, batch)
    changed = expected if row is held else verbs.take(row, held, change, now_ms)
    attempt = change.attempt
    if attempt is not None and change.learnt is not None:
        _move(verbs.learn(attempt, change.learnt), batch)
    elif attempt is not None:
        _journal(attempt, batch)
    return batch.put(changed)


def trigger(order_id: str, data: Mapping[str, Any], now_ms: int, batch: Batch) -> bool:
    row = batch.now.get(order_id)
    return row is not None and _put_if(verbs.trigger(row, data, now_ms), batch)


def keep_watch(order_id: str, watch: Watch, batch: Batch) -> bool:
    row = batch.now.get(order_id)
    return row is not None and _put_if(verbs.keep_watch(row, watch), batch)


def note(held: Order, attempt: Attempt, batch: Batch) -> None:
    """Store what was learnt about an attempt. Raises LeaseLost if the holder no longer has the order."""
    _held(held, batch)
    _move(attempt, batch)


def finalize(order_id: str, outcome: Outcome, now_ms: int, batch: Batch) -> bool:
    row = batch.now.get(order_id)
    return row is not None and _put_if(verbs.finalize(row, outcome, now_ms), batch)


def renew(held: Sequence[Order], lease_ms: int, batch: Batch) -> Renewal:
    found = [(order.epoch, batch.now[order.id]) for order in held if order.id in batch.now]
    kept = [row for epoch, row in found if row.epoch == epoch and row.status in WORKED_ON]
    batch.leases.update({row.id: lease_ms for row in kept})
    return Renewal(frozenset(row.id for row in kept), frozenset(row.id for row in kept if row.cancel_requested))


def cancel(order_id: str, user_id: str | None, now_ms: int, batch: Batch) -> Cancelled | None:
    changed = verbs.cancel(batch.now.get(order_id), user_id, now_ms)
    if changed is None:
        return None
    order = batch.put(changed)
    return Cancelled(order, requested=order.status is not OrderStatus.CANCELLED)


def _put_if(changed: Changed | None, batch: Batch) -> bool:
    if changed is not None:
        batch.put(changed)
    return changed is not None


def _name(batch: Batch, known: Known, keys: Iterable[Key], at_ms: int) -> None:
    """Record these keys as names of the order."""
    for key in keys:
        if key not in batch.known:
            batch.known[key] = known
            batch.new_keys.append((key, known, at_ms))


def _held(held: Order, batch: Batch) -> Order:
    row = batch.now.get(held.id)
    verbs.check_held(row, held)
    assert row is not None
    return row


def _journal(attempt: Attempt, batch: Batch) -> None:
    """Store a new attempt."""
    which = attempt.order_id, attempt.number
    batch.new_attempts[which] = attempt
    batch.attempts[which] = attempt.status


def _move(attempt: Attempt, batch: Batch) -> None:
    """Store the attempt's new status.

    Raises LeaseLost if the stored status is missing or can't change into the new one.
    """
    which, leaves = (attempt.order_id, attempt.number), machine.attempt_leaves(attempt.status)
    known = batch.attempts.get(which)
    if known not in leaves and not (known is None and batch.assumes):
        raise LeaseLost(attempt.order_id)
    batch.attempts[which] = attempt.status
    if which in batch.new_attempts:
        batch.new_attempts[which] = replace(batch.new_attempts[which], status=attempt.status)
    else:
        first_leaves, _ = batch.moved_attempts.get(which, (leaves, None))
        batch.moved_attempts[which] = (first_leaves, attempt.status)
