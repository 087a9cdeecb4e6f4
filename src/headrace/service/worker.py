"""One worker process: the orders, without stream and gateway."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache, partial

from headrace.adapters import Context
from headrace.config import Config
from headrace.orders.engine import Engine
from headrace.runtime.clock import Clock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.service.orders import open_orders
from headrace.service.settings import REGISTERS, Registers
from headrace.service.updates import load_programs, new_resolver, open_rpc


@asynccontextmanager
async def lend(
    config: Config, clock: Clock, metrics: Metrics, registers: Registers = REGISTERS
) -> AsyncIterator[Context]:
    """Yield the context that a process without a stream gives to its adapters.

    They must be closed before the block ends.
    """
    async with AsyncExitStack() as stack:
        rpc = open_rpc(config, clock, registers)
        stack.push_async_callback(rpc.aclose)
        tasks = await stack.enter_async_context(Supervisor(clock))
        stack.callback(tasks.cancel)
        programs = cache(partial(load_programs, config))
        yield Context(
            clock=clock,
            metrics=metrics,
            health=Health(clock),
            tasks=tasks,
            rpc=rpc,
            programs=programs,
            resolve=new_resolver(config, programs),
            generation=secrets.token_hex(4),
        )


async def run_worker(
    config: Config,
    clock: Clock,
    metrics: Metrics,
    stop: asyncio.Event,
    *,
    registers: Registers = REGISTERS,
    engine: type[Engine] = Engine,
) -> None:
    """Execute orders, and nothing else, until `stop`."""
    registers.check(config)
    async with (
        lend(config, clock, metrics, registers=registers) as context,
        open_orders(config, context, work=True, registers=registers, engine=engine) as orders,
        Supervisor(clock) as tasks,
    ):
        orders.start(tasks, metrics)
        await stop.wait()
        tasks.cancel()
