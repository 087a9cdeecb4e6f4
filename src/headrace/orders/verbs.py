"""The verbs on orders: pure functions that take an order as stored, and facts, and return the order and its new events.

A store loads the row, calls the verb, and writes the result. The next status is always the machine's.
"""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from headrace.model.orders import (
    TERMINAL,
    WORKED_ON,
    Attempt,
    AttemptEvent,
    Change,
    EventKind,
    LeaseLost,
    Order,
    OrderEvent,
    OrderRefused,
    OrderStatus,
    Outcome,
    Watch,
)
from headrace.order_types.register import joined
from headrace.orders import machine
from headrace.protocol.orders import event_data

FOREVER_MS: Final = 2**52
"""Point in time, or duration in ms, that is never reached."""
NO_LEASE: Final = -1
"""Used in place of a lease's duration in ms: no lease, because the order may be claimed or is final."""

_encode = msgspec.json.Encoder().encode


class Room(NamedTuple):
    """Maximum number of orders that may await their trigger at once: of one user, and of all users. 0: any number."""

    of_user: int = 0
    in_all: int = 0


class Changed(NamedTuple):
    """The order after a verb, and what the store must write with it.

    `lease_ms` is the time in ms from now at which the lease ends. `NO_LEASE` removes the lease. None leaves it
    unchanged.
    """

    order: Order
    events: tuple[OrderEvent, ...] = ()
    lease_ms: int | None = None


def accept(order: Order, now_ms: int, lease_ms: int, steps: Sequence[Change] = ()) -> Changed:
    """Accept a new order. With `lease_ms`, also claim it, unless it awaits its trigger.

    `steps` are the worker's first changes. They are applied in sequence, only if the order is claimed.
    """
    order = replace(order, status=machine.after(None, EventKind.ACCEPTED))
    data = {"resting": True} if order.awaits_trigger else {}
    accepted = event_of(order, EventKind.ACCEPTED, order.created_at_ms, data)
    if lease_ms <= 0 or order.awaits_trigger:
        return Changed(order, (accepted,))
    claimed = claim(order, now_ms, lease_ms)
    order, events = claimed.order, [accepted, *claimed.events]
    for step in steps:
        changed = take(order, order, step, now_ms)
        order = changed.order
        events += changed.events
    return Changed(order, tuple(events), claimed.lease_ms)


def rests_until_ms(order: Order) -> int:
    """Return the time in wall ms at which a new order stops waiting for its trigger; 0 if it awaits no trigger."""
    if not order.awaits_trigger:
        return 0
    return FOREVER_MS if order.request.expires_at_ms is None else order.request.expires_at_ms


