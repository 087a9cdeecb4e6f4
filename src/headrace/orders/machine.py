"""The events that may follow each status: a table for orders and one for attempts. No other step is possible. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from headrace.model.errors import InvariantError
from headrace.model.orders import TERMINAL, AttemptEvent, AttemptStatus, EventKind, OrderStatus

_PENDING, _ROUTING, _BUILDING, _SUBMITTED, _CONFIRMED = (
    OrderStatus.PENDING,
    OrderStatus.ROUTING,
    OrderStatus.BUILDING,
    OrderStatus.SUBMITTED,
    OrderStatus.CONFIRMED,
)

OrderTable: TypeAlias = Mapping[tuple[OrderStatus | None, EventKind], OrderStatus]
"""(status, event) → the next status. The status is None for an order that is not stored yet."""
AttemptTable: TypeAlias = Mapping[tuple[AttemptStatus, AttemptEvent], AttemptStatus]

ORDERS: Final[OrderTable] = MappingProxyType(
    {
        (None, EventKind.ACCEPTED): _PENDING,
        # The market reached the rate that a limit or stop order waits for, so the order may be claimed.
        (_PENDING, EventKind.TRIGGERED): _PENDING,
        (_PENDING, EventKind.CLAIMED): _ROUTING,
        (_ROUTING, EventKind.QUOTED): _BUILDING,
        (_BUILDING, EventKind.JOURNALED): _SUBMITTED,
        (_SUBMITTED, EventKind.LANDED): _CONFIRMED,
        # No venue quoted, the chain refused the swap, or the order has used all its tries.
        (_ROUTING, EventKind.FAILED): OrderStatus.FAILED,
        (_BUILDING, EventKind.FAILED): OrderStatus.FAILED,
        (_SUBMITTED, EventKind.FAILED): OrderStatus.FAILED,
        # Another try. From SUBMITTED only once the previous transaction can no longer land: see decisions.py.
        (_ROUTING, EventKind.RETRIED): _ROUTING,
        (_BUILDING, EventKind.RETRIED): _ROUTING,
        (_SUBMITTED, EventKind.RETRIED): _ROUTING,
        # The market reached the rate but the quotes did not, so the order waits for its trigger again.
        (_ROUTING, EventKind.RESTED): _PENDING,
        # A worker died with the signed transaction only in memory: no node has it, so the next worker may sign again.
        (_BUILDING, EventKind.RESTARTED): _ROUTING,
        (_PENDING, EventKind.CANCELLED): OrderStatus.CANCELLED,
        (_ROUTING, EventKind.CANCELLED): OrderStatus.CANCELLED,
        (_BUILDING, EventKind.CANCELLED): OrderStatus.CANCELLED,
        # The transaction may have been sent: the cancel request is stored, and is granted only if the transaction is
        # proven expired.
        (_SUBMITTED, EventKind.CANCEL_REQUESTED): _SUBMITTED,
        (_SUBMITTED, EventKind.CANCELLED): OrderStatus.CANCELLED,
        # An order that expires while it waits is claimed first. A BUILDING order continues, or is restarted first.
        (_ROUTING, EventKind.EXPIRED): OrderStatus.EXPIRED,
        (_SUBMITTED, EventKind.EXPIRED): OrderStatus.EXPIRED,
        # A landing becomes final, or is lost with its fork. A person must look at a lost landing.
        (_CONFIRMED, EventKind.FINALIZED): _CONFIRMED,
        (_CONFIRMED, EventKind.LANDING_LOST): _CONFIRMED,
        # Long after its end, the order's log is reduced to one event. The status stays.
        (_CONFIRMED, EventKind.RETIRED): _CONFIRMED,
        (OrderStatus.FAILED, EventKind.RETIRED): OrderStatus.FAILED,
        (OrderStatus.CANCELLED, EventKind.RETIRED): OrderStatus.CANCELLED,
        (OrderStatus.EXPIRED, EventKind.RETIRED): OrderStatus.EXPIRED,
    }
)

_JOURNALED, _SENT, _UNKNOWN = AttemptStatus.JOURNALED, AttemptStatus.SENT, AttemptStatus.UNKNOWN

ATTEMPTS: Final[AttemptTable] = MappingProxyType(
    {
        (_JOURNALED, AttemptEvent.SENT): _SENT,
        (_JOURNALED, AttemptEvent.UNCLEAR): _UNKNOWN,
        (_SENT, AttemptEvent.UNCLEAR): _UNKNOWN,
        # A JOURNALED attempt can also have landed: the worker died after the send, before SENT was stored.
        **{(before, AttemptEvent.LANDED_OK): AttemptStatus.LANDED_OK for before in (_JOURNALED, _SENT, _UNKNOWN)},
        **{(before, AttemptEvent.LANDED_ERR): AttemptStatus.LANDED_ERR for before in (_JOURNALED, _SENT, _UNKNOWN)},
        **{(before, AttemptEvent.EXPIRED): AttemptStatus.EXPIRED_PROVEN for before in (_JOURNALED, _SENT, _UNKNOWN)},
    }
)


def may(status: OrderStatus | None, kind: EventKind) -> bool:
    """Return whether the event can happen to an order with this status."""
    return (status, kind) in ORDERS


def after(status: OrderStatus | None, kind: EventKind) -> OrderStatus:
    """Return the order's next status. Raises InvariantError for an event that can't happen in this status."""
    try:
        return ORDERS[status, kind]
    except KeyError:
        raise InvariantError(f"an order that is {status or 'not stored'} can't be {kind}") from None


def ends(kind: EventKind) -> bool:
    """Return whether the event ends an order that is not over."""
    return any(to in TERMINAL for (before, each), to in ORDERS.items() if each is kind and before not in TERMINAL)


def attempt_may(status: AttemptStatus, event: AttemptEvent) -> bool:
    """Return whether the event can happen to an attempt with this status."""
    return (status, event) in ATTEMPTS


def attempt_after(status: AttemptStatus, event: AttemptEvent) -> AttemptStatus:
    """Return the attempt's next status. Raises InvariantError for an event that can't happen in this status."""
    try:
        return ATTEMPTS[status, event]
    except KeyError:
        raise InvariantError(f"an attempt that is {status} can't become {event}") from None


def attempt_leaves(to: AttemptStatus) -> tuple[AttemptStatus, ...]:
    """Return the statuses from which an attempt may become `to`."""
    return tuple(status for (status, _), reached in ATTEMPTS.items() if reached is to)
