"""Recovery against a model: whatever is published, awaited, paused and renewed in between, no hole and no repeat."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from headrace.bus import BusSettings, History, Sink
from headrace.bus.memory import MemoryBus
from headrace.gateway.catch_up import catch_up
from headrace.gateway.groups import Client
from headrace.gateway.hub import Hub
from headrace.gateway.limits import Doorkeeper
from headrace.gateway.settings import GatewaySettings
from headrace.model.errors import TransientError
from headrace.model.events import Message, Position, Publication
from headrace.protocol.codes import CloseCode
from headrace.protocol.session import Subscribe
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor

T = TypeVar("T")
TOPICS = ("slots", "token_updates")


class HesitatingBus:
    """A memory bus whose reads wait until they are released, with the answer of before or of after the wait."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.mode = "at once"
        self.waiting: list[asyncio.Future[None]] = []
        self.publish, self.renew, self.close, self.topics = bus.publish, bus.renew, bus.close, bus.topics

    def attach(self, sink: Sink) -> Callable[[], None]:
        return self.bus.attach(sink)

    async def history(self, topic: str, since: Position | None, limit: int, *, reverse: bool = False) -> History:
        return await self._hesitate(lambda: self.bus.history(topic, since, min(limit, 7), reverse=reverse))

    async def top(self, topic: str) -> Position:
        return await self._hesitate(lambda: self.bus.top(topic))

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


class Listener(Client):
    """A client that checks each topic it has: `place[topic]` is the index in the model of what must come next."""

    def __init__(self, hub: Hub, batch: bool, model: "Seams") -> None:
        self.pipe = Wire()
        super().__init__(self.pipe, batch=batch)
        self.hub, self.model = hub, model
        self.asked: dict[str, Position | None] = {}
        self.place: dict[str, int] = {}
        self.last: dict[str, Position] = {}
        self.closed_with: CloseCode | None = None
        hub.add(self, None)

    def cut_off(self, code: CloseCode) -> None:
        self.closed_with = code
        self.hub.remove(self, None)

    def not_subscribed(self, topic: str) -> None:
        self.asked.pop(topic)

    def check(self) -> None:
        for got in self.pipe.frames():
            topic = got.get("topic")
            if got["type"] == "subscribed":
                self._check_ack(topic, got["data"])
            elif got["type"] == "event":
                self._check_event(topic, Position(got["epoch"], int(got["offset"])))
            elif got["type"] == "lag":
                assert int(got["data"]["from_offset"]) == self.last[topic].offset + 1
                first, to = int(got["data"]["from_offset"]), int(got["data"]["to_offset"])
                assert got["data"]["dropped"] == to - first + 1
            else:
                assert got["type"] == "error"

    def _check_ack(self, topic: str, data: Any) -> None:
        since, top = self.asked[topic], Position(data["epoch"], int(data["offset"]))
        assert topic not in self.place, "an ack comes once, before everything else"
        assert data["was_recovering"] == (since is not None)
        if data["recovered"]:
            assert since is not None
            assert data["replayed"] == top.offset - since.offset
            assert since.epoch == top.epoch
            self.place[topic], self.last[topic] = self.model.index(topic, since), since
        else:
            assert data["replayed"] == 0
            self.place[topic], self.last[topic] = self.model.index(topic, top), top

    def _check_event(self, topic: str, at: Position) -> None:
        assert self.model.log[topic][self.place[topic]] == at, "a hole or a repeat"
        self.place[topic] += 1
        self.last[topic] = at


