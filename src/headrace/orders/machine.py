"""Which step may follow which: one table for orders, one for attempts. What is not in a table can't happen. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

from headrace.model.errors import InvariantError
from headrace.model.orders import AttemptStatus, OrderStatus


class Step(StrEnum):
    """What can happen to an order."""

    TRIGGERED = "triggered"
    CLAIMED = "claimed"
    QUOTED = "quoted"
    JOURNALED = "journaled"
    LANDED = "landed"
    FAILED = "failed"
    RETRIED = "retried"
    RESTED = "rested"
    RESTARTED = "restarted"
    CANCEL_REQUESTED = "cancel_requested"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Trace(StrEnum):
    """What can be learnt about an attempt."""

    SENT = "sent"
    UNCLEAR = "unclear"
    LANDED_OK = "landed_ok"
    LANDED_ERR = "landed_err"
    EXPIRED = "expired"


_PENDING, _ROUTING, _BUILDING, _SUBMITTED = (
    OrderStatus.PENDING,
    OrderStatus.ROUTING,
    OrderStatus.BUILDING,
    OrderStatus.SUBMITTED,
)

OrderTable: TypeAlias = Mapping[tuple[OrderStatus, Step], OrderStatus]
AttemptTable: TypeAlias = Mapping[tuple[AttemptStatus, Trace], AttemptStatus]

ORDERS: Final[OrderTable] = MappingProxyType(
    {
        # The market reached what a limit or stop order waits for: from here on it may be claimed.
        (_PENDING, Step.TRIGGERED): _PENDING,
        (_PENDING, Step.CLAIMED): _ROUTING,
        (_ROUTING, Step.QUOTED): _BUILDING,
        (_BUILDING, Step.JOURNALED): _SUBMITTED,
        (_SUBMITTED, Step.LANDED): OrderStatus.CONFIRMED,
        # No venue quoted, the chain refused the swap, or the tries are used up.
        (_ROUTING, Step.FAILED): OrderStatus.FAILED,
        (_BUILDING, Step.FAILED): OrderStatus.FAILED,
        (_SUBMITTED, Step.FAILED): OrderStatus.FAILED,
        # Another try. From SUBMITTED only once the former bytes can no longer land: see decisions.py.
        (_ROUTING, Step.RETRIED): _ROUTING,
        (_BUILDING, Step.RETRIED): _ROUTING,
        (_SUBMITTED, Step.RETRIED): _ROUTING,
        # The market was there, the venues are not: it waits for the next such price, as if nothing had been.
        (_ROUTING, Step.RESTED): _PENDING,
        # A worker died with signed bytes in memory only: nobody has them, so the new one may sign anew.
        (_BUILDING, Step.RESTARTED): _ROUTING,
        (_PENDING, Step.CANCELLED): OrderStatus.CANCELLED,
        (_ROUTING, Step.CANCELLED): OrderStatus.CANCELLED,
        (_BUILDING, Step.CANCELLED): OrderStatus.CANCELLED,
        # Bytes may be on their way: the wish is noted, and comes true only if they are proven expired.
        (_SUBMITTED, Step.CANCEL_REQUESTED): _SUBMITTED,
        (_SUBMITTED, Step.CANCELLED): OrderStatus.CANCELLED,
        (_PENDING, Step.EXPIRED): OrderStatus.EXPIRED,
        (_ROUTING, Step.EXPIRED): OrderStatus.EXPIRED,
        (_BUILDING, Step.EXPIRED): OrderStatus.EXPIRED,
        (_SUBMITTED, Step.EXPIRED): OrderStatus.EXPIRED,
    }
)

_JOURNALED, _SENT, _UNKNOWN = AttemptStatus.JOURNALED, AttemptStatus.SENT, AttemptStatus.UNKNOWN

ATTEMPTS: Final[AttemptTable] = MappingProxyType(
    {
        (_JOURNALED, Trace.SENT): _SENT,
        (_JOURNALED, Trace.UNCLEAR): _UNKNOWN,
        (_SENT, Trace.UNCLEAR): _UNKNOWN,
        # JOURNALED can have landed too: the worker died after the send, before it could write SENT.
        **{(before, Trace.LANDED_OK): AttemptStatus.LANDED_OK for before in (_JOURNALED, _SENT, _UNKNOWN)},
        **{(before, Trace.LANDED_ERR): AttemptStatus.LANDED_ERR for before in (_JOURNALED, _SENT, _UNKNOWN)},
        **{(before, Trace.EXPIRED): AttemptStatus.EXPIRED_PROVEN for before in (_JOURNALED, _SENT, _UNKNOWN)},
    }
)


def after(status: OrderStatus, step: Step) -> OrderStatus:
    """The order's next status. Raises InvariantError for a step that can't happen there."""
    try:
        return ORDERS[status, step]
    except KeyError:
        raise InvariantError(f"an order that is {status} can't be {step}") from None


def attempt_after(status: AttemptStatus, trace: Trace) -> AttemptStatus:
    """The attempt's next status. Raises InvariantError for a trace that can't be found there."""
    try:
        return ATTEMPTS[status, trace]
    except KeyError:
        raise InvariantError(f"an attempt that is {status} can't become {trace}") from None


def attempt_leaves(to: AttemptStatus) -> tuple[AttemptStatus, ...]:
    """The statuses from which an attempt may become `to`."""
    return tuple(status for (status, _), reached in ATTEMPTS.items() if reached is to)
