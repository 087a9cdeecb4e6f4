"""The metrics of orders say what their log says."""

import pytest

from headrace.model.orders import EventKind, OrderEvent, OrderStatus
from headrace.orders.metrics import ORDERS_MAX, OrderMetrics
from headrace.orders.store.sqlite import SqliteStore
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.testing.orders import new_order


def event(order_id: str, seq: int, kind: str, status: str, at_ms: int) -> OrderEvent:
    return OrderEvent(
        order_id=order_id,
        user_id="u",
        seq=seq,
        kind=EventKind(kind),
        status=OrderStatus(status),
        at_ms=at_ms,
    )


@pytest.fixture
async def measured() -> "tuple[OrderMetrics, Metrics]":
    metrics = Metrics()
    store = await SqliteStore.at(":memory:", SystemClock())
    measures = OrderMetrics(store, SystemClock(), metrics)
    await store.close()
    return measures, metrics


async def test_an_executed_order_is_measured_in_each_stage(measured: tuple[OrderMetrics, Metrics]) -> None:
    measures, metrics = measured
    kinds = ["accepted", "claimed", "quoted", "journaled", "retried", "journaled", "landed", "finalized"]
    statuses = ["PENDING", "ROUTING", "BUILDING", "SUBMITTED", "ROUTING", "SUBMITTED", "CONFIRMED", "CONFIRMED"]
    times = [0, 2_000, 2_500, 3_000, 9_000, 9_500, 10_500, 50_000]
    measures.hear([event("a", n + 1, *it) for n, it in enumerate(zip(kinds, statuses, times, strict=True))])
    text = metrics.render().decode()
    for line in (
        'headrace_order_stage_seconds_sum{stage="queued"} 2.0',
        'headrace_order_stage_seconds_sum{stage="built"} 8.5',
        'headrace_order_stage_seconds_sum{stage="confirmed"} 1.0',
        'headrace_order_stage_seconds_sum{stage="in all"} 10.5',
        "headrace_order_attempts_sum 2.0",
        "headrace_order_attempts_count 1.0",
        'headrace_orders_ended_total{status="CONFIRMED"} 1.0',
    ):
        assert line in text, line


async def test_an_order_whose_beginning_was_not_heard_is_counted_and_not_measured(
    measured: tuple[OrderMetrics, Metrics],
) -> None:
    measures, metrics = measured
    measures.hear([event("a", 5, "landed", "CONFIRMED", 1), event("b", 2, "cancelled", "CANCELLED", 1)])
    text = metrics.render().decode()
    assert 'headrace_orders_ended_total{status="CANCELLED"} 1.0' in text
    assert "headrace_order_attempts_count 0.0" in text


async def test_a_clock_that_differs_makes_no_negative_time(measured: tuple[OrderMetrics, Metrics]) -> None:
    measures, metrics = measured
    measures.hear([event("a", 1, "accepted", "PENDING", 5000), event("a", 2, "claimed", "ROUTING", 1000)])
    assert 'headrace_order_stage_seconds_sum{stage="queued"} 0.0' in metrics.render().decode()


async def test_beyond_the_bound_the_oldest_order_is_not_measured(measured: tuple[OrderMetrics, Metrics]) -> None:
    measures, _ = measured
    measures.hear([event(str(n), 1, "accepted", "PENDING", 0) for n in range(ORDERS_MAX + 5)])
    assert len(measures._orders) == ORDERS_MAX


async def test_ready_resting_and_begun_orders_are_counted() -> None:
    metrics, store = Metrics(), await SqliteStore.at(":memory:", SystemClock())
    await store.accept(new_order("a", 1), [], "")
    async with Supervisor(SystemClock()) as tasks:
        tasks.start("test", "measures", OrderMetrics(store, SystemClock(), metrics).run)
        while b'headrace_orders_waiting{state="ready"} 1.0' not in metrics.render():
            await store.depth()
        tasks.cancel()
    await store.close()
