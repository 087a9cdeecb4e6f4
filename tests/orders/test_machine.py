"""Every pair of status and event, through the verbs: the listed ones happen, all others are refused.

Each row of the tables is also taken away by itself: then these tests must fail, or the row is idle.
"""

import itertools
from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

import pytest
from msgspec.structs import replace

from headrace.model.amounts import BaseUnits
from headrace.model.errors import InvariantError
from headrace.model.orders import (
    TERMINAL,
    WORKED_ON,
    AttemptEvent,
    AttemptStatus,
    Change,
    EventKind,
    Order,
    OrderRefused,
    OrderStatus,
    Trigger,
)
from headrace.orders import machine, verbs
from headrace.orders.machine import ATTEMPTS, ORDERS
from headrace.orders.verbs import Changed
from headrace.testing.orders import new_order

EXPECTED: Final = {
    None: "accepted>PENDING",
    "PENDING": "triggered>PENDING claimed>ROUTING cancelled>CANCELLED",
    "ROUTING": "quoted>BUILDING failed>FAILED retried>ROUTING rested>PENDING cancelled>CANCELLED expired>EXPIRED",
    "BUILDING": "journaled>SUBMITTED failed>FAILED retried>ROUTING restarted>ROUTING cancelled>CANCELLED",
    "SUBMITTED": "landed>CONFIRMED failed>FAILED retried>ROUTING cancel_requested>SUBMITTED cancelled>CANCELLED"
    " expired>EXPIRED",
    "CONFIRMED": "finalized>CONFIRMED landing_lost>CONFIRMED retired>CONFIRMED",
    "FAILED": "retired>FAILED",
    "CANCELLED": "retired>CANCELLED",
    "EXPIRED": "retired>EXPIRED",
}
STEPS: Final = (
    EventKind.QUOTED,
    EventKind.JOURNALED,
    EventKind.LANDED,
    EventKind.FAILED,
    EventKind.RETRIED,
    EventKind.RESTED,
    EventKind.RESTARTED,
    EventKind.CANCELLED,
    EventKind.EXPIRED,
)
"""The events of a worker's steps; the others belong to one verb each."""
ATTEMPT_ENDS: Final = {AttemptStatus.LANDED_OK, AttemptStatus.LANDED_ERR, AttemptStatus.EXPIRED_PROVEN}


def order_in(status: OrderStatus) -> Order:
    """An order that still awaits its trigger if it is PENDING."""
    order = new_order("a", 1)
    trigger = Trigger(when="at_least", out=BaseUnits(1), per=BaseUnits(2))
    return replace(order, status=status, epoch=1, request=replace(order.request, trigger=trigger))


def calls(order: Order) -> Iterator[Changed | Order | None]:
    """The result of every verb on this order; None where the verb refuses."""
    for kind in STEPS:
        try:
            yield verbs.take(order, order, Change(kind=kind), 2)
        except InvariantError:
            yield None
    for finality in ("finalized", "lost"):
        yield verbs.finalize(order, replace(order.outcome, finality=finality), 2)
    yield verbs.trigger(order, {}, 2)
    if order.status is OrderStatus.PENDING or order.status in WORKED_ON:
        yield verbs.claim(order, 2, 1000)
    try:
        yield verbs.cancel(order, None, 2)
    except OrderRefused:
        yield None
    try:
        yield verbs.retire(order)
    except InvariantError:
        yield None


def happened() -> dict[str | None, set[str]]:
    """Return what the verbs make of an order in each status, as `EXPECTED` has it."""
    found: dict[str | None, set[str]] = {None: set()}
    accepted = verbs.accept(order_in(OrderStatus.PENDING), 1, 0)
    found[None].add(f"{accepted.events[0].kind}>{accepted.order.status}")
    for status in OrderStatus:
        of_status = found.setdefault(status.value, set())
        for result in calls(order_in(status)):
            if isinstance(result, Order):
                of_status.add(f"retired>{result.status}")
            elif result is not None:
                of_status |= {f"{event.kind}>{event.status}" for event in result.events}
                assert all(event.status is result.order.status for event in result.events)
    return found


