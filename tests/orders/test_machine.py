"""Both tables, every pair of state and event: what is listed happens, everything else is refused."""

import itertools

import pytest

from headrace.model.errors import InvariantError
from headrace.model.orders import TERMINAL, AttemptStatus, OrderStatus
from headrace.orders import machine
from headrace.orders.machine import ATTEMPTS, ORDERS, Step, Trace

ATTEMPT_ENDS = {AttemptStatus.LANDED_OK, AttemptStatus.LANDED_ERR, AttemptStatus.EXPIRED_PROVEN}


@pytest.mark.parametrize(("status", "step"), list(itertools.product(OrderStatus, Step)))
def test_every_order_step(status: OrderStatus, step: Step) -> None:
    if (status, step) in ORDERS:
        machine.after(status, step)
        assert status not in TERMINAL, "nothing leaves a terminal status"
    else:
        with pytest.raises(InvariantError):
            machine.after(status, step)


@pytest.mark.parametrize(("status", "trace"), list(itertools.product(AttemptStatus, Trace)))
def test_every_attempt_trace(status: AttemptStatus, trace: Trace) -> None:
    if (status, trace) in ATTEMPTS:
        assert status in machine.attempt_leaves(machine.attempt_after(status, trace))
        assert status not in ATTEMPT_ENDS
    else:
        with pytest.raises(InvariantError):
            machine.attempt_after(status, trace)


def test_every_live_order_can_end_and_every_status_is_reached() -> None:
    reached = {OrderStatus.PENDING} | set(ORDERS.values())
    assert reached == set(OrderStatus)
    for status in set(OrderStatus) - TERMINAL:
        assert any(before is status and to in TERMINAL for (before, _), to in ORDERS.items())


def test_nothing_is_signed_without_routing_and_nothing_confirmed_without_a_journal() -> None:
    assert {before for before, step in ORDERS if step is Step.JOURNALED} == {OrderStatus.BUILDING}
    assert {before for (before, _), to in ORDERS.items() if to is OrderStatus.CONFIRMED} == {OrderStatus.SUBMITTED}
    assert {before for (before, _), to in ORDERS.items() if to is OrderStatus.BUILDING} == {OrderStatus.ROUTING}


def test_unknown_never_ends_by_itself() -> None:
    ends = {trace for (before, trace), to in ATTEMPTS.items() if before is AttemptStatus.UNKNOWN and to in ATTEMPT_ENDS}
    assert ends == {Trace.LANDED_OK, Trace.LANDED_ERR, Trace.EXPIRED}
