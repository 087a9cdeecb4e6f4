"""The context in which contract suites open the adapters of a register."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from headrace.adapters import Context, Register
from headrace.decoders.registry import Programs
from headrace.runtime.clock import Clock, ManualClock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.solana.rpc import Rpc, RpcSettings

P = TypeVar("P")


@asynccontextmanager
async def lent(clock: Clock | None = None, generation: str = "gen") -> AsyncIterator[Context]:
    """Yield a context on a clock that stands, with a node that nobody can reach."""
    clock = clock or ManualClock()
    rpc = Rpc(["http://127.0.0.1:1"], clock=clock, settings=RpcSettings(), breakers=[])
    try:
        async with Supervisor(clock) as tasks:
            yield Context(
                clock=clock,
                metrics=Metrics(),
                health=Health(clock),
                tasks=tasks,
                rpc=rpc,
                programs=Programs.load,
                resolve=str,
                generation=generation,
            )
            tasks.cancel()
    finally:
        await rpc.aclose()


@asynccontextmanager
async def opened(
    register: Register[P], name: str, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[tuple[P, Context]]:
    """Yield the adapter called `name`, opened with `settings`, as a process opens it; close it at the end."""
    adapter = register.adapter(name)
    async with lent(clock) as context:
        instance: Any = await adapter.open(adapter.Settings(**settings), context)
        try:
            yield instance, context
        finally:
            await instance.close()
