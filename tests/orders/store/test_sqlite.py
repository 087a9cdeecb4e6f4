"""What is SQLite's own: it measures by the machine's clock, which may be set back."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.orders.store import Rate
from headrace.orders.store.sqlite import SqliteStore
from headrace.runtime.clock import ManualClock
from headrace.testing.orders import new_order

HOUR_NS = 3600 * 10**9
LEASE_MS = 10_000


class WrongClock(ManualClock):
    """A clock whose wall time somebody sets."""

    off_ns = 0

    def wall_ns(self) -> int:
        return super().wall_ns() + self.off_ns


@pytest.fixture
def clock() -> WrongClock:
    return WrongClock()


@pytest.fixture
async def store(tmp_path: Path, clock: WrongClock) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.at(str(tmp_path / "orders.db"), clock)
    yield store
    await store.close()


async def test_a_clock_that_is_set_back_does_not_hold_up_the_shared_rate(store: SqliteStore, clock: WrongClock) -> None:
    rate = Rate(1)
    for order_id in "ab":
        await store.accept(new_order(order_id, 1), [], "")
    [first] = await store.claim(9, LEASE_MS, rate)
    await store.cancel(first.order.id, None)
    clock.off_ns = -HOUR_NS
    assert not await store.claim(9, LEASE_MS, rate), "what was spent stays spent"
    await clock.advance(60)
    assert [each.order.id for each in await store.claim(9, LEASE_MS, rate)] == ["b"]


async def test_a_clock_that_is_set_back_does_not_prolong_the_lease_of_the_dead(
    store: SqliteStore, clock: WrongClock
) -> None:
    await store.accept(new_order("a", 1), [], "")
    await store.claim(1, LEASE_MS, Rate(0))
    assert not await store.claim(1, LEASE_MS, Rate(0))
    clock.off_ns = -HOUR_NS
    [taken] = await store.claim(1, LEASE_MS, Rate(0))
    assert taken.order.epoch == 2
    assert not await store.claim(1, LEASE_MS, Rate(0))
