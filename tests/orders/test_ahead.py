"""An order whose quotes and bytes are there at once is stored, claimed and journaled by one commit."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from headrace.model.errors import TransientError
from headrace.model.orders import TERMINAL, EventKind, Order, OrderEvent, OrderRefused, OrderRequest, OrderStatus, Quote
from headrace.model.transactions import Signed
from headrace.orders.engine import Engine
from headrace.orders.intake import Intake
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store import Accepted
from headrace.orders.store.sqlite import SqliteStore
from headrace.orders.worker import Worker
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.testing.orders import FixedVenue, ScriptedChain

BODY: Final = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": "1500000000", "type": "market"}
SETTINGS: Final = ExecutionSettings(retry_ms=1, sign_first=True)
WITH_BYTES: Final = [EventKind.ACCEPTED, EventKind.CLAIMED, EventKind.QUOTED, EventKind.JOURNALED]


class WaitingVenue(FixedVenue):
    """A venue whose quotes wait, and fail as often as a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.asked, self.failures = asyncio.Event(), 0, 0
        self.free.set()

    async def quote(self, request: OrderRequest) -> Quote:
        self.asked += 1
        if self.failures:
            self.failures -= 1
            raise TransientError("no quote")
        await self.free.wait()
        return await super().quote(request)


class AtEase:
    """An intake with a worker of the same process that is at ease, and what the store committed."""

    def __init__(self, store: SqliteStore, chain: ScriptedChain) -> None:
        self.store, self.chain, self.venue = store, chain, WaitingVenue()
        clock = SystemClock()
        self.engine = Engine(store, self.chain, [self.venue], SETTINGS, clock)
        self.worker = Worker(store, self.engine, SETTINGS, clock, Metrics(), concurrency=10, per_minute=0)
        self.intake = Intake(store, SETTINGS, clock, self.worker)
        self.commits: list[list[EventKind]] = []
        store.attach(self.hear)

    def hear(self, events: Sequence[OrderEvent]) -> None:
        self.commits.append([event.kind for event in events])

    async def idle(self) -> None:
        """Return when the worker has nothing in hand."""
        while self.worker._held:
            await self.store.get("none")

    async def over(self, accepted: Accepted) -> Order:
        """The order when it is over."""
        while True:
            order = await self.store.get(accepted.order.id)
            assert order is not None
            if order.status in (OrderStatus.CONFIRMED, OrderStatus.FAILED):
                return order


@asynccontextmanager
async def at_ease(
    folder: Path, kind: type[SqliteStore] = SqliteStore, chain: ScriptedChain | None = None
) -> AsyncIterator[AtEase]:
    store = await kind.at(str(folder / "orders.db"), SystemClock())
    opened = AtEase(store, chain or ScriptedChain())
    try:
        async with asyncio.timeout(30), Supervisor(SystemClock()) as tasks:
            tasks.start("test", "worker", opened.worker.run)
            while True:  # until the worker has looked for orders, and is at ease
                await store.get("none")
                with opened.worker.promise() as lease_ms:
                    if lease_ms:
                        break
            yield opened
            tasks.cancel()
        await opened.worker.release()
    finally:
        await store.close()


async def test_quotes_that_are_there_at_once_are_journaled_with_the_acceptance(tmp_path: Path) -> None:
    async with at_ease(tmp_path) as it:
        it.chain.on_send = it.chain.land
        order = await it.over(await it.intake.execute(BODY))
        assert (order.status, order.outcome.fate, order.outcome.venue) == (OrderStatus.CONFIRMED, "executed", "fixed")
        assert it.commits == [WITH_BYTES, [EventKind.LANDED]]
        assert (it.venue.asked, len(it.chain.sent)) == (1, 1)
        [event] = [e for e in await it.store.events(order.id, 0, 10) if e.kind is EventKind.JOURNALED]
        assert event.seq == 4


async def test_slow_quotes_hold_no_acceptance_up_and_are_asked_for_once(tmp_path: Path) -> None:
    async with at_ease(tmp_path) as it:
        it.chain.on_send = it.chain.land
        it.venue.free.clear()
        accepted = await it.intake.execute(BODY)
        assert accepted.order.status is OrderStatus.ROUTING
        assert it.commits == [WITH_BYTES[:2]]
        it.venue.free.set()
        assert (await it.over(accepted)).status is OrderStatus.CONFIRMED
        assert (it.venue.asked, len(it.chain.sent)) == (1, 1)


