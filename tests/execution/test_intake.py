"""What clients are told when they ask again, and when nobody can know."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.execution.intake import Intake, as_accepted
from headrace.execution.settings import ExecutionSettings
from headrace.model.orders import OrderRefused
from headrace.runtime.clock import ManualClock
from headrace.store.sqlite import SqliteStore

BODY = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": "1500000000"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(str(tmp_path / "orders.db"), clock)
    yield store
    await store.close()


@pytest.mark.parametrize("name", ["key", "clientOrderId"])
async def test_asking_again_gives_the_order_also_when_it_could_not_be_placed_now(
    store: SqliteStore, clock: ManualClock, name: str
) -> None:
    """Whoever is told 400 and "not executed" places another, and has bought twice."""
    body: dict[str, Any] = {**BODY, "expiresAt": clock.wall_ns() // 1_000_000 + 2000}
    key = "k" if name == "key" else None
    if key is None:
        body[name] = "mine"
    first = await Intake(store, ExecutionSettings(), clock).execute(body, key)
    await clock.advance(3)
    stricter = Intake(store, ExecutionSettings(amount_limits=("SOL=1",), orders_per_minute_per_user=1), clock)
    for _ in range(3):
        again = await stricter.execute(body, key)
        assert (again.replayed, as_accepted(again.order)) == (True, as_accepted(first.order))


@pytest.mark.parametrize("key", [None, "k"])
async def test_what_is_new_and_late_is_refused(store: SqliteStore, clock: ManualClock, key: str | None) -> None:
    late = {**BODY, "expiresAt": clock.wall_ns() // 1_000_000}
    with pytest.raises(OrderRefused) as refused:
        await Intake(store, ExecutionSettings(), clock).execute(late, key)
    assert (refused.value.status, list(refused.value.fields)) == (400, ["expiresAt"])
    assert refused.value.fate == "not_executed"


async def test_nobody_is_told_that_nothing_was_executed_while_that_can_not_be_known(
    store: SqliteStore, clock: ManualClock
) -> None:
    intake = Intake(store, ExecutionSettings(), clock)
    order_id = (await intake.execute(BODY)).order.id
    await store.close()
    verbs: list[Callable[[], Awaitable[Any]]] = [
        lambda: intake.get(order_id),
        lambda: intake.read(order_id, 0, 1),
        lambda: intake.events(order_id),
        lambda: intake.list(),
        lambda: intake.portfolio("anonymous"),
        lambda: intake.cancel(order_id),
        lambda: intake.execute(BODY),
    ]
    for verb in verbs:
        with pytest.raises(OrderRefused) as refused:
            await verb()
        assert (refused.value.status, refused.value.temporary, refused.value.fate) == (503, True, "unknown")