class Seams(RuleBasedStateMachine):
    """Rules are what may happen; `log` is everything that was ever published, in order."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.log: dict[str, list[Position]] = {topic: [] for topic in TOPICS}
        self.begins: dict[tuple[str, str], int] = {}
        self.listeners: list[Listener] = []
        started = self.loop.create_future()
        self.host = self.loop.create_task(self._host(started))
        self.loop.run_until_complete(started)

    async def _host(self, started: "asyncio.Future[None]") -> None:
        clock, metrics = ManualClock(), Metrics()
        async with Supervisor(clock) as supervisor:
            self.bus = HesitatingBus(MemoryBus(BusSettings(history_size=25), clock, "g"))
            keeper = Doorkeeper(GatewaySettings(recover_max=20), clock, metrics)
            self.hub = Hub(self.bus, keeper, metrics, supervisor)
            self.bus.attach(self.hub.sink)
            await self._note_epoch()
            started.set_result(None)
            await asyncio.Event().wait()

    async def _note_epoch(self) -> None:
        epoch = (await self.bus.bus.top("none")).epoch
        for topic in TOPICS:
            self.begins[topic, epoch] = len(self.log[topic])

    def index(self, topic: str, at: Position) -> int:
        return self.begins[topic, at.epoch] + at.offset

    def run(self, work: Coroutine[Any, Any, object]) -> None:
        async def settled() -> None:
            await work
            for _ in range(12):
                await asyncio.sleep(0)

        self.loop.run_until_complete(settled())
        assert not self.host.done()
        for listener in self.listeners:
            listener.check()

    @rule(topic=st.sampled_from(TOPICS), count=st.integers(1, 9), size=st.sampled_from([0, 0, 20_000]))
    def publish(self, topic: str, count: int, size: int) -> None:
        async def work() -> None:
            body = b'"data":{"pad":"%b"}' % (b"x" * size)
            self.log[topic] += await self.bus.publish([Publication(topic, "event", body)] * count)

        self.run(work())

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
            await self._note_epoch()

        self.run(work())

    @rule(batch=st.booleans())
    def connect(self, batch: bool) -> None:
        if len(self.listeners) < 6:
            self.listeners.append(Listener(self.hub, batch, self))

    @precondition(lambda self: self.listeners)
    @rule(data=st.data(), topic=st.sampled_from(TOPICS), back=st.one_of(st.none(), st.integers(0, 30)))
    def subscribe(self, data: st.DataObject, topic: str, back: int | None) -> None:
        listener = data.draw(st.sampled_from(self.listeners))
        if listener.closed_with is not None or topic in listener.asked:
            return
        since = None
        if back is not None and self.log[topic]:
            since = self.log[topic][max(0, len(self.log[topic]) - 1 - back)]
        listener.asked[topic] = since
        self.hub.subscribe(listener, Subscribe(topic, None, since))
        self.run(asyncio.sleep(0))

    @precondition(lambda self: self.listeners)
    @rule(data=st.data(), topic=st.sampled_from(TOPICS))
    def unsubscribe(self, data: st.DataObject, topic: str) -> None:
        listener = data.draw(st.sampled_from(self.listeners))
        self.hub.unsubscribe(listener, topic)
        listener.flush()
        listener.check()
        for known in (listener.asked, listener.place, listener.last):
            known.pop(topic, None)

    @precondition(lambda self: self.listeners)
    @rule(data=st.data(), full=st.booleans())
    def fill_or_free(self, data: st.DataObject, full: bool) -> None:
        listener = data.draw(st.sampled_from(self.listeners))
        if listener.closed_with is None and listener.paused != full:
            listener.pipe.buffered = 10**6 if full else 0
            (self.hub.pause if full else self.hub.resume)(listener)
        self.run(asyncio.sleep(0))

    @precondition(lambda self: self.listeners)
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        listener = data.draw(st.sampled_from(self.listeners))
        self.hub.remove(listener, None)
        self.listeners.remove(listener)
        self.run(asyncio.sleep(0))

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            try:
                self._end_well()
            finally:
                self.host.cancel()
                self.loop.run_until_complete(asyncio.wait([self.host]))
                self.loop.close()

    def _end_well(self) -> None:
        """Let everything through: then every listener that was not cut off has everything, and nothing is left."""
        self.bus.mode = "at once"
        for listener in self.listeners:
            listener.pipe.buffered = 0
            if listener.paused and listener.closed_with is None:
                self.hub.resume(listener)
        for _ in range(40):
            while self.bus.waiting:
                self.bus.let_go(0)
            self.run(self.hub.flush())
        for listener in self.listeners:
            if listener.closed_with is None:
                for topic in listener.asked:
                    assert listener.place[topic] == len(self.log[topic]), "something never came"
            else:
                assert listener.closed_with in (CloseCode.SLOW, CloseCode.INSUFFICIENT_STATE)
            self.hub.remove(listener, None)
        assert (self.hub.subscriptions, self.hub.topics(), dict(self.hub.clients)) == (0, {}, {})


TestSeams = Seams.TestCase
TestSeams.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


def messages(*places: tuple[str, int]) -> list[Message]:
    return [Message("slots", "event", epoch, offset, b"") for epoch, offset in places]


class ScriptedBus(HesitatingBus):
    """Answers of `top` one after another, with what is held at the time."""

    def __init__(self, answers: Sequence[tuple[Position, list[Message]]], held: list[Message]) -> None:
        self.answers, self.held = list(answers), held

    async def top(self, topic: str) -> Position:
        top, arrived = self.answers.pop(0)
        self.held += arrived
        return top


@pytest.mark.parametrize(
    ("answers", "top", "tail"),
    [
        ([(Position("a", 4), [])], ("a", 4), []),
        ([(Position("a", 4), messages(("a", 5)))], ("a", 4), [("a", 5)]),
        ([(Position("a", 5), messages(("a", 5), ("a", 6)))], ("a", 5), [("a", 6)]),
        ([(Position("b", 0), messages(("a", 5))), (Position("b", 0), [])], ("b", 0), []),
        ([(Position("a", 5), messages(("a", 5), ("b", 1)))], ("a", 5), [("b", 1)]),
        ([(Position("a", 4), messages(("b", 1))), (Position("b", 1), [])], ("b", 1), []),
        ([(Position("a", 2), messages(("a", 5))), (Position("a", 5), [])], ("a", 5), []),
    ],
    ids=["quiet", "newer", "overlap", "renewed before", "renewed after", "renewed during", "hole"],
)
async def test_where_the_seam_is(answers: Any, top: tuple[str, int], tail: list[tuple[str, int]]) -> None:
    held: list[Message] = []
    found = await catch_up(ScriptedBus(answers, held), "slots", None, held, 100)
    assert found.top == top
    assert [(message.epoch, message.offset) for message in found.tail] == tail


async def test_a_bus_that_never_settles_is_unavailable() -> None:
    held: list[Message] = []
    answers = [(Position("a", 1), messages((f"b{n}", 1))) for n in range(100)]
    with pytest.raises(TransientError):
        await catch_up(ScriptedBus(answers, held), "slots", None, held, 100)