def is_as_expected() -> bool:
    """Return whether every verb does in every status as `EXPECTED` says."""
    try:
        return happened() == {status: set(listed.split()) for status, listed in EXPECTED.items()}
    except InvariantError:
        return False


def test_every_verb_in_every_status_does_what_is_listed_and_nothing_else() -> None:
    assert happened() == {status: set(listed.split()) for status, listed in EXPECTED.items()}


@pytest.mark.parametrize("row", ORDERS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_without_any_one_row_the_orders_table_is_noticed(
    row: tuple[OrderStatus | None, EventKind], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {each: to for each, to in ORDERS.items() if each != row}
    monkeypatch.setattr(machine, "ORDERS", MappingProxyType(left))
    assert not is_as_expected()


@pytest.mark.parametrize(("status", "kind"), list(itertools.product([None, *OrderStatus], EventKind)))
def test_an_event_that_is_not_in_the_table_is_refused(status: OrderStatus | None, kind: EventKind) -> None:
    if machine.may(status, kind):
        assert status not in TERMINAL or machine.after(status, kind) is status, "nothing leaves a terminal status"
    else:
        with pytest.raises(InvariantError):
            machine.after(status, kind)


@pytest.mark.parametrize(("status", "event"), list(itertools.product(AttemptStatus, AttemptEvent)))
def test_every_event_of_an_attempt_happens_as_listed_or_is_refused(status: AttemptStatus, event: AttemptEvent) -> None:
    opened = (AttemptStatus.JOURNALED, AttemptStatus.SENT, AttemptStatus.UNKNOWN)
    ends = {
        AttemptEvent.LANDED_OK: AttemptStatus.LANDED_OK,
        AttemptEvent.LANDED_ERR: AttemptStatus.LANDED_ERR,
        AttemptEvent.EXPIRED: AttemptStatus.EXPIRED_PROVEN,
    }
    expected = {
        (AttemptStatus.JOURNALED, AttemptEvent.SENT): AttemptStatus.SENT,
        (AttemptStatus.JOURNALED, AttemptEvent.UNCLEAR): AttemptStatus.UNKNOWN,
        (AttemptStatus.SENT, AttemptEvent.UNCLEAR): AttemptStatus.UNKNOWN,
        **{(before, end): to for before in opened for end, to in ends.items()},
    }.get((status, event))
    assert machine.attempt_may(status, event) == (expected is not None)
    if expected is None:
        with pytest.raises(InvariantError):
            machine.attempt_after(status, event)
    else:
        assert machine.attempt_after(status, event) is expected
        assert status in machine.attempt_leaves(expected)


def test_every_live_order_can_end_and_every_status_is_reached() -> None:
    assert set(ORDERS.values()) == set(OrderStatus)
    for status in set(OrderStatus) - TERMINAL:
        assert any(before is status and to in TERMINAL for (before, _), to in ORDERS.items())


def test_the_sets_of_statuses_agree_with_the_table() -> None:
    left = {before for (before, _), to in ORDERS.items() if to is not before}
    assert set(OrderStatus) - left == TERMINAL
    assert left - {None, OrderStatus.PENDING} == WORKED_ON


def test_only_events_that_reach_an_end_are_ends() -> None:
    ends = {kind for kind in EventKind if machine.ends(kind)}
    assert ends == {EventKind.LANDED, EventKind.FAILED, EventKind.CANCELLED, EventKind.EXPIRED}


def test_no_order_is_built_without_a_route_nor_confirmed_without_a_journal() -> None:
    assert {before for before, kind in ORDERS if kind is EventKind.JOURNALED} == {OrderStatus.BUILDING}
    landed = {before for (before, _), to in ORDERS.items() if to is OrderStatus.CONFIRMED and before is not to}
    assert landed == {OrderStatus.SUBMITTED}
    assert {before for (before, _), to in ORDERS.items() if to is OrderStatus.BUILDING} == {OrderStatus.ROUTING}


def test_unknown_never_ends_by_itself() -> None:
    ends = {event for (before, event), to in ATTEMPTS.items() if before is AttemptStatus.UNKNOWN and to in ATTEMPT_ENDS}
    assert ends == {AttemptEvent.LANDED_OK, AttemptEvent.LANDED_ERR, AttemptEvent.EXPIRED}
