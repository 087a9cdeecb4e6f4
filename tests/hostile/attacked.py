"""A source before two nodes that tell of one chain, one honest and one hostile, and an oracle of what happened."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import msgspec

from headrace.model.updates import AnyUpdate, LandingUpdate
from headrace.runtime.channel import Channel
from headrace.runtime.clock import SystemClock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.solana.rpc import Rpc, RpcSettings
from headrace.sources.rpc_pubsub import RpcPubSub
from headrace.testing.ledger import Landed
from headrace.testing.node import PubSubFaults, ScriptedNode
from headrace.testing.node_http import HttpFaults
from headrace.testing.proxy import TcpProxy
from tests.hostile.raw import RawServer
from tests.sources.rpc_pubsub.rig import PROGRAM, SETTINGS, Rig

PATIENCE_S: Final = 120.0
"""For one condition, on a machine that does much besides."""
SLOT_S: Final = 0.002
RPC: Final = RpcSettings(timeout_s=0.3)
QUICK: Final = msgspec.structs.replace(
    SETTINGS,
    connect_timeout_s=0.5,
    ack_timeout_s=0.3,
    stall_s=0.5,
    quiet_feed_s=0.3,
    refill_s=1.5,
    refill_signatures_max=500,
    refill_pages_max=50,
)


WAITS: Final = ("connect_timeout_s", "ack_timeout_s", "stall_s", "quiet_feed_s", "refill_s")
SLOWNESS_MAX: Final = 20.0


def slowness() -> float:
    """Return how many times its processor time a piece of work takes now.

    Waits for a silent node are so many times longer: where a process seldom runs, an honest one would count as silent.
    """
    began_s, used_s = time.perf_counter(), time.process_time()
    while time.process_time() - used_s < 0.02:
        pass
    return min(SLOWNESS_MAX, max(1.0, (time.perf_counter() - began_s) / (time.process_time() - used_s)))


class Attacked(Rig):
    """`hostile` is the node under attack's command; `node` the honest one, by which the chain goes on.

    `emitted` is what happened: (signature, slot) of each transaction since `chain` was first called.
    """

    hostile: ScriptedNode
    raw: RawServer

    def __init__(self, node: ScriptedNode, proxies: list[TcpProxy], source: RpcPubSub, tasks: Supervisor) -> None:
        super().__init__(node, proxies, source, tasks)
        self.numbers = itertools.count(1_000_000)
        self.emitted: list[tuple[str, int]] = []
        self._attacks: list[asyncio.Task[object]] = []

    @property
    def slot(self) -> int:
        return self.node.ledger.head

    @property
    def landed(self) -> list[Landed]:
        """All transactions that there ever were."""
        return [landed for slot in self.node.ledger.landed.values() for landed in slot]

    @property
    def decided(self) -> set[tuple[str, int]]:
        """Return what was found in its block, or not, or given up."""
        return {
            (signature, update.slot)
            for update in self.updates
            if isinstance(update, LandingUpdate)
            for signature in (*update.landed, *update.absent, *update.unknown)
        }

    @property
    def taken_back(self) -> set[tuple[str, int]]:
        """Return what was found to be in no block."""
        return {
            (signature, update.slot)
            for update in self.updates
            if isinstance(update, LandingUpdate)
            for signature in update.absent
        }

    def subscription(self, kind: str) -> int:
        """The hostile node's id of a subscription; 0 where it has none."""
        known = [item for client in self.hostile._clients for item in client.subscriptions.items()]
        return next((number for number, subscribed in known if subscribed.kind == kind), 0)

    async def chain(self, slots: int) -> None:
        """The chain goes on, a transaction in each slot."""
        for _ in range(slots):
            self.node.advance_slot()
            landed = self.node.emit_transaction([PROGRAM])
            self.emitted.append((landed.signature, landed.slot))
            await asyncio.sleep(SLOT_S)

    # What attacks use.

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it until the attack ends."""
        self._attacks.append(self.tasks.start("test", "attack", partial(_awaited, work)))

    def speak_raw(self) -> None:
        """Connections to the hostile node's address reach the raw server from now on."""
        self.proxies[0].upstream = ("127.0.0.1", self.raw.port)
        self.cut()

    def cut(self) -> None:
        self.proxies[0].cut()

    async def end_attack(self) -> None:
        """The hostile node becomes honest, and forgets all connections."""
        for attack in self._attacks:
            attack.cancel()
        await asyncio.gather(*self._attacks, return_exceptions=True)
        self.hostile.faults, self.hostile.http.faults = PubSubFaults(), HttpFaults()
        self.proxies[0].upstream = ("127.0.0.1", self.hostile.ws_port)
        self.cut()

    async def patiently(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds, while the chain goes on."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await self.chain(1)

    def covers(self, number: int) -> bool:
        """Return whether the session with an endpoint surely brings the slot that the chain is at."""
        session = self.connections.get(number)
        feeds = [subscription.feed for subscription in self.source.wanted]
        firsts = [session.progress.first(feed) for feed in feeds] if session is not None else [None]
        return all(first is not None and first <= self.slot for first in firsts)


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()


@asynccontextmanager
async def attacked_source(*, beside: bool, capacity: int = 1000) -> AsyncIterator[Attacked]:
    """The hostile node first; `beside` an honest one, or alone."""
    clock, slow = SystemClock(), slowness()
    async with AsyncExitStack() as stack:
        hostile = await stack.enter_async_context(ScriptedNode())
        honest = await stack.enter_async_context(ScriptedNode(mirrors=[hostile]))
        raw = await stack.enter_async_context(RawServer())
        nodes = [hostile, honest] if beside else [hostile]
        proxies = [await stack.enter_async_context(TcpProxy("127.0.0.1", node.ws_port)) for node in nodes]
        rpc = Rpc([node.http_url for node in nodes], clock=clock, settings=RpcSettings(timeout_s=RPC.timeout_s * slow))
        stack.push_async_callback(rpc.aclose)
        tasks = await stack.enter_async_context(Supervisor(clock))
        stack.callback(tasks.cancel)
        urls = tuple(f"ws://127.0.0.1:{proxy.port}" for proxy in proxies)
        metrics, health = Metrics(), Health()
        waits = {name: getattr(QUICK, name) * slow for name in WAITS}
        settings = msgspec.structs.replace(QUICK, ws_urls=urls, **waits)
        source = RpcPubSub(settings, clock=clock, metrics=metrics, health=health, rpc=rpc)
        made = Attacked(honest, proxies, source, tasks)
        made.metrics, made.health, made.hostile, made.raw = metrics, health, hostile, raw
        outlet: Channel[AnyUpdate] = Channel(capacity)
        tasks.start("test", "collect", partial(made.collect, outlet))
        running = tasks.start("test", "source", partial(made.drive, outlet))
        yield made
        source.stop()
        async with asyncio.timeout(PATIENCE_S):
            await running
