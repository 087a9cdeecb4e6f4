"""A source before scripted nodes behind proxies, and everything that it delivered."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import msgspec

from headrace.model.updates import AccountUpdate, AnyUpdate, GapUpdate, LogsUpdate, TransactionUpdate
from headrace.runtime.channel import Channel
from headrace.runtime.clock import SystemClock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.solana.rpc import Rpc
from headrace.sources import Ending
from headrace.sources.connection import Connection
from headrace.sources.merge import MergedStream
from headrace.sources.rpc_pubsub import RpcPubSub, RpcPubSubSettings
from headrace.testing.ledger import made_up_key
from headrace.testing.node import ScriptedNode
from headrace.testing.node_http import HttpRpc
from headrace.testing.proxy import TcpProxy

PROGRAM = made_up_key("program")
OTHER = made_up_key("other program")
FEED = f"logs:{PROGRAM}"
PATIENCE_S = 20.0

SETTINGS = RpcPubSubSettings(
    subscriptions=(FEED,),
    connect_timeout_s=5.0,
    tick_s=0.01,
    stall_s=30.0,
    check_s=0.05,
    confirm_s=0.02,
    backoff_initial_s=0.002,
    backoff_max_s=0.02,
    refused_retry_s=0.02,
    gap_margin_slots=2,
    refill_settle_slots=0,
    refill_retry_s=0.005,
    refill_page_s=0.0,
)


class Rig:
    """`updates` is all that the source delivered so far."""

    def __init__(self, node: ScriptedNode, proxies: list[TcpProxy], source: RpcPubSub, tasks: Supervisor) -> None:
        self.node, self.proxies, self.source = node, proxies, source
        self.proxy = proxies[0]
        self.updates: list[AnyUpdate] = []
        self.ending: Ending | None = None
        self.metrics, self.health = Metrics(), Health()
        self.tasks = tasks
        self.http: list[HttpRpc] = []
        self.reading = asyncio.Event()
        """Cleared, nobody takes what the source delivers."""
        self.reading.set()
        self._arrived = asyncio.Event()

    @property
    def stream(self) -> MergedStream:
        assert self.source.stream is not None
        return self.source.stream

    @property
    def connections(self) -> dict[int, Connection]:
        """The connections that there are, by the number of their endpoint."""
        return self.source.stream.connections if self.source.stream is not None else {}

    @property
    def gaps(self) -> list[GapUpdate]:
        return [update for update in self.updates if isinstance(update, GapUpdate)]

    def gaps_of(self, feed: str) -> list[GapUpdate]:
        return [gap for gap in self.gaps if gap.feed == feed]

    @property
    def delivered(self) -> set[tuple[str, int]]:
        """(signature, slot) of everything that came on any logs feed, live or refilled."""
        known = (LogsUpdate, TransactionUpdate)
        return {(update.signature, update.slot) for update in self.updates if isinstance(update, known)}

    def signatures(self, feed: str = FEED) -> list[str]:
        known = (LogsUpdate, TransactionUpdate)
        return [update.signature for update in self.updates if isinstance(update, known) and update.feed == feed]

    def count(self, name: str, **labels: str) -> float:
        """A metric's value, 0 if it was never touched."""
        return self.metrics.registry.get_sample_value(f"headrace_{name}", labels) or 0.0

    async def until(self, condition: Callable[[], bool], *, flowing: bool = False) -> None:
        """Return when `condition` holds; it is looked at as updates arrive, and with `flowing` the chain goes on."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._arrived.clear()
                if flowing:
                    self.node.advance_slot()
                try:
                    async with asyncio.timeout(0.01):
                        await self._arrived.wait()
                except TimeoutError:
                    pass  # conditions may also be about the node or the health board

    async def covered(self) -> None:
        """Return when every session is subscribed and covers the slot that the node is at."""

        def begun() -> bool:
            wanted = [known.feed for known in self.source.wanted if known.kind != "signature"]
            connections = self.connections
            firsts = [connection.progress.first(feed) for connection in connections.values() for feed in wanted]
            return len(connections) == len(self.proxies) and all(
                first is not None and first <= self.node.ledger.head for first in firsts
            )

        await self.until(begun, flowing=True)

    async def overlap(self) -> None:
        """Return when each session surely brought what the one that began last began with."""
        goal = self.node.ledger.head + SETTINGS.gap_margin_slots + 1
        connections = self.connections.values()
        await self.until(lambda: all(each.progress.head >= goal for each in connections), flowing=True)

    async def lose(self, number: int) -> None:
        """Cut the connection of one endpoint; returns when the source has noticed."""
        connection = self.connections[number]
        self.proxies[number].cut()
        await self.until(lambda: self.connections.get(number) is not connection)

    async def still_flows(self) -> None:
        """Return when a new transaction has come."""
        landed = self.node.emit_transaction([PROGRAM])
        await self.until(lambda: landed.signature in self.signatures(), flowing=True)

    async def still_flows_whole(self) -> None:
        """Return when a new transaction has come whole."""
        landed = self.node.emit_transaction([PROGRAM])
        await self.until(lambda: landed.signature in self.signatures(f"transactions:{PROGRAM}"), flowing=True)

    async def lose_all(self) -> None:
        """Cut every connection; returns when the source has noticed."""
        connections = dict(self.connections)
        for proxy in self.proxies:
            proxy.cut()
        await self.until(lambda: all(self.connections.get(n) is not old for n, old in connections.items()))

    async def account_flows_too(self) -> None:
        """Return when the account of OTHER is subscribed to and a new state has come, all on the first connection."""
        await self.covered()
        self.node.emit_account(OTHER, PROGRAM, b"x")
        await self.until(lambda: any(isinstance(update, AccountUpdate) for update in self.updates))
        assert self.proxy.connections == 1

    async def settled(self) -> None:
        """Return when the source is connected and every gap that was opened is closed."""
        await self.covered()
        await self.until(lambda: self.open_gaps == 0, flowing=True)

    @property
    def open_gaps(self) -> int:
        last = {gap.gap_id: gap.state for gap in self.gaps}
        return sum(state == "open" for state in last.values()) + (
            self.source.stream.gaps.open if self.source.stream else 0
        )

    async def collect(self, outlet: Channel[AnyUpdate]) -> None:
        while True:
            await self.reading.wait()
            self.updates += await outlet.get_batch()
            self._arrived.set()

    async def drive(self, outlet: Channel[AnyUpdate]) -> None:
        self.ending = await self.source.run(outlet)
        self._arrived.set()


@asynccontextmanager
async def rig(
    endpoints: int = 1,
    *,
    http: bool = True,
    http_endpoints: int = 1,
    other_http: str = "",
    start: bool = True,
    capacity: int = 1000,
    whole_transactions: bool = False,
    **changes: Any,
) -> AsyncIterator[Rig]:
    """One node, `endpoints` proxies before it, a source with an outlet of `capacity`; `changes` are settings.
    `http_endpoints` read the node's ledger; `other_http` is asked after them."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(ScriptedNode(whole_transactions=whole_transactions))
        proxies = [await stack.enter_async_context(TcpProxy("127.0.0.1", node.ws_port)) for _ in range(endpoints)]
        others = [HttpRpc(node.ledger) for _ in range(http_endpoints - 1)]
        for other in others:
            await other.start()
            stack.push_async_callback(other.stop)
        urls = [node.http_url, *(other.url for other in others), *([other_http] if other_http else [])]
        rpc = Rpc(urls, clock=clock) if http else None
        if rpc is not None:
            stack.push_async_callback(rpc.aclose)
        tasks = await stack.enter_async_context(Supervisor(clock))
        stack.callback(tasks.cancel)
        ws_urls = tuple(f"ws://127.0.0.1:{proxy.port}" for proxy in proxies)
        settings = msgspec.structs.replace(SETTINGS, ws_urls=ws_urls, **changes)
        metrics, health = Metrics(), Health()
        source = RpcPubSub(settings, clock=clock, metrics=metrics, health=health, rpc=rpc, resolve=_resolve)
        rigged = Rig(node, proxies, source, tasks)
        rigged.metrics, rigged.health = metrics, health
        rigged.http = [node.http, *others]
        outlet: Channel[AnyUpdate] = Channel(capacity)
        tasks.start("test", "collect", partial(rigged.collect, outlet))
        tasks.start("test", "source", partial(rigged.drive, outlet))
        if start:
            await rigged.covered()
        yield rigged


def _resolve(name: str) -> str:
    return {"pump": PROGRAM}[name]


def missing(rigged: Rig, emitted: Sequence[tuple[str, int]], feed: str = FEED) -> set[tuple[str, int]]:
    """What was neither delivered nor lies in a gap that ended as unrecoverable."""
    lost = [gap for gap in rigged.gaps_of(feed) if gap.state == "unrecoverable"]
    return {
        (signature, slot)
        for signature, slot in set(emitted) - rigged.delivered
        if not any(gap.from_slot <= slot <= gap.to_slot for gap in lost)
    }
