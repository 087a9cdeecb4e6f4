"""The newest orders, from memory: whole logs of what is committed, or nothing."""

from headrace.model.orders import EventKind, OrderEvent, OrderStatus
from headrace.orders import recent
from headrace.orders.recent import RecentOrders
from headrace.testing.orders import new_order

KIND = EventKind.QUOTED


def event(order_id: str, seq: int) -> OrderEvent:
    return OrderEvent(
        order_id=order_id, user_id="u", seq=seq, kind=EventKind.QUOTED, status=OrderStatus.ROUTING, at_ms=1
    )


def seqs(orders: RecentOrders, order_id: str) -> list[int] | None:
    known = orders.get(order_id)
    return None if known is None else [event.seq for event in known.events]


def test_an_order_is_shown_once_it_is_committed_and_each_event_once() -> None:
    orders = RecentOrders()
    orders.expect(new_order("a", 1))
    assert seqs(orders, "a") is None
    orders.hear([event("a", 1), event("a", 2), event("b", 1)])
    orders.hear([event("a", 2), event("a", 3)])
    assert (seqs(orders, "a"), seqs(orders, "b")) == ([1, 2, 3], None)


def test_a_log_with_a_hole_or_without_an_end_is_forgotten() -> None:
    orders = RecentOrders()
    for order_id in "ab":
        orders.expect(new_order(order_id, 1))
    orders.hear([event("a", 1), event("a", 3), event("a", 2)])
    assert seqs(orders, "a") is None
    orders.hear([event("b", seq) for seq in range(1, recent.EVENTS_MAX + 1)])
    assert seqs(orders, "b") == list(range(1, recent.EVENTS_MAX + 1))
    orders.hear([event("b", recent.EVENTS_MAX + 1)])
    assert seqs(orders, "b") is None


def test_beyond_the_bound_the_oldest_log_is_forgotten() -> None:
    orders = RecentOrders()
    for number in range(recent.ORDERS_MAX + 1):
        orders.expect(new_order(f"o{number}", 1))
        orders.hear([event(f"o{number}", 1)])
    assert (seqs(orders, "o0"), seqs(orders, "o1"), seqs(orders, f"o{recent.ORDERS_MAX}")) == (None, [1], [1])
