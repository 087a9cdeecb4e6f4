"""One order on a real store and a scripted chain, worker after worker, until it is over."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from headrace.model.errors import TransientError
from headrace.model.orders import TERMINAL, LeaseLost, Order
from headrace.orders.engine import Engine, Held
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store import STORES, Rate, Store
from headrace.runtime.clock import SystemClock
from headrace.testing.orders import FixedVenue, ScriptedChain, new_order
from headrace.venues import Venue
from tests.contracts.contexts import opened
from tests.orders.store.servers import place_for, settings_of

SETTINGS = ExecutionSettings(retry_ms=1, resend_ms=60_000, look_ms=1)
WORKERS_MAX = 50


class Crash(BaseException):
    """The process ends here."""


class OneOrder:
    """`order_id` is accepted; each `work` is one worker that claims it and goes on until it is over, rests or dies."""

    order_id = "order-1"

    def __init__(self, store: Store, chain: ScriptedChain) -> None:
        self.store, self.chain, self.clock = store, chain, SystemClock()
        self.venues: Sequence[Venue] = [FixedVenue()]
        self.engine: type[Engine] = Engine
        self.settings = SETTINGS
        self.held: Held | None = None

    async def accept(self, **more: Any) -> None:
        await self.store.accept(new_order(self.order_id, self.clock.wall_ns() // 1_000_000, **more), [], "")

    async def work(self, store: Any = None, chain: Any = None) -> None:
        """One worker. Its lease ends at once, so the next `work` takes over."""
        claimed = await self.store.claim(1, 0, Rate(0))
        if not claimed:
            return
        self.held = Held(claimed[0].order, claimed[0].attempt, cancel_wanted=claimed[0].order.cancel_requested)
        engine = self.engine(store or self.store, chain or self.chain, self.venues, self.settings, self.clock)
        try:
            await engine.execute(self.held)
        except (Crash, LeaseLost, TransientError):
            pass

    async def end(self) -> Order:
        """Worker after worker until the order is over."""
        for _ in range(WORKERS_MAX):
            await self.work()
            order = await self.order()
            if order.status in TERMINAL:
                return order
            await self.clock.sleep(0.003)
        raise AssertionError(f"never over: {order}")

    async def order(self) -> Order:
        order = await self.store.get(self.order_id)
        assert order is not None
        return order

    async def check(self) -> Order:
        """What must hold of every order that is over: the log is whole, and the chain agrees with the fate."""
        order = await self.order()
        assert order.status in TERMINAL
        assert [e.seq for e in await self.store.events(self.order_id, 0, 1000)] == list(range(1, order.seq + 1))
        executions = self.chain.executions(self.order_id)
        assert executions == (order.status == "CONFIRMED"), f"{order.status}, but executed {executions} times"
        assert order.outcome.fate == ("executed" if executions else "not_executed")
        return order


class Dying:
    """Passes calls on to `inner`, and dies before or after the n-th call that `deaths` counts."""

    def __init__(self, inner: Any, names: Sequence[str], dies: Callable[[], bool], *, after: bool) -> None:
        self._inner, self._names, self._dies, self._after = inner, names, dies, after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in self._names:
            return method
        if name in ("apply_later", "sign", "note"):

            def plain(*args: Any) -> Any:
                dies = self._dies()
                if dies and not self._after:
                    raise Crash
                result = method(*args)
                if dies:
                    raise Crash
                return result

            return plain

        async def awaited(*args: Any) -> Any:
            dies = self._dies()
            if dies and not self._after:
                raise Crash
            result = await method(*args)
            if dies:
                raise Crash
            return result

        return awaited


@asynccontextmanager
async def begin(folder: Path, kind: str = "sqlite", server_url: str = "") -> AsyncIterator[OneOrder]:
    async with (
        place_for(kind, folder, server_url) as place,
        opened(STORES, kind, SystemClock(), **settings_of(place)) as (store, _),
    ):
        yield OneOrder(store, ScriptedChain())
