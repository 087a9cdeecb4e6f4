"""A worker: claims orders, extends their leases, and drops each order that is finished or lost."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

import structlog

from headrace.model.errors import InvariantError, TransientError
from headrace.model.orders import Claimed, EventKind, LeaseLost, Order, OrderEvent, OrderStatus
from headrace.orders.engine import Ahead, Engine, Held
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store import Rate, Store
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor

AT_EASE_MAX: Final = 16
"""Maximum number of held orders at which a new order is claimed when accepted.

Above it, claiming several at once costs less CPU.
"""

TURNS_AHEAD: Final = 8
"""Maximum number of turns of the event loop that an acceptance waits for quotes and a signed transaction.

Over a network they take longer.
"""

STUCK_S: Final = 8.0
"""Seconds, in addition to four scans, without a claim after which the worker is reported as stuck."""

_HINTS: Final = frozenset({EventKind.ACCEPTED, EventKind.TRIGGERED})

_log = structlog.get_logger("execution")


class Worker:
    """Run at most `concurrency` orders at once, urgent orders first. Any number of workers may share a store.

    The store's events wake the worker, but are only hints. If an event is missed, the next scan finds the order. The
    order of a worker that died is found once its lease has ended.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        settings: ExecutionSettings,
        clock: Clock,
        metrics: Metrics,
        *,
        concurrency: int,
        per_minute: int,
    ) -> None:
        self._store, self._engine, self._settings, self._clock = store, engine, settings, clock
        self.concurrency, self.rate = concurrency, Rate(per_minute)
        self._held: dict[str, Held] = {}
        self._wake = asyncio.Event()
        self._more = True
        self._promised = 0
        self._tasks: Supervisor | None = None
        self._turned_s = clock.monotonic()
        self._fault: Exception | None = None
        """The error of the last claim; None if it succeeded."""
        self._claimed = metrics.counter("orders_claimed", "Orders claimed by this worker", ("from_status",))
        self._lost = metrics.counter("orders_lease_lost", "Orders that another worker took over from this one")
        self._running = metrics.gauge("orders_running", "Orders that this worker works on")

    async def run(self) -> None:
        """Work until cancelled. Afterwards call `release`, so that other workers may continue the orders at once."""
        detach = self._store.attach(self._hear)
        try:
            async with Supervisor(self._clock) as tasks:
                self._tasks = tasks
                again = partial(Backoff, initial_s=0.1, max_s=5.0)
                tasks.start("worker", "scan", self._scan)
                tasks.start("worker", "leases", self._keep_leases, restart=again())
                tasks.start("worker", "claims", self._claim, restart=again())
        finally:
            self._tasks = None
            detach()

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError if the worker makes no claims, or if its last claim failed."""
        if self._tasks is None:
            raise TransientError("the worker does not run")
        if self._fault is not None:
            reason = self._fault if isinstance(self._fault, TransientError) else "a defect, which the log names"
            raise TransientError(f"no order can be claimed: {reason}")
        stood_s = self._clock.monotonic() - self._turned_s
        if stood_s > STUCK_S + 4 * self._settings.scan_ms / 1000:
            raise TransientError(f"the worker has looked for no order for {stood_s:.0f} s")

    async def release(self) -> None:
        """End the leases of unfinished orders. Must be called after `run` has ended and before the store closes."""
        held, self._held = [held.order for held in self._held.values()], {}
        if held:
            try:
                await self._store.release(held)
            except TransientError as error:
                _log.warning("leases_not_given_back", error=str(error), meaning="others wait until they end")

    @contextmanager
    def promise(self) -> Iterator[int]:
        """Reserve a place for an order that is about to be accepted.

        Yields the duration in ms of the lease with which the order is claimed when accepted, or 0 if the order must
        queue. An order must queue if there is no room, if earlier orders wait, if all workers share a rate, or if this
        worker holds so many orders that claiming several at once costs less. If the order was claimed, call `begin`
        within the block.
        """
        busy = self._free() <= 0 or len(self._held) + self._promised >= AT_EASE_MAX
        if busy or self._tasks is None or self._more or self.rate.per_minute > 0:
            yield 0
            return
        self._promised += 1
        try:
            yield self._settings.lease_ms
        finally:
            self._promised -= 1
            self._wake_for_more()

    async def prepare(self, order: Order) -> Ahead | None:
        """Begin to prepare an order that is about to be accepted. Returns None if the worker is being stopped.

        Returns once the preparation has ended, or after `TURNS_AHEAD` turns of the event loop. A caller that does not
        `begin` the order must cancel the preparation.
        """
        if self._tasks is None:
            return None
        ahead = Ahead()
        prepare = partial(self._engine.prepare, order, ahead)
        try:
            ahead.cancel = self._tasks.start("order", f"{order.id} ahead", prepare, on_failure=ahead.over.set).cancel
        except RuntimeError:  # the worker is being stopped
            return None
        for _ in range(TURNS_AHEAD):
            if ahead.over.is_set():
                break
            await asyncio.sleep(0)
        return ahead

    def begin(self, order: Order, ahead: Ahead | None = None) -> None:
        """Work on an order that was claimed for this worker. The changes prepared by `ahead` may already be stored."""
        if order.status is OrderStatus.SUBMITTED:
            assert ahead is not None and ahead.prepared is not None
            self._start(Claimed(order=order, attempt=ahead.prepared.attempt), unsent=True)
        else:
            self._start(Claimed(order=order, attempt=None), ahead=ahead)

    async def _claim(self) -> None:
        while True:
            self._turned_s = self._clock.monotonic()
            self._wake.clear()
            free = self._free()
            try:
                claimed = await self._store.claim(free, self._settings.lease_ms, self.rate) if free > 0 else []
            except Exception as error:
                self._fault = error
                raise
            self._fault = None
            self._more = len(claimed) >= free
            for each in claimed:
                self._start(each)
            if not self._more or self._free() <= 0:
                await self._wake.wait()

    def _free(self) -> int:
        return self.concurrency - len(self._held) - self._promised

    def _start(self, claimed: Claimed, *, unsent: bool = False, ahead: Ahead | None = None) -> None:
        order = claimed.order
        held = Held(order, claimed.attempt, cancel_wanted=order.cancel_requested, unsent=unsent, ahead=ahead)
        self._held[order.id] = held
        self._claimed.labels(order.status.value).inc()
        self._running.set(len(self._held))
        if self._tasks is not None:
            with suppress(RuntimeError):  # the worker is stopping: `release` ends the lease
                drop = partial(self._drop, order.id, held)
                self._tasks.start("order", order.id, partial(self._work, held), on_failure=drop)

    async def _work(self, held: Held) -> None:
        """Execute one order until its end or pause.

        After a failure any worker may try again once the lease has ended.
        """
        order_id = held.order.id
        try:
            await self._engine.execute(held)
        except LeaseLost:
            self._lost.inc()
            _log.info("lease_lost", order=order_id)
        except TransientError as error:  # the store is unavailable
            _log.warning("order_left", order=order_id, error=str(error))
        except InvariantError as error:  # a person must look; the order is tried again after each lease
            _log.error("order_impossible", order=order_id, error=str(error), exc_info=error)
        self._drop(order_id, held)

    def _drop(self, order_id: str, held: Held) -> None:
        if self._held.get(order_id) is held:
            del self._held[order_id]
            self._running.set(len(self._held))
            self._wake_for_more()

    def _wake_for_more(self) -> None:
        """Claim again, now that there is room, if the last claim filled all the room."""
        if self._more:
            self._wake.set()

    async def _keep_leases(self) -> None:
        while True:
            await self._clock.sleep(self._settings.lease_ms / 3000)
            kept = list(self._held.values())
            if not kept:
                continue
            renewal = await self._store.renew([held.order for held in kept], self._settings.lease_ms)
            for held in kept:
                held.lost = held.order.id not in renewal.held
            for order_id in renewal.cancel_requested:
                self._want_cancelled(order_id)

    async def _scan(self) -> None:
        while True:
            await self._clock.sleep(self._settings.scan_ms / 1000)
            self._wake.set()

    def _hear(self, events: Sequence[OrderEvent]) -> None:
        begun = {event.order_id for event in events if event.kind is EventKind.CLAIMED}
        for event in events:
            if event.kind in _HINTS and event.order_id not in begun:
                self._wake.set()
            elif event.kind is EventKind.CANCEL_REQUESTED:
                self._want_cancelled(event.order_id)

    def _want_cancelled(self, order_id: str) -> None:
        held = self._held.get(order_id)
        if held is not None:
            held.cancel_wanted = True
