"""What every cache in the register must do; a new one is tested by being registered."""

import asyncio
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.bus import BusSettings
from headrace.cache import CACHES, Cache, CacheSettings, Snapshot
from headrace.model.events import Label, Message, MessageKind, Promotion, Publication, Retraction
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from tests.local_bus import LocalBus

TOPIC = "accounts:pump"


class Make(Protocol):
    def __call__(self, settings: CacheSettings, metrics: Metrics) -> Cache: ...


@pytest.fixture(params=sorted(CACHES))
def make(request: pytest.FixtureRequest) -> Make:
    return registered(request.param)


def registered(name: str) -> Make:
    module, _, attribute = CACHES[name].partition(":")
    return cast(Make, getattr(import_module(module), attribute))


class Desk:
    """A cache on a bus of its own."""

    def __init__(self, make: Make, **bounds: int) -> None:
        self.bus = LocalBus(BusSettings(), ManualClock(), "gen")
        self.cache = make(CacheSettings(**bounds), Metrics())
        self.log: list[Message] = []
        self.bus.attach(self.cache.apply)
        self.bus.attach(self.log.extend)

    async def put(
        self, key: str, event_id: str, slot: int | None = 1, *, sure: bool = False, topic: str = TOPIC
    ) -> None:
        await self.bus.publish([state(topic, key, event_id, slot, sure=sure)])

    async def retract(self, *event_ids: str, topic: str = TOPIC) -> None:
        body = b'"data":' + msgspec.json.encode({"event_ids": event_ids, "reason": "fork"})
        await self.bus.publish([Publication(topic, "retract", body, Retraction(event_ids))])

    async def promote(self, slot: int) -> None:
        body = b'"data":{"slot":"%d","commitment":"confirmed"}' % slot
        await self.bus.publish([Publication(TOPIC, "promote", body, Promotion(slot))])

    async def snapshot(self, topic: str = TOPIC) -> Snapshot:
        found = await self.cache.snapshot(topic)
        assert found is not None
        assert found.at == await self.bus.top(topic)
        return found

    async def ids(self) -> list[str]:
        return list(newest((await self.snapshot()).items).values())


def state(topic: str, key: str, event_id: str, slot: int | None = 1, *, sure: bool = False) -> Publication:
    shown = {"event_id": event_id, "data": {"pubkey": key}, "chain": {"slot": str(slot)}}
    return Publication(topic, "event", msgspec.json.encode(shown)[1:-1], Label(key, event_id, slot, sure))


def read(message: Message) -> Any:
    return msgspec.json.decode(b"{%b}" % message.body)


def newest(messages: Sequence[Message]) -> dict[str, str]:
    """Key → its last event."""
    return {read(message)["data"]["pubkey"]: read(message)["event_id"] for message in messages}


def event_ids(messages: Sequence[Message]) -> list[str]:
    return [read(message)["event_id"] for message in messages]


@pytest.fixture
def desk(make: Make) -> Desk:
    return Desk(make)


async def test_the_newest_event_of_each_key_is_the_state(desk: Desk) -> None:
    assert await desk.cache.snapshot(TOPIC) is None
    await desk.put("A", "a1", 5)
    await desk.put("B", "b1", 7)
    await desk.put("A", "a2", 6)
    found = await desk.snapshot()
    assert event_ids(found.items) == ["b1", "a1", "a2"], "a1 would stand again"
    assert newest(found.items) == {"B": "b1", "A": "a2"}
    assert (found.complete, found.as_of_slot) == (True, 7)


async def test_topics_without_a_state_and_messages_without_a_label_are_left_alone(desk: Desk) -> None:
    await desk.put("A", "a1", topic="trades:pump")
    assert await desk.cache.snapshot("trades:pump") is None
    await desk.bus.publish([Publication(TOPIC, "event", b'"event_id":"e","data":{"pubkey":"A"}')])
    found = await desk.snapshot()
    assert (found.items, found.complete, found.as_of_slot) == ([], True, None)


async def test_no_body_of_an_event_is_looked_at(desk: Desk) -> None:
    await desk.bus.publish([Publication(TOPIC, "event", b"no JSON", Label("A", "a1", 5, certain=False))])
    found = await desk.snapshot()
    assert ([message.body for message in found.items], found.complete, found.as_of_slot) == ([b"no JSON"], True, 5)


@pytest.mark.parametrize(("kind", "complete"), [("retract", False), ("promote", True), ("gap", True)])
async def test_only_a_retract_without_a_label_leaves_a_doubt(desk: Desk, kind: MessageKind, complete: bool) -> None:
    await desk.put("A", "a1")
    await desk.bus.publish([Publication(TOPIC, kind, b"no JSON")])
    found = await desk.snapshot()
    assert (event_ids(found.items), found.complete) == (["a1"], complete)


async def test_a_retract_brings_back_what_stood_before(desk: Desk) -> None:
    for event_id in ("a1", "a2", "a3"):
        await desk.put("A", event_id)
    await desk.retract("a3", "nobody knows this one")
    assert await desk.ids() == ["a2"]
    await desk.retract("a1")
    assert await desk.ids() == ["a2"]
    await desk.retract("a2")
    assert await desk.ids() == []
    assert (await desk.snapshot()).complete
    await desk.put("A", "a4")
    assert await desk.ids() == ["a4"]


async def test_one_event_may_be_of_several_keys(desk: Desk) -> None:
    topic = "token_updates"
    for kind in ("TokenCreated", "MarketData"):
        await desk.put(f"{kind} M ", "e", topic=topic)
    assert len((await desk.snapshot(topic)).items) == 2
    await desk.retract("e", topic=topic)
    assert (await desk.snapshot(topic)).items == []


