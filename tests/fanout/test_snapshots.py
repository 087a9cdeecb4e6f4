"""Snapshots against a model: snapshot, then replay, then live add up to what the whole log adds up to."""

import asyncio
import json
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from headrace.cache import CacheSettings, CacheWriter, Snapshot
from headrace.cache import Snapshots as Cached
from headrace.cache.feed import CacheFeed
from headrace.cache.memory import MemoryCache
from headrace.fanout.hub import Hub
from headrace.fanout.pages import SNAPSHOT_PAGE_BYTES
from headrace.model.events import Label, Message, MessageKind, Position, Publication, Retraction
from headrace.protocol.session import Subscribe
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from tests.examples import examples
from tests.fanout.hub_machine import HesitatingBus, HubMachine, WiredClient
from tests.fanout.test_slow_clients import SMALL, stalled_client
from tests.gateway.running_gateway import Raw, RunningGateway, join, run_gateway

TOPIC = "accounts:pump"
KEYS = "ABCDE"


class Fold:
    """What a client makes of what it gets: key → its standing events, oldest first. As the how-to tells it."""

    def __init__(self) -> None:
        self.standing: dict[str, list[str]] = {}

    def take(self, frame: Any) -> None:
        if frame["type"] == "event":
            events = self.standing.setdefault(frame["data"]["pubkey"], [])
            events.append(frame["event_id"])
        elif frame["type"] == "retract":
            for events in self.standing.values():
                events[:] = [event_id for event_id in events if event_id not in frame["data"]["event_ids"]]

    @property
    def state(self) -> dict[str, str]:
        return {key: events[-1] for key, events in self.standing.items() if events}


class HesitatingCache:
    """A cache that answers late, as the bus does: with the state of before or after the wait."""

    def __init__(self, cache: Cached, bus: HesitatingBus) -> None:
        self.cache, self.bus = cache, bus

    async def snapshot(self, topic: str) -> Snapshot | None:
        return await self.bus._hesitate(lambda: self.cache.snapshot(topic))


class HesitatingWriter:
    """A writer of a cache that is slow at times; then it applies everything before the wait, and once more after it."""

    def __init__(self, writer: CacheWriter, bus: HesitatingBus) -> None:
        self.writer, self.bus = writer, bus

    async def apply(self, messages: Sequence[Message]) -> None:
        await self.bus._hesitate(lambda: self.writer.apply(messages))

    async def forget(self, topics: Collection[str]) -> None:
        await self.bus._hesitate(lambda: self.writer.forget(topics))


class Listener(WiredClient):
    """A client that keeps the state. `place` is the index in the model's log of what must come next."""

    def __init__(self, hub: Hub, batch: bool, model: "Snapshots") -> None:
        super().__init__(hub, batch)
        self.model = model
        self.subscribed = False

    def ask(self, since: Position | None) -> None:
        self.subscribed, self.since, self.fold = True, since, Fold()
        self.place: int | None = None
        self.page: int | None = None
        self.complete = True
        self.hub.subscribe(self, Subscribe(TOPIC, None, since, snapshot=True))

    def not_subscribed(self, topic: str) -> None:
        self.subscribed = False

    def check(self) -> None:
        for got in self.pipe.frames():
            if got["type"] in ("error", "lag"):
                continue
            at = Position(got["epoch"], int(got["offset"])) if "epoch" in got else None
            if got["type"] == "subscribed":
                self._check_ack(got["data"])
            elif got["type"] == "snapshot":
                assert at is not None
                self._check_page(at, got["data"])
            else:
                assert self.page is None, "the snapshot is whole before anything else comes"
                assert self.place is not None
                assert self.model.log[self.place] == at, "a hole or a repeat"
                if got["offset"] == "1":
                    self.fold, self.complete = Fold(), True
                self.fold.take(got)
                self.place += 1

    def _check_ack(self, data: Any) -> None:
        top = Position(data["epoch"], int(data["offset"]))
        assert self.place is None, "an ack comes once, before everything else"
        if data["recovered"]:
            assert self.since is not None
            assert data["replayed"] == top.offset - self.since.offset
            self.place = self.model.index(self.since)
            self.fold = self.model.fold(self.since)
        else:
            self.page = 1
            self.expected_place = self.model.index(top) - data["replayed"]

    def _check_page(self, at: Position, data: Any) -> None:
        assert self.place is None, "a snapshot comes once, after the ack"
        assert self.expected_place == self.model.index(at), "the replay begins where the snapshot ends"
        for item in data["items"]:
            self.fold.take(item)
            assert int(item["offset"]) <= at.offset
        assert sum(len(json.dumps(item)) for item in data["items"][:-1]) <= SNAPSHOT_PAGE_BYTES * 2
        self.complete = data["complete"]
        assert self.page is not None
        self.page += 1
        if data["next"] is None:
            self.page, self.place = None, self.model.index(at)
            told, real = self.fold.state, self.model.fold(at).state
            assert told == real if self.complete else told.items() <= real.items()
        else:
            assert data["next"] == str(self.page)


