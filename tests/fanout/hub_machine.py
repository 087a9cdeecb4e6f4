"""A hub on a bus that hesitates, and clients that check what they get: what state machines of delivery share."""

import asyncio
import json
from abc import abstractmethod
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Generic, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from headrace.bus import BusSettings, ChangeSink, History, Lane, Sink, Subscription, Writer
from headrace.cache import Snapshots
from headrace.fanout.client import Client
from headrace.fanout.hub import Hub
from headrace.gateway.settings import GatewaySettings
from headrace.model.events import Message, Position
from headrace.protocol.codes import CloseCode
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from tests.local_bus import LocalBus

T = TypeVar("T")


class HesitatingBus:
    """A memory bus whose reads wait until they are released, with the answer of before or of after the wait."""

    shared = False

    def __init__(self, bus: LocalBus) -> None:
        self.bus = bus
        self.mode = "at once"
        self.waiting: list[asyncio.Future[None]] = []
        self.publish, self.renew, self.attach = bus.publish, bus.renew, bus.attach
        self.close, self.topics = bus.close, bus.topics

    async def claim(self, lane: Lane, token: int | None = None) -> Writer:
        return await self.bus.claim(lane, token)

    def subscribe(
        self, sink: Sink, *, kinds: Collection[str] | None = (), changed: ChangeSink | None = None
    ) -> Subscription:
        return self.bus.subscribe(sink, kinds=kinds, changed=changed)

    async def history(self, topic: str, since: Position | None, limit: int, *, reverse: bool = False) -> History:
        return await self._hesitate(lambda: self.bus.history(topic, since, min(limit, 7), reverse=reverse))

    async def top(self, topic: str) -> Position:
        return await self._hesitate(lambda: self.bus.top(topic))

    async def check(self, *, thorough: bool) -> None:
        await self.bus.check(thorough=thorough)

    def let_go(self, which: int) -> None:
        released = self.waiting.pop(which)
        if not released.done():  # else its reader was cancelled
            released.set_result(None)

    async def _hesitate(self, read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        before = await read()
        if self.mode == "at once":
            return before
        mode, released = self.mode, asyncio.get_running_loop().create_future()
        self.waiting.append(released)
        await released
        return before if mode == "old answer" else await read()


class Wire:
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.buffered = 0

    def write(self, data: bytes) -> None:
        self.data += data

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def frames(self) -> list[Any]:
        """All whole frames so far, as objects; they are taken out."""
        found: list[Any] = []
        while self.data:
            size, head = self.data[1], 2
            if size == 126:
                size, head = int.from_bytes(self.data[2:4], "big"), 4
            elif size == 127:
                size, head = int.from_bytes(self.data[2:10], "big"), 10
            found += [json.loads(line) for line in bytes(self.data[head : head + size]).split(b"\n")]
            del self.data[: head + size]
        return found


class WiredClient(Client):
    """A client on a wire, in the hub from the start; `check` looks at what came on it since the last time."""

    def __init__(self, hub: Hub, batch: bool) -> None:
        self.pipe = Wire()
        super().__init__(self.pipe, batch=batch)
        self.hub = hub
        self.closed_with: CloseCode | None = None
        hub.add(self)

    def cut_off(self, code: CloseCode) -> None:
        self.closed_with = code
        self.hub.remove(self)

    @abstractmethod
    def check(self) -> None: ...


L = TypeVar("L", bound=WiredClient)


class HubMachine(RuleBasedStateMachine, Generic[L]):
    """A hub on a loop of its own, from `start` to the end of the machine. Its rules are what may happen to any hub.

    At the end everything is let through: each listener that was not cut off passes `check_end`, and nothing is left.
    """

    def start(self, history_size: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.listeners: list[L] = []
        started = self.loop.create_future()
        self.host = self.loop.create_task(self._live(started, history_size))
        self.loop.run_until_complete(started)

    async def _live(self, started: "asyncio.Future[None]", history_size: int) -> None:
        self.clock, metrics = ManualClock(), Metrics()
        async with Supervisor(self.clock) as supervisor:
            self.bus = HesitatingBus(LocalBus(BusSettings(history_size=history_size), self.clock, "g"))
            limits = GatewaySettings(recover_max=20)
            cache = await self.open_cache(metrics, supervisor)
            self.hub = Hub(self.bus, self.clock, lambda: limits, metrics, supervisor, cache=cache)
            self.bus.attach(self.note)
            await self.note_epoch()
            started.set_result(None)
            await asyncio.Event().wait()

    async def open_cache(self, metrics: Metrics, supervisor: Supervisor) -> Snapshots | None:
        """What snapshots come from, if there are any."""
        return None

    def note(self, messages: Sequence[Message]) -> None:
        """The bus took these."""

    @abstractmethod
    async def note_epoch(self) -> None:
        """A new epoch begins on all topics."""

    @abstractmethod
    def check_end(self, listener: L) -> None:
        """It has everything that it should have."""

    def run(self, work: Coroutine[Any, Any, object]) -> None:
        """Do it, let everything settle that can, and let the listeners look."""

        async def settled() -> None:
            await work
            for _ in range(12):
                await asyncio.sleep(0)

        self.loop.run_until_complete(settled())
        assert not self.host.done()
        for listener in self.listeners:
            listener.check()

    @rule(mode=st.sampled_from(["at once", "old answer", "new answer"]))
    def hesitate(self, mode: str) -> None:
        self.bus.mode = mode

    @precondition(lambda self: self.bus.waiting)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.bus.let_go(data.draw(st.integers(0, len(self.bus.waiting) - 1)))
        self.run(asyncio.sleep(0))

    @rule()
    def tick(self) -> None:
        self.run(self.hub.flush())

    @rule()
    def renew(self) -> None:
        async def work() -> None:
            await self.bus.renew()
            await self.note_epoch()

        self.run(work())

    @precondition(lambda self: self.listeners)
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        listener = data.draw(st.sampled_from(self.listeners))
        self.hub.remove(listener)
        self.listeners.remove(listener)
        self.run(asyncio.sleep(0))

    def fill(self, listener: L, *, full: bool) -> None:
        """Its socket is full, or free again."""
        listener.pipe.buffered = 10**6 if full else 0
        (self.hub.pause if full else self.hub.resume)(listener)

    def let_through(self) -> None:
        """Nobody hesitates, and everything is written."""
        self.bus.mode = "at once"
        for _ in range(40):
            while self.bus.waiting:
                self.bus.let_go(0)
            self.hub.windows.end_all()
            self.run(self.hub.flush())

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            try:
                self._end_well()
            finally:
                self.host.cancel()
                self.loop.run_until_complete(asyncio.wait([self.host]))
                self.loop.close()

    def _end_well(self) -> None:
        for listener in self.listeners:
            if listener.paused and listener.closed_with is None:
                self.fill(listener, full=False)
        self.let_through()
        for listener in self.listeners:
            if listener.closed_with is None:
                self.check_end(listener)
            else:
                assert listener.closed_with in (CloseCode.SLOW, CloseCode.INSUFFICIENT_STATE)
            self.hub.remove(listener)
        assert (self.hub.subscriptions, self.hub.topics(), dict(self.hub.clients)) == (0, {}, {})
        assert not len(self.hub.windows)
