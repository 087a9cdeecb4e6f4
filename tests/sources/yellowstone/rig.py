"""A Yellowstone source before scripted nodes behind proxies, and everything that it delivered."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import msgspec

from headrace.model.updates import AccountUpdate, AnyUpdate, GapUpdate, SlotUpdate, TransactionUpdate
from headrace.runtime.channel import Channel
from headrace.runtime.clock import SystemClock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.solana.rpc import Rpc
from headrace.sources import NOTHING_COVERED, Ending
from headrace.sources.connection import Connection
from headrace.sources.yellowstone import YellowstoneSettings
from headrace.sources.yellowstone.source import RECEIVERS, YellowstoneSource
from headrace.testing.ledger import Ledger, made_up_key
from headrace.testing.proxy import TcpProxy
from headrace.testing.yellowstone import ScriptedYellowstone
from tests.contracts.upstreams.chain import QUICK

PROGRAM, OTHER = made_up_key("program"), made_up_key("other program")
LOGS, ACCOUNTS = f"logs:{PROGRAM}", f"program:{PROGRAM}"
PATIENCE_S = 30.0
EVERY_RECEIVER = sorted(RECEIVERS)


class Rig:
    """`updates` is all that the source delivered so far."""

    def __init__(
        self,
        nodes: list[ScriptedYellowstone],
        proxies: list[TcpProxy],
        source: YellowstoneSource,
        metrics: Metrics,
        health: Health,
    ) -> None:
        self.nodes, self.proxies, self.source = nodes, proxies, source
        self.node, self.proxy = nodes[0], proxies[0]
        self.updates: list[AnyUpdate] = []
        self.ending: Ending | None = None
        self.metrics, self.health = metrics, health
        self.reading = asyncio.Event()
        """Cleared, nobody takes what the source delivers."""
        self.reading.set()
        self._arrived = asyncio.Event()

    @property
    def connections(self) -> dict[int, Connection]:
        return self.source.stream.connections if self.source.stream is not None else {}

    def signatures(self, feed: str = LOGS) -> list[str]:
        return [each.signature for each in self.updates if isinstance(each, TransactionUpdate) and each.feed == feed]

    def accounts(self, feed: str = ACCOUNTS) -> list[bytes]:
        return [each.data for each in self.updates if isinstance(each, AccountUpdate) and each.feed == feed]

    def statuses(self, slot: int) -> list[str]:
        return [each.status for each in self.updates if isinstance(each, SlotUpdate) and each.slot == slot]

    def gaps(self, feed: str) -> list[tuple[int, int, str]]:
        found = [each for each in self.updates if isinstance(each, GapUpdate) and each.feed == feed]
        return [(each.from_slot, each.to_slot, each.state) for each in found]

    def count(self, name: str, **labels: str) -> float:
        """A metric's value, 0 if it was never touched."""
        return self.metrics.registry.get_sample_value(f"headrace_{name}", labels) or 0.0

    def advance(self) -> int:
        """Let the chain of all nodes go on by a slot."""
        return self.node.advance_slot()

    async def until(self, condition: Callable[[], bool], *, flowing: bool = False) -> None:
        """Return when `condition` holds; it is looked at as updates arrive, and with `flowing` the chain goes on."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._arrived.clear()
                try:
                    async with asyncio.timeout(0.01):
                        await self._arrived.wait()
                except TimeoutError:  # conditions may also be about the node or the health board
                    if flowing:
                        self.advance()

    async def covered(self) -> None:
        """Return when every session is subscribed and covers the slot that the node is at."""

        def begun() -> bool:
            feeds = [known.feed for known in self.source.wanted if known.kind != "signature"]
            firsts = [each.progress.first(feed) for each in self.connections.values() for feed in feeds]
            return len(self.connections) == len(self.proxies) and all(
                first is not None and first <= self.node.ledger.head for first in firsts
            )

        await self.until(begun, flowing=True)

    async def lose(self) -> None:
        """Cut the connections and let none be made; return when the nodes know."""
        for proxy in self.proxies:
            proxy.refuse = True
            proxy.cut()
        await self.until(lambda: not any(node.subscribers for node in self.nodes))
        await self.until(lambda: not any(each.connected for each in self.connections.values()))

    def back(self) -> None:
        """Let connections be made again."""
        for proxy in self.proxies:
            proxy.refuse = False

    async def collect(self, outlet: Channel[AnyUpdate]) -> None:
        while True:
            await self.reading.wait()
            self.updates += await outlet.get_batch()
            self._arrived.set()

    async def drive(self, outlet: Channel[AnyUpdate], covered: Mapping[str, int]) -> None:
        self.ending = await self.source.run(outlet, covered)
        self._arrived.set()


@asynccontextmanager
async def rig(
    *subscriptions: str,
    endpoints: int = 1,
    start: bool = True,
    http: bool = True,
    capacity: int = 1000,
    covered: Mapping[str, int] = NOTHING_COVERED,
    node_options: Mapping[str, Any] = {},
    nodes: list[ScriptedYellowstone] | None = None,
    host: str = "127.0.0.1",
    **changes: Any,
) -> AsyncIterator[Rig]:
    """A source before `endpoints` nodes of one ledger, each behind a proxy; `changes` are settings."""
    clock, ledger = SystemClock(), Ledger()
    async with AsyncExitStack() as stack:
        if nodes is None:
            others = [
                await stack.enter_async_context(ScriptedYellowstone(ledger=ledger, **node_options))
                for _ in range(endpoints - 1)
            ]
            first = ScriptedYellowstone(ledger=ledger, mirrors=others, **node_options)
            nodes = [await stack.enter_async_context(first), *others]
        proxies = [await stack.enter_async_context(TcpProxy("127.0.0.1", node.port)) for node in nodes]
        rpc = Rpc([nodes[0].http_url], clock=clock) if http else None
        if rpc is not None:
            stack.push_async_callback(rpc.aclose)
        tasks = await stack.enter_async_context(Supervisor(clock))
        stack.callback(tasks.cancel)
        scheme = nodes[0].url.partition("://")[0]
        settings = msgspec.structs.replace(
            YellowstoneSettings(),
            urls=tuple(f"{scheme}://{host}:{proxy.port}" for proxy in proxies),
            subscriptions=subscriptions or (LOGS, ACCOUNTS),
            tick_s=0.01,
            **{**QUICK, **changes},
        )
        metrics, health = Metrics(), Health()
        source = YellowstoneSource(settings, clock=clock, metrics=metrics, health=health, rpc=rpc)
        rigged = Rig(nodes, proxies, source, metrics, health)
        outlet: Channel[AnyUpdate] = Channel(capacity)
        tasks.start("test", "collect", partial(rigged.collect, outlet))
        tasks.start("test", "source", partial(rigged.drive, outlet, covered))
        if start:
            await rigged.covered()
        yield rigged