class Snapshots(HubMachine[Listener]):
    """Rules are what may happen; `log` is everything that was ever published, in order."""

    @initialize(items_max=st.sampled_from([3, 1000]))
    def begin(self, items_max: int) -> None:
        self.items_max = items_max
        self.log: list[Position] = []
        self.frames: list[Any] = []
        self.begins: dict[str, int] = {}
        self.start(history_size=15)

    async def open_cache(self, metrics: Metrics, supervisor: Supervisor) -> Cached:
        cache = MemoryCache(CacheSettings(items_max=self.items_max), metrics)
        writer = HesitatingWriter(await cache.claim(), self.bus)
        feed = CacheFeed(self.bus, cache, writer, self.clock, metrics)
        supervisor.start("cache", "feed", feed.run)
        return HesitatingCache(feed, self.bus)

    def note(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.log.append(Position(message.epoch, message.offset))
            self.frames.append(json.loads(b'{"type":"%b",%b}' % (message.kind.encode(), message.body)))

    async def note_epoch(self) -> None:
        self.begins[(await self.bus.bus.top("none")).epoch] = len(self.log)

    def index(self, at: Position) -> int:
        return self.begins[at.epoch] + at.offset

    def fold(self, at: Position) -> Fold:
        """The state just after `at`: its epoch's log, with nothing left out."""
        fold = Fold()
        for frame in self.frames[self.begins[at.epoch] : self.index(at)]:
            fold.take(frame)
        return fold

    def publish(self, kind: MessageKind, *shown: dict[str, Any]) -> None:
        self.run(self.bus.publish([publication(TOPIC, kind, each) for each in shown]))

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=6), size=st.sampled_from([0, 0, 30_000]))
    def change(self, keys: list[str], size: int) -> None:
        first = len(self.log)
        self.publish("event", *(event(key, f"e{first + n}", size) for n, key in enumerate(keys)))

    @precondition(lambda self: self.log)
    @rule(back=st.lists(st.integers(1, 6), min_size=1, max_size=3))
    def retract(self, back: list[int]) -> None:
        gone = [f"e{len(self.log) - each}" for each in back]
        self.publish("retract", {"data": {"event_ids": gone, "reason": "fork"}})

    @rule(batch=st.booleans(), back=st.one_of(st.none(), st.integers(0, 25)), full=st.booleans())
    def come(self, batch: bool, back: int | None, full: bool) -> None:
        """Connect and subscribe, with the position of some messages ago; perhaps with a socket that is full at once."""
        if len(self.listeners) < 6:
            listener = Listener(self.hub, batch, self)
            self.listeners.append(listener)
            if full:
                self.fill(listener, full=True)
            listener.ask(self.log[max(0, len(self.log) - 1 - back)] if self.log and back is not None else None)
            self.run(asyncio.sleep(0))

    @precondition(lambda self: self.listeners)
    @rule(data=st.data(), full=st.booleans())
    def fill_or_free(self, data: st.DataObject, full: bool) -> None:
        listener = data.draw(st.sampled_from(self.listeners))
        if listener.closed_with is None and listener.paused != full:
            self.fill(listener, full=full)
        self.run(asyncio.sleep(0))

    def let_through(self) -> None:
        super().let_through()
        self.publish("event", event("A", f"e{len(self.log)}"))
        super().let_through()
        assert not any(feed.holding for feed in self.hub._feeds.values())

    def check_end(self, listener: Listener) -> None:
        if listener.subscribed:
            assert listener.place == len(self.log), "something never came"
            state, real = listener.fold.state, self.fold(self.log[-1]).state
            assert state == real if listener.complete else state.items() <= real.items()


TestSnapshots = Snapshots.TestCase
TestSnapshots.settings = settings(max_examples=examples(120), stateful_step_count=40)


def event(key: str, event_id: str, size: int = 0) -> dict[str, Any]:
    data = {"type": "Account", "pubkey": key, "pad": "x" * size}
    return {"event_id": event_id, "data": data, "chain": {"slot": "7", "commitment": "processed"}}


def publication(topic: str, kind: MessageKind, shown: dict[str, Any]) -> Publication:
    """The message with its label: what the cache must know of it."""
    label: Label | Retraction | None = None
    if kind == "event":
        label = Label(shown["data"]["pubkey"], shown["event_id"], 7, certain=False)
    elif kind == "retract":
        label = Retraction(tuple(shown["data"]["event_ids"]))
    return Publication.on(topic, kind, msgspec.json.encode(shown)[1:-1], label)