def check_keys(known: Iterable[str], fingerprint: str) -> None:
    """Raise OrderRefused 422 if a key is `known` with the fingerprint of another request."""
    if any(other != fingerprint for other in known):
        message = "this key was used for another request"
        raise OrderRefused(HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency_key_reused", message)


def check_room(taken: Room, room: Room) -> None:
    """Raise OrderRefused 409 or 503 if there is no room for another order that awaits its trigger.

    `taken` are counts.
    """
    if room.of_user and taken.of_user >= room.of_user:
        message = f"{taken.of_user} orders of this user wait for their price already"
        raise OrderRefused(HTTPStatus.CONFLICT, "too_many_resting", message)
    if room.in_all and taken.in_all >= room.in_all:
        message = "so many orders wait for their price already that this server takes no more of them for now"
        raise OrderRefused(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_resting_in_all", message, retry_after_ms=60_000)


def claim(order: Order, now_ms: int, lease_ms: int) -> Changed:
    """Give the order to a worker under the next epoch.

    An order that another worker had begun keeps its status and log.
    """
    if order.status in WORKED_ON:
        return Changed(replace(order, epoch=order.epoch + 1), (), lease_ms)
    return _step(replace(order, epoch=order.epoch + 1), EventKind.CLAIMED, now_ms, lease_ms=lease_ms)


def trigger(order: Order, data: Mapping[str, Any], now_ms: int) -> Changed | None:
    """Allow the order to be claimed, because the market reached its trigger. None: the order awaits no trigger."""
    if not _waits(order):
        return None
    outcome = replace(order.outcome, triggered=True)
    return _step(order, EventKind.TRIGGERED, now_ms, outcome=outcome, data=data, lease_ms=NO_LEASE)


def keep_watch(order: Order, watch: Watch) -> Changed | None:
    """Merge the order's watch with a newer one. None: nothing changed, or the order awaits no trigger."""
    if not _waits(order):
        return None
    both = joined(order, watch)
    return None if both == order.watch else Changed(replace(order, outcome=replace(order.outcome, watch=both)))


def take(order: Order, held: Order, change: Change, now_ms: int) -> Changed:
    """Apply a worker's change. `held` is the order as the worker knows it, `order` the order as stored.

    Raises LeaseLost if another worker has claimed the order, or if the statuses differ, and InvariantError for a change
    that the machine does not allow.
    """
    check_held(order, held)
    if order.status is not held.status:
        raise LeaseLost(order.id)
    outcome = order.outcome if change.outcome is None else change.outcome
    status = machine.after(order.status, change.kind)
    data = event_data(order.request, status, outcome, before=order.outcome)
    if change.kind is EventKind.RETRIED:
        data["retry"] = outcome.failed_tries
    if change.kind is EventKind.RESTED:
        data["resting"] = True
    return _step(order, change.kind, now_ms, outcome=outcome, data=data, lease_ms=change.rest_ms)


def check_held(order: Order | None, held: Order) -> None:
    """Raise LeaseLost if the stored order does not exist, or has another epoch than the worker's."""
    if order is None or order.epoch != held.epoch:
        raise LeaseLost(held.id)


def learn(attempt: Attempt, event: AttemptEvent) -> Attempt:
    """Return the attempt after the event. Raises InvariantError for an event that can't happen to the attempt."""
    return replace(attempt, status=machine.attempt_after(attempt.status, event))


def finalize(order: Order, outcome: Outcome, now_ms: int) -> Changed | None:
    """Store the finality in `outcome.finality`. None: a finality was stored before."""
    kind = EventKind.FINALIZED if outcome.finality == "finalized" else EventKind.LANDING_LOST
    if not machine.may(order.status, kind) or order.outcome.finality in ("finalized", "lost"):
        return None
    data = event_data(order.request, order.status, outcome, before=order.outcome)
    return _step(order, kind, now_ms, outcome=outcome, data=data, lease_ms=NO_LEASE)


def cancel(order: Order | None, user_id: str | None, now_ms: int) -> Changed | None:
    """Cancel the order, or store the cancel request if the transaction may have been sent.

    Returns None if the order does not exist or belongs to another user. With `user_id` None, any user's order is
    cancelled. A cancelled order gets a new epoch, so that its worker can no longer change it. A repeated cancel request
    changes nothing. Raises OrderRefused 409 if the order has ended.
    """
    if order is None or user_id not in (None, order.request.user_id):
        return None
    if order.status in TERMINAL:
        message = f"the order is already {order.status}"
        raise OrderRefused(HTTPStatus.CONFLICT, "order_over", message, fate=order.outcome.fate or "unknown")
    if machine.may(order.status, EventKind.CANCEL_REQUESTED):
        if order.cancel_requested:
            return Changed(order)
        order = replace(order, cancel_requested=True)
        return _step(order, EventKind.CANCEL_REQUESTED, now_ms, data={"cancelRequested": True})
    outcome = replace(order.outcome, fate="not_executed")
    order = replace(order, epoch=order.epoch + 1, cancel_requested=True)
    return _step(order, EventKind.CANCELLED, now_ms, outcome=outcome)


def retire(order: Order) -> Order:
    """Return the part that is kept of an order that ended long ago: everything but its quotes."""
    status = machine.after(order.status, EventKind.RETIRED)
    return replace(order, status=status, outcome=replace(order.outcome, quotes=(), left_out={}))


def log_of_retired(order: Order, after_seq: int) -> list[OrderEvent]:
    """Return the log of a retired order after `after_seq`: one event, with the `seq` of the last event."""
    if after_seq >= order.seq:
        return []
    data = event_data(order.request, order.status, order.outcome, before=Outcome())
    return [event_of(order, EventKind.RETIRED, order.updated_at_ms, data)]


def event_of(order: Order, kind: EventKind, at_ms: int, data: Mapping[str, Any]) -> OrderEvent:
    """Return the event that led to the order's current state."""
    return OrderEvent(
        order_id=order.id,
        user_id=order.request.user_id,
        seq=order.seq,
        kind=kind,
        status=order.status,
        at_ms=at_ms,
        data=msgspec.Raw(_encode(data)),
    )


def _step(
    order: Order,
    kind: EventKind,
    now_ms: int,
    *,
    outcome: Outcome | None = None,
    data: Mapping[str, Any] | None = None,
    lease_ms: int | None = None,
) -> Changed:
    order = replace(
        order,
        status=machine.after(order.status, kind),
        outcome=order.outcome if outcome is None else outcome,
        seq=order.seq + 1,
        updated_at_ms=now_ms,
    )
    return Changed(order, (event_of(order, kind, now_ms, data or {}),), lease_ms)


def _waits(order: Order) -> bool:
    return order.status is OrderStatus.PENDING and order.awaits_trigger