async def test_a_failure_ahead_of_the_acceptance_is_no_failure_of_the_order(tmp_path: Path) -> None:
    async with at_ease(tmp_path) as it:
        it.chain.on_send = it.chain.land
        it.venue.failures = 1
        order = await it.over(await it.intake.execute(BODY))
        assert (order.status, order.outcome.failed_tries, it.venue.asked) == (OrderStatus.CONFIRMED, 0, 2)


async def test_an_order_that_a_key_already_names_is_neither_begun_nor_sent_again(tmp_path: Path) -> None:
    async with at_ease(tmp_path) as it:
        it.chain.on_send = it.chain.land
        first = await it.intake.execute(BODY, "key")
        await it.over(first)
        again = await it.intake.execute(BODY, "key")
        assert (again.replayed, again.order.id) == (True, first.order.id)
        assert (len(it.chain.sent), it.worker._held) == (1, {})


async def test_nothing_is_sent_for_an_acceptance_that_fails(tmp_path: Path) -> None:
    class Away(SqliteStore):
        async def accept(self, *_: Any, **__: Any) -> Accepted:
            raise TransientError("away")

    async with at_ease(tmp_path, Away) as it:
        with pytest.raises(OrderRefused, match="can't be reached"):
            await it.intake.execute(BODY)
        assert (it.chain.sent, it.worker._held, it.commits) == ([], {}, [])


async def test_bytes_that_were_journaled_but_not_sent_are_sent_by_the_next_worker_and_land_once(tmp_path: Path) -> None:
    class Dying(ScriptedChain):
        """A chain at whose first send the process ends."""

        dies = True

        async def send(self, signed: Signed) -> None:
            if self.dies:
                self.dies = False
                raise ValueError("the process ends here")
            await super().send(signed)

    async with at_ease(tmp_path, chain=Dying()) as it:
        it.chain.on_send = it.chain.land
        accepted = await it.intake.execute(BODY)
        await it.idle()
        assert (it.commits, it.chain.sent) == ([WITH_BYTES], [])
        await it.store.release([accepted.order])
        it.worker._wake.set()
        order = await it.over(accepted)
        assert (order.status, len({each.signature for each in it.chain.sent})) == (OrderStatus.CONFIRMED, 1)
        assert it.chain.executions(order.id) == 1


async def test_a_worker_that_stops_leaves_the_acceptance_without_steps(tmp_path: Path) -> None:
    async with at_ease(tmp_path) as it:
        tasks, it.worker._tasks = it.worker._tasks, None
        accepted = await it.intake.execute(BODY)
        assert (accepted.order.status, it.venue.asked) == (OrderStatus.PENDING, 0)
        it.worker._tasks = tasks


async def test_a_refusal_under_the_key_of_an_order_in_preparation_is_that_order(tmp_path: Path) -> None:
    async with at_ease(tmp_path) as it:
        it.chain.on_send = it.chain.land
        it.venue.free.clear()
        intake = Intake(it.store, replace(SETTINGS, orders_per_minute_per_user=1), SystemClock(), it.worker)
        first, second = await asyncio.gather(intake.execute(BODY, "k"), intake.execute(BODY, "k"))
        it.venue.free.set()
        assert (first.order.id, second.replayed) == (second.order.id, True)
        await it.over(first)


@pytest.mark.parametrize("sign_first", [True, False])
async def test_an_order_that_expires_before_its_bytes_are_stored_is_not_sent(tmp_path: Path, sign_first: bool) -> None:
    async with at_ease(tmp_path) as it:
        it.chain.on_send = it.chain.land
        it.venue.free.clear()
        intake = Intake(it.store, replace(SETTINGS, sign_first=sign_first), SystemClock(), it.worker)
        accepted = await intake.execute({**BODY, "expiresInMs": 50})
        await asyncio.sleep(0.06)  # the order's own time, by the wall clock
        it.venue.free.set()
        while (order := await it.store.get(accepted.order.id)) is not None and order.status not in TERMINAL:
            it.chain.finalized = it.chain.height = it.chain.height + it.chain.validity + 1
        assert order is not None
        assert (order.status, order.outcome.fate) == (OrderStatus.EXPIRED, "not_executed")
        assert it.chain.sent == []