async def change(running: RunningGateway, *keys: str, size: int = 0, topic: str = TOPIC) -> None:
    await running.bus.publish([publication(topic, "event", event(key, f"{key}-id", size)) for key in keys])


async def snapshot_of(raw: Raw) -> tuple[list[str], list[Any]]:
    """Keys of all items, and the pages without them."""
    keys: list[str] = []
    pages: list[Any] = []
    while not pages or pages[-1]["data"]["next"] is not None:
        page = await raw.json()
        assert page["type"] == "snapshot", page
        keys += [item["data"]["pubkey"] for item in page["data"].pop("items")]
        pages.append(page)
    return keys, pages


async def test_a_snapshot_comes_after_the_ack_and_before_what_is_live() -> None:
    async with run_gateway() as running:
        await change(running, "A", "B")
        raw = await join(running)
        raw.ask("subscribe", 1, topic=TOPIC, snapshot=True)
        assert (await raw.json())["data"]["offset"] == "2"
        keys, (page,) = await snapshot_of(raw)
        assert (keys, page["offset"]) == (["A", "B"], "2")
        assert page["data"] == {"as_of_slot": "7", "complete": True, "next": None}
        await change(running, "C")
        assert (await raw.json())["offset"] == "3"


async def test_an_empty_state_is_sent_too() -> None:
    async with run_gateway() as running:
        raw = await join(running)
        raw.ask("subscribe", 1, topic="account:11111111111111111111111111111111", snapshot=True)
        assert (await raw.json())["type"] == "subscribed"
        keys, (page,) = await snapshot_of(raw)
        assert (keys, page["data"]) == ([], {"as_of_slot": None, "complete": True, "next": None})


async def test_a_new_epoch_has_an_empty_complete_state() -> None:
    async with run_gateway() as running:
        await change(running, "A", "B")
        await running.bus.renew()
        raw = await join(running)
        raw.ask("subscribe", 1, topic=TOPIC, snapshot=True)
        acknowledged = await raw.json()
        assert (acknowledged["type"], acknowledged["data"]["offset"]) == ("subscribed", "0"), acknowledged
        keys, (page,) = await snapshot_of(raw)
        assert (keys, page["data"]) == ([], {"as_of_slot": None, "complete": True, "next": None})


async def test_a_snapshot_of_a_topic_without_state_is_refused() -> None:
    async with run_gateway() as running:
        raw = await join(running)
        raw.ask("subscribe", 1, topic="trades:pump", snapshot=True)
        failure = (await raw.json())["data"]
        assert (failure["code"], failure["message"]) == (107, "this topic has no snapshot")
        raw.ask("subscribe", 2, topic="trades:pump")
        assert (await raw.json())["type"] == "subscribed"


async def test_a_snapshot_is_sent_only_where_nothing_is_recovered() -> None:
    async with run_gateway() as running:
        await change(running, "A", "B")
        raw = await join(running)
        raw.ask("subscribe", 1, topic=TOPIC, snapshot=True, recover={"epoch": "g", "offset": "1"})
        assert (await raw.json())["data"] == {
            "epoch": "g", "offset": "2", "was_recovering": True, "recovered": True, "replayed": 1
        }  # fmt: skip
        assert (await raw.json())["data"]["pubkey"] == "B"
        lost = await join(running)
        lost.ask("subscribe", 1, topic=TOPIC, snapshot=True, recover={"epoch": "old", "offset": "1"})
        assert (await lost.json())["data"]["recovered"] is False
        assert (await snapshot_of(lost))[0] == ["A", "B"]


async def test_a_snapshot_outlasts_the_log_while_it_is_sent_to_a_slow_client() -> None:
    """It takes nothing while far more is published than the log keeps, and still misses nothing."""
    async with run_gateway(history_size=10, slow_abort_s=30, **SMALL) as running:
        names = [f"key {number}" for number in range(500)]
        await change(running, *names, size=2_000)
        slow = await stalled_client(running)
        slow.ask("subscribe", 1, topic=TOPIC, snapshot=True)
        await running.subscriptions(2)
        for number in range(1_000):
            await change(running, f"new {number}")
        assert (await slow.json())["data"]["offset"] == "500"
        keys, pages = await snapshot_of(slow)
        assert keys == names
        assert len(pages) > 10
        assert [int((await slow.json())["offset"]) for _ in range(1_000)] == list(range(501, 1_501))
        await change(running, "last")
        assert (await slow.json())["offset"] == "1501"