async def test_an_event_that_comes_again_takes_its_own_place(desk: Desk) -> None:
    await desk.put("A", "a1", 1)
    await desk.put("A", "a2", 2)
    await desk.put("A", "a1", 3)
    assert await desk.ids() == ["a2"]
    await desk.retract("a2")
    (again,) = (await desk.snapshot()).items
    assert again.label == Label("A", "a1", 3, certain=False)


async def test_a_retract_beyond_what_is_remembered_is_told(desk: Desk) -> None:
    for number in range(20):
        await desk.put("A", f"a{number}")
    await desk.retract(*(f"a{number}" for number in range(20)))
    found = await desk.snapshot()
    assert (found.items, found.complete) == ([], False)


async def test_what_is_certain_is_the_floor(desk: Desk) -> None:
    await desk.put("A", "a1", 1)
    await desk.put("A", "a2", 2)
    await desk.promote(2)
    assert event_ids((await desk.snapshot()).items) == ["a2"]
    await desk.put("A", "a3", 3)
    await desk.retract("a3")
    assert await desk.ids() == ["a2"]
    assert (await desk.snapshot()).complete


async def test_what_was_certain_when_it_came_is_the_floor_at_once(desk: Desk) -> None:
    await desk.put("A", "a1", 1)
    await desk.put("A", "a2", 2, sure=True)
    assert event_ids((await desk.snapshot()).items) == ["a2"]


async def test_what_is_unchanged_longest_is_forgotten_and_the_snapshot_says_so(make: Make) -> None:
    desk = Desk(make, items_max=3)
    for key in "ABCAD":
        await desk.put(key, f"{key}-{len(desk.log)}")
    found = await desk.snapshot()
    assert list(newest(found.items)) == ["C", "A", "D"]
    assert not found.complete
    await desk.put("X", "x", topic="account:X")
    assert (await desk.snapshot("account:X")).complete, "it concerns the topic that lost something"


async def test_bytes_are_bounded(make: Make) -> None:
    desk = Desk(make, bytes_max=5_000)
    for number in range(100):
        await desk.put(f"key {number}", f"e{number}")
    ids = await desk.ids()
    assert 0 < len(ids) < 10
    assert ids == [f"e{number}" for number in range(100 - len(ids), 100)]


async def test_a_multitude_of_topics_is_bounded(make: Make) -> None:
    desk = Desk(make, items_max=10)
    for number in range(100):
        await desk.retract("nothing", topic=f"account:{number}")
        await desk.put("K", "e", topic=f"account:{number}")
    known = [await desk.cache.snapshot(f"account:{number}") for number in range(100)]
    assert sum(found is not None for found in known) <= 10


async def test_a_cache_that_keeps_nothing_says_so(make: Make) -> None:
    desk = Desk(make, items_max=0)
    await desk.put("A", "a1")
    found = await desk.snapshot()
    assert (found.items, found.complete) == ([], False)


async def test_a_late_listener_knows_that_it_is_late(make: Make) -> None:
    desk, late = Desk(make), registered(sorted(CACHES)[0])(CacheSettings(), Metrics())
    await desk.put("A", "a1")
    desk.bus.attach(late.apply)
    await desk.put("B", "b1")
    found = await late.snapshot(TOPIC)
    assert found is not None
    assert (event_ids(found.items), found.complete) == (["b1"], False)


async def test_a_new_epoch_begins_with_nothing(desk: Desk) -> None:
    await desk.put("A", "a1")
    await desk.bus.renew()
    await desk.put("B", "b1")
    found = await desk.snapshot()
    assert (event_ids(found.items), found.complete) == (["b1"], True)


def fold(log: Sequence[Message]) -> dict[str, str]:
    """Key → event, by the words of the contract, with nothing forgotten."""
    chains: dict[str, list[str]] = {}
    for message in log:
        told = read(message)
        if message.kind == "retract":
            for chain in chains.values():
                chain[:] = [event_id for event_id in chain if event_id not in told["data"]["event_ids"]]
        elif message.kind == "event":
            chain = chains.setdefault(told["data"]["pubkey"], [])
            if told["event_id"] not in chain:
                chain.append(told["event_id"])
    return {key: chain[-1] for key, chain in chains.items() if chain}


KEYS, NUMBERS = st.sampled_from("ABCDEF"), st.integers(0, 30)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, NUMBERS, st.booleans()),
        st.tuples(st.just("again"), KEYS),
        st.tuples(st.just("retract"), st.lists(NUMBERS, max_size=4)),
        st.tuples(st.just("promote"), NUMBERS),
    ),
    max_size=60,
)


@given(steps=STEPS, items_max=st.sampled_from([2, 4, 100]), name=st.sampled_from(sorted(CACHES)))
@settings(max_examples=200)
def test_a_snapshot_is_the_fold_of_the_log(steps: list[Any], items_max: int, name: str) -> None:
    async def play() -> None:
        desk = Desk(registered(name), items_max=items_max)
        for number, (kind, *given_) in enumerate(steps):
            if kind == "put":
                key, slot, sure = given_
                await desk.put(key, f"e{number}", slot, sure=sure and slot % 5 == 0)
            elif kind == "again" and given_[0] in (standing := fold(desk.log)):
                await desk.put(given_[0], standing[given_[0]], number)
            elif kind == "retract":
                await desk.retract(*(f"e{number - back}" for back in given_[0]))
            elif kind == "promote":
                await desk.promote(given_[0])
        if desk.log:
            found = await desk.snapshot()
            got = newest(found.items)
            wanted = fold(desk.log)
            assert got == wanted if found.complete else got.items() <= wanted.items()

    asyncio.run(play())
