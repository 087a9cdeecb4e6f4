"""What a worker owes to the others: a dead one's orders go on within a lease and a second, on a clock that stands."""

import asyncio
from pathlib import Path

import pytest

from headrace.model.errors import TransientError
from headrace.model.orders import Claimed, OrderStatus
from headrace.orders.engine import Engine, Held
from headrace.orders.intake import Intake
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store import Rate
from headrace.orders.store.sqlite import SqliteStore
from headrace.orders.worker import Worker
from headrace.runtime.clock import ManualClock, SystemClock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.probes import Probes
from headrace.runtime.supervise import Supervisor
from headrace.testing.orders import FixedVenue, ScriptedChain, new_order

SETTINGS = ExecutionSettings()
LEASE_S = SETTINGS.lease_ms / 1000
BODY = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": "1500000000", "type": "market"}


async def settled(store: SqliteStore) -> None:
    """The store answers in turn: what was asked before has its answer, and what came of that too."""
    for _ in range(10):
        await store.get("none")


async def test_a_dead_workers_order_is_taken_over_within_its_lease_and_a_second(tmp_path: Path) -> None:
    clock = ManualClock()
    store, chain = await SqliteStore.at(str(tmp_path / "orders.db"), clock), ScriptedChain()
    chain.on_send = chain.land
    try:
        await store.accept(new_order("o", clock.wall_ns() // 1_000_000), [], "")
        [dead] = await store.claim(1, SETTINGS.lease_ms, Rate(0))
        engine = Engine(store, chain, [FixedVenue()], SETTINGS, SystemClock())
        worker = Worker(store, engine, SETTINGS, clock, Metrics(), concurrency=10, per_minute=0)
        async with Supervisor(clock) as tasks:
            tasks.start("test", "worker", worker.run)
            await settled(store)
            waited_s = 0.0
            while waited_s < LEASE_S - 0.1:
                await clock.advance(0.1)
                await settled(store)
                waited_s += 0.1
            order = await store.get("o")
            assert order is not None
            assert order.epoch == dead.order.epoch, "its lease is respected to the end"
            while order.status is not OrderStatus.CONFIRMED and waited_s < LEASE_S + 1:
                await clock.advance(0.1)
                await settled(store)
                waited_s += 0.1
                order = await store.get("o")
                assert order is not None
            assert order.status is OrderStatus.CONFIRMED, f"{order.status} after {waited_s:.1f} s"
            assert order.epoch == dead.order.epoch + 1
            tasks.cancel()
    finally:
        await store.close()


async def test_a_worker_that_lives_keeps_its_leases(tmp_path: Path) -> None:
    clock = ManualClock()
    store, chain = await SqliteStore.at(str(tmp_path / "orders.db"), clock), ScriptedChain()
    try:
        await store.accept(new_order("o", clock.wall_ns() // 1_000_000), [], "")
        engine = Engine(store, chain, [FixedVenue()], SETTINGS, SystemClock())
        workers = [Worker(store, engine, SETTINGS, clock, Metrics(), concurrency=10, per_minute=0) for _ in range(2)]
        async with Supervisor(clock) as tasks:
            for worker in workers:
                tasks.start("test", "worker", worker.run)
            await settled(store)
            for _ in range(round(3 * LEASE_S)):
                await clock.advance(1)
                await settled(store)
            order = await store.get("o")
            assert order is not None
            assert (order.status, order.epoch) == (OrderStatus.SUBMITTED, 1)
            tasks.cancel()
    finally:
        await store.close()


async def test_an_order_is_begun_with_its_acceptance_while_nothing_waits(tmp_path: Path) -> None:
    clock = ManualClock()
    store, chain = await SqliteStore.at(str(tmp_path / "orders.db"), clock), ScriptedChain()
    chain.on_send = chain.land
    engine = Engine(store, chain, [FixedVenue()], SETTINGS, SystemClock())
    worker = Worker(store, engine, SETTINGS, clock, Metrics(), concurrency=1, per_minute=0)
    intake = Intake(store, SETTINGS, clock, worker)
    try:
        with worker.promise() as lease_ms:
            assert lease_ms == 0, "it does not run yet"
        async with Supervisor(clock) as tasks:
            tasks.start("test", "worker", worker.run)
            await settled(store)
            accepted = await intake.execute(BODY)
            assert (accepted.claimed, accepted.order.epoch) == (True, 1)
            await settled(store)
            done = await store.get(accepted.order.id)
            assert done is not None
            assert (done.status, done.epoch) == (OrderStatus.CONFIRMED, 1)
            with worker.promise() as lease_ms:
                assert lease_ms == SETTINGS.lease_ms
                with worker.promise() as second_ms:
                    assert second_ms == 0, "there is room for one"
            tasks.cancel()
    finally:
        await store.close()


async def test_what_was_begun_as_the_worker_stopped_is_given_back(tmp_path: Path) -> None:
    clock = ManualClock()
    store = await SqliteStore.at(str(tmp_path / "orders.db"), clock)
    engine = Engine(store, ScriptedChain(), [FixedVenue()], SETTINGS, SystemClock())
    worker = Worker(store, engine, SETTINGS, clock, Metrics(), concurrency=1, per_minute=0)
    try:
        accepted = await store.accept(new_order("o", clock.wall_ns() // 1_000_000), [], "", lease_ms=SETTINGS.lease_ms)
        worker.begin(accepted.order)
        await worker.release()
        [taken] = await store.claim(1, SETTINGS.lease_ms, Rate(0))
        assert taken.order.epoch == 2
    finally:
        await store.close()


async def test_an_order_on_which_the_engine_breaks_is_left_until_its_lease_ends(tmp_path: Path) -> None:
    """Not tried again with what was known of it at first, nor kept from others by a lease that is renewed."""
    clock, epochs = ManualClock(), list[int]()

    class Broken(Engine):
        async def execute(self, held: Held) -> None:
            epochs.append(held.order.epoch)
            raise ValueError("a defect")

    store = await SqliteStore.at(str(tmp_path / "orders.db"), clock)
    engine = Broken(store, ScriptedChain(), [FixedVenue()], SETTINGS, clock)
    worker = Worker(store, engine, SETTINGS, clock, Metrics(), concurrency=1, per_minute=0)
    try:
        await store.accept(new_order("o", 1), [], "")
        async with Supervisor(clock) as tasks:
            tasks.start("test", "worker", worker.run)
            await settled(store)
            for _ in range(round(LEASE_S) + 5):
                await clock.advance(1)
                await settled(store)
            tasks.cancel()
        assert epochs == [1, 2]
    finally:
        await store.close()


async def test_a_worker_stops_without_error_while_the_store_is_away(tmp_path: Path) -> None:
    """It can't give back its leases; they end by themselves."""
    clock = ManualClock()
    store, chain = await SqliteStore.at(str(tmp_path / "orders.db"), clock), ScriptedChain()
    engine = Engine(store, chain, [FixedVenue()], SETTINGS, SystemClock())
    worker = Worker(store, engine, SETTINGS, clock, Metrics(), concurrency=1, per_minute=0)
    await store.accept(new_order("o", 1), [], "")
    async with Supervisor(clock) as tasks:
        tasks.start("test", "worker", worker.run)
        async with asyncio.timeout(30):
            while not chain.sent:
                await settled(store)
        tasks.cancel()
    await store.close()
    await worker.release()


async def test_with_a_shared_rate_every_order_queues(tmp_path: Path) -> None:
    clock = ManualClock()
    store = await SqliteStore.at(str(tmp_path / "orders.db"), clock)
    engine = Engine(store, ScriptedChain(), [FixedVenue()], SETTINGS, SystemClock())
    worker = Worker(store, engine, SETTINGS, clock, Metrics(), concurrency=10, per_minute=100)
    try:
        async with Supervisor(clock) as tasks:
            tasks.start("test", "worker", worker.run)
            await settled(store)
            with worker.promise() as lease_ms:
                assert lease_ms == 0
            tasks.cancel()
    finally:
        await store.close()


class HeldStore(SqliteStore):
    """A store whose claims wait, or fail, as a test says."""

    free: asyncio.Event
    error: Exception | None = None

    async def claim(self, limit: int, lease_ms: int, rate: Rate) -> list[Claimed]:
        await self.free.wait()
        if self.error is not None:
            raise self.error
        return await super().claim(limit, lease_ms, rate)


@pytest.mark.parametrize(
    ("error", "said"), [(TransientError("away"), "away"), (ValueError("a secret"), "a defect, which the log names")]
)
async def test_a_worker_is_not_ready_while_it_stands_or_its_claims_fail(
    tmp_path: Path, error: Exception, said: str
) -> None:
    clock, health = ManualClock(), Health()
    store = await HeldStore.at(str(tmp_path / "orders.db"), clock)
    assert isinstance(store, HeldStore)
    store.free = asyncio.Event()
    store.free.set()
    engine = Engine(store, ScriptedChain(), [FixedVenue()], SETTINGS, clock)
    worker = Worker(store, engine, SETTINGS, clock, Metrics(), concurrency=1, per_minute=0)
    probes = Probes(health, clock)
    probes.add("worker", worker.check)

    async def line(seconds: float = 0.0) -> tuple[bool, str]:
        while seconds > 0:
            await clock.advance(min(seconds, SETTINGS.scan_ms / 1000))
            await settled(store)
            seconds -= SETTINGS.scan_ms / 1000
        await probes.ask_all()
        part = health.components()["worker"]
        return part.ready, part.detail

    try:
        assert await line() == (False, "the worker does not run")
        async with Supervisor(clock) as tasks:
            tasks.start("test", "worker", worker.run)
            await settled(store)
            assert await line() == (True, "")
            store.free.clear()
            assert await line(5.0) == (True, ""), "a claim may take a while"
            ready, detail = await line(10.0)
            assert not ready
            assert detail.startswith("the worker has looked for no order for 1")
            store.free.set()
            assert await line(1.0) == (True, "")
            store.error = error
            assert await line(1.0) == (False, f"no order can be claimed: {said}")
            store.error = None
            assert await line(10.0) == (True, "")
            tasks.cancel()
    finally:
        await store.close()
