"""The context in which contract suites open the adapters of a register."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Generic, TypeVar

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
    async with Opener(register, name, clock) as opener:
        adapter = await opener.open(**settings)
        yield adapter, opener.context


class Opener(Generic[P]):
    """Opens the adapter called `name` as often as it is asked to, each as another process; closes all at the end."""

    def __init__(self, register: Register[P], name: str, clock: Clock | None = None) -> None:
        self._adapter, self._clock = register.adapter(name), clock
        self._stack = AsyncExitStack()
        self.context: Context

    async def __aenter__(self) -> "Opener[P]":
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def open(self, generation: str = "gen", **settings: Any) -> P:
        self.context = await self._stack.enter_async_context(lent(self._clock, generation))
        adapter: Any = await self._adapter.open(self._adapter.Settings(**settings), self.context)
        self._stack.push_async_callback(adapter.close)
        opened: P = adapter
        return opened
