"""What clients are told when they ask again, and when nobody can know."""

from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.model.orders import OrderRefused
from headrace.orders.idempotency import fingerprint
from headrace.orders.intake import Intake, as_accepted
from headrace.orders.requests import read_request
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store.sqlite import SqliteStore
from headrace.runtime.clock import ManualClock

BODY = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": "1500000000"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.at(str(tmp_path / "orders.db"), clock)
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
    stricter = Intake(
        store, ExecutionSettings(amount_limits=("SOL=1",), amount_max=1, orders_per_minute_per_user=1), clock
    )
    for _ in range(3):
        again = await stricter.execute(body, key)
        assert (again.replayed, as_accepted(again.order)) == (True, as_accepted(first.order))


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_new_order_past_its_time_is_refused(store: SqliteStore, clock: ManualClock, key: str | None) -> None:
    late = {**BODY, "expiresAt": clock.wall_ns() // 1_000_000}
    with pytest.raises(OrderRefused) as refused:
        await Intake(store, ExecutionSettings(), clock).execute(late, key)
    assert (refused.value.status, list(refused.value.fields)) == (400, ["expiresAt"])
    assert refused.value.fate == "not_executed"


async def test_a_store_that_is_away_answers_503_with_fate_unknown(store: SqliteStore, clock: ManualClock) -> None:
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


@pytest.mark.parametrize("first", ["abc", '"abc"'])
@pytest.mark.parametrize("then", ["abc", '"abc"'])
async def test_a_key_in_either_form_is_one_order(store: SqliteStore, clock: ManualClock, first: str, then: str) -> None:
    intake = Intake(store, ExecutionSettings(), clock)
    placed, again = await intake.execute(BODY, first), await intake.execute(BODY, then)
    assert (again.replayed, again.order.id) == (True, placed.order.id)


async def test_a_key_that_was_stored_quoted_is_found_quoted(store: SqliteStore, clock: ManualClock) -> None:
    """Earlier versions took the quotes for a part of the key."""
    intake = Intake(store, ExecutionSettings(), clock)
    order = (await intake.execute(BODY)).order
    earlier = msgspec.structs.replace(order, id="earlier")
    await store.accept(earlier, ['key:"abc"'], fingerprint(order.request))
    again = await intake.execute(BODY, '"abc"')
    assert (again.replayed, again.order.id) == (True, "earlier")


@pytest.mark.parametrize("slippage", [Decimal("0.51"), 1, Decimal("0.500001")])
async def test_a_slippage_that_may_be_per_cent_is_refused_with_the_reason(
    store: SqliteStore, clock: ManualClock, slippage: Any
) -> None:
    intake = Intake(store, ExecutionSettings(), clock)
    for key in (None, "k"):
        with pytest.raises(OrderRefused, match="slippageBps") as refused:
            await intake.execute({**BODY, "slippage": slippage}, key)
        assert (refused.value.status, list(refused.value.fields)) == (400, ["slippage"])
    assert (await intake.execute({**BODY, "slippage": Decimal("0.5")})).order.request.slippage_bps == 5000
    assert (await intake.execute({**BODY, "slippageBps": 9000})).order.request.slippage_bps == 9000


async def test_an_order_of_earlier_times_is_found_whatever_its_slippage(store: SqliteStore, clock: ManualClock) -> None:
    """Whoever is told "not executed" places another."""
    body = {**BODY, "slippage": Decimal("0.6")}
    request = read_request(body, amount_max=2**63)
    intake = Intake(store, ExecutionSettings(), clock)
    order = msgspec.structs.replace((await intake.execute(BODY)).order, id="earlier", request=request)
    await store.accept(order, ["key:k"], fingerprint(request))
    assert (await intake.execute(body, "k")).order.id == "earlier"


async def test_a_length_of_time_under_one_key_is_one_order(store: SqliteStore, clock: ManualClock) -> None:
    intake = Intake(store, ExecutionSettings(), clock)
    first = await intake.execute({**BODY, "expiresInMs": 3_600_000}, "k")
    await clock.advance(5)
    again = await intake.execute({**BODY, "expiresInMs": 3_600_000}, "k")
    assert (again.replayed, as_accepted(again.order)) == (True, as_accepted(first.order))
    assert first.order.request.expires_at_ms == first.order.created_at_ms + 3_600_000
    await clock.advance(7200)  # also when its time is over
    assert (await intake.execute({**BODY, "expiresInMs": 3_600_000}, "k")).replayed
    with pytest.raises(OrderRefused) as refused:
        await intake.execute({**BODY, "expiresInMs": 7_200_000}, "k")
    assert refused.value.status == 422
