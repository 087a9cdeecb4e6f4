"""What every cache in the register must do; a new one is tested by being registered."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.bus import BusSettings
from headrace.cache import CACHES, Cache, CacheWriter, Snapshot
from headrace.model.errors import FencedError
from headrace.model.events import Label, Message, MessageKind, Promotion, Publication, Retraction
from headrace.runtime.clock import ManualClock
from tests.contracts.contexts import Opener
from tests.examples import examples
from tests.local_bus import LocalBus

TOPIC = "accounts:pump"


Open: TypeAlias = "Callable[..., Awaitable[CacheInTest]]"


@asynccontextmanager
async def opener(name: str) -> AsyncIterator[Open]:
    """Yield the function that opens the cache called `name` for a test."""
    async with Opener(CACHES, name) as caches:

        async def open_cache(**bounds: Any) -> CacheInTest:
            return CacheInTest(await caches.open(**bounds))

        yield open_cache


@pytest.fixture(params=sorted(CACHES))
async def open_cache(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    async with opener(request.param) as open_cache:
        yield open_cache


class CacheInTest:
    """A cache, the bus whose messages its writer applies, and a log of these messages."""

    def __init__(self, cache: Cache) -> None:
        self.bus = LocalBus(BusSettings(), ManualClock(), "gen")
        self.cache = cache
        self.writer: CacheWriter | None = None
        self.log: list[Message] = []
        self.bus.attach(self.log.extend)

    async def publish(self, *publications: Publication) -> None:
        """Publish, and apply what the bus delivers."""
        if self.writer is None:
            self.writer = await self.cache.claim()
        before = len(self.log)
        await self.bus.publish(publications)
        await self.writer.apply(self.log[before:])

    async def put(
        self, key: str, event_id: str, slot: int | None = 1, *, sure: bool = False, topic: str = TOPIC
    ) -> None:
        await self.publish(state(topic, key, event_id, slot, sure=sure))

    async def retract(self, *event_ids: str, topic: str = TOPIC) -> None:
        body = b'"data":' + msgspec.json.encode({"event_ids": event_ids, "reason": "fork"})
        await self.publish(Publication.on(topic, "retract", body, Retraction(event_ids)))

    async def promote(self, slot: int) -> None:
        body = b'"data":{"slot":"%d","commitment":"confirmed"}' % slot
        await self.publish(Publication.on(TOPIC, "promote", body, Promotion(slot)))

    async def snapshot(self, topic: str = TOPIC) -> Snapshot:
        found = await self.cache.snapshot(topic)
        assert found is not None
        assert found.at == await self.bus.top(topic)
        return found

    async def ids(self) -> list[str]:
        return list(newest((await self.snapshot()).items).values())


def state(topic: str, key: str, event_id: str, slot: int | None = 1, *, sure: bool = False) -> Publication:
    shown = {"event_id": event_id, "data": {"pubkey": key}, "chain": {"slot": str(slot)}}
    return Publication.on(topic, "event", msgspec.json.encode(shown)[1:-1], Label(key, event_id, slot, sure))


def read(message: Message) -> Any:
    return msgspec.json.decode(b"{%b}" % message.body)


def newest(messages: Sequence[Message]) -> dict[str, str]:
    """Key → its last event."""
    return {read(message)["data"]["pubkey"]: read(message)["event_id"] for message in messages}


def event_ids(messages: Sequence[Message]) -> list[str]:
    return [read(message)["event_id"] for message in messages]


@pytest.fixture
async def tested(open_cache: Open) -> CacheInTest:
    return await open_cache()


async def test_the_newest_event_of_each_key_is_the_state(tested: CacheInTest) -> None:
    assert await tested.cache.snapshot(TOPIC) is None
    await tested.put("A", "a1", 5)
    await tested.put("B", "b1", 7)
    await tested.put("A", "a2", 6)
    found = await tested.snapshot()
    assert event_ids(found.items) == ["b1", "a1", "a2"], "a1 would stand again"
    assert newest(found.items) == {"B": "b1", "A": "a2"}
    assert (found.complete, found.as_of_slot) == (True, 7)


async def test_topics_without_a_state_and_messages_without_a_label_are_left_alone(tested: CacheInTest) -> None:
    await tested.put("A", "a1", topic="trades:pump")
    assert await tested.cache.snapshot("trades:pump") is None
    await tested.publish(Publication.on(TOPIC, "event", b'"event_id":"e","data":{"pubkey":"A"}'))
    found = await tested.snapshot()
    assert (found.items, found.complete, found.as_of_slot) == ([], True, None)


async def test_no_body_of_an_event_is_looked_at(tested: CacheInTest) -> None:
    await tested.publish(Publication.on(TOPIC, "event", b"no JSON", Label("A", "a1", 5, certain=False)))
    found = await tested.snapshot()
    assert ([message.body for message in found.items], found.complete, found.as_of_slot) == ([b"no JSON"], True, 5)


@pytest.mark.parametrize(("kind", "complete"), [("retract", False), ("promote", True), ("gap", True)])
async def test_only_a_retract_without_a_label_empties_the_state_and_makes_it_incomplete(
    tested: CacheInTest, kind: MessageKind, complete: bool
) -> None:
    await tested.put("A", "a1")
    await tested.publish(Publication.on(TOPIC, kind, b"no JSON"))
    found = await tested.snapshot()
    assert (event_ids(found.items), found.complete) == (["a1"] if complete else [], complete)


async def test_a_retract_brings_back_what_stood_before(tested: CacheInTest) -> None:
    for event_id in ("a1", "a2", "a3"):
        await tested.put("A", event_id)
    await tested.retract("a3", "nobody knows this one")
    assert await tested.ids() == ["a2"]
    await tested.retract("a1")
    assert await tested.ids() == ["a2"]
    await tested.retract("a2")
    assert await tested.ids() == []
    assert (await tested.snapshot()).complete
    await tested.put("A", "a4")
    assert await tested.ids() == ["a4"]


async def test_one_event_may_be_of_several_keys(tested: CacheInTest) -> None:
    topic = "token_updates"
    for kind in ("TokenCreated", "MarketData"):
        await tested.put(f"{kind} M ", "e", topic=topic)
    assert len((await tested.snapshot(topic)).items) == 2
    await tested.retract("e", topic=topic)
    assert (await tested.snapshot(topic)).items == []


async def test_an_event_that_comes_again_takes_its_own_place(tested: CacheInTest) -> None:
    await tested.put("A", "a1", 1)
    await tested.put("A", "a2", 2)
    await tested.put("A", "a1", 3)
    assert await tested.ids() == ["a2"]
    await tested.retract("a2")
    (again,) = (await tested.snapshot()).items
    assert again.label == Label("A", "a1", 3, certain=False)


async def test_a_retract_beyond_the_remembered_events_makes_the_topic_incomplete(tested: CacheInTest) -> None:
    for number in range(20):
        await tested.put("A", f"a{number}")
    await tested.retract(*(f"a{number}" for number in range(20)))
    found = await tested.snapshot()
    assert (found.items, found.complete) == ([], False)


async def test_events_before_a_promoted_event_do_not_come_back(tested: CacheInTest) -> None:
    await tested.put("A", "a1", 1)
    await tested.put("A", "a2", 2)
    await tested.promote(2)
    assert event_ids((await tested.snapshot()).items) == ["a2"]
    await tested.put("A", "a3", 3)
    await tested.retract("a3")
    assert await tested.ids() == ["a2"]
    assert (await tested.snapshot()).complete


async def test_events_before_a_certain_event_do_not_come_back(tested: CacheInTest) -> None:
    await tested.put("A", "a1", 1)
    await tested.put("A", "a2", 2, sure=True)
    assert event_ids((await tested.snapshot()).items) == ["a2"]


async def test_beyond_the_bound_the_key_unchanged_longest_is_forgotten_and_its_topic_incomplete(
    open_cache: Open,
) -> None:
    tested = await open_cache(items_max=3)
    for key in "ABCAD":
        await tested.put(key, f"{key}-{len(tested.log)}")
    found = await tested.snapshot()
    assert list(newest(found.items)) == ["C", "A", "D"]
    assert not found.complete
    await tested.put("X", "x", topic="account:X")
    assert (await tested.snapshot("account:X")).complete, "it concerns the topic that lost something"


async def test_bytes_are_bounded(open_cache: Open) -> None:
    tested = await open_cache(bytes_max=5_000)
    for number in range(100):
        await tested.put(f"key {number}", f"e{number}")
    ids = await tested.ids()
    assert 0 < len(ids) < 10
    assert ids == [f"e{number}" for number in range(100 - len(ids), 100)]


async def test_a_multitude_of_topics_is_bounded(open_cache: Open) -> None:
    tested = await open_cache(items_max=10)
    for number in range(100):
        await tested.retract("nothing", topic=f"account:{number}")
        await tested.put("K", "e", topic=f"account:{number}")
    known = [await tested.cache.snapshot(f"account:{number}") for number in range(100)]
    assert sum(found is not None for found in known) <= 10


async def test_a_bound_of_zero_items_makes_snapshots_incomplete(open_cache: Open) -> None:
    tested = await open_cache(items_max=0)
    await tested.put("A", "a1")
    found = await tested.snapshot()
    assert (found.items, found.complete) == ([], False)


async def test_a_cache_that_missed_the_first_message_makes_snapshots_incomplete(open_cache: Open) -> None:
    tested, late = await open_cache(), (await open_cache()).cache
    await tested.put("A", "a1")
    await tested.put("B", "b1")
    await (await late.claim()).apply(tested.log[1:])
    found = await late.snapshot(TOPIC)
    assert found is not None
    assert (event_ids(found.items), found.complete) == (["b1"], False)


async def test_a_new_epoch_begins_with_nothing(tested: CacheInTest) -> None:
    await tested.put("A", "a1")
    await tested.bus.renew()
    await tested.put("B", "b1")
    found = await tested.snapshot()
    assert (event_ids(found.items), found.complete) == (["b1"], True)


async def test_messages_that_are_applied_again_change_nothing(tested: CacheInTest) -> None:
    await tested.put("A", "a1", 1)
    await tested.put("B", "b1", 2)
    await tested.retract("a1")
    before = await tested.snapshot()
    assert tested.writer is not None
    for stop in range(1, 4):
        await tested.writer.apply(tested.log[:stop])
        assert await tested.snapshot() == before


async def test_a_forgotten_topic_is_unknown_and_comes_back_incomplete(tested: CacheInTest) -> None:
    await tested.put("A", "a1")
    await tested.put("A", "x", topic="account:X")
    assert tested.writer is not None
    await tested.writer.forget([TOPIC, "never known"])
    assert await tested.cache.snapshot(TOPIC) is None
    assert event_ids((await tested.snapshot("account:X")).items) == ["x"]
    await tested.put("B", "b1")
    found = await tested.snapshot()
    assert (event_ids(found.items), found.complete) == (["b1"], False)


async def test_a_writer_is_refused_once_another_has_claimed_the_state(tested: CacheInTest) -> None:
    await tested.put("A", "a1")
    stale, tested.writer = tested.writer, await tested.cache.claim()
    assert stale is not None
    await tested.bus.publish([state(TOPIC, "A", "a2")])
    with pytest.raises(FencedError):
        await stale.apply(tested.log[1:])
    with pytest.raises(FencedError):
        await stale.forget([TOPIC])
    found = await tested.cache.snapshot(TOPIC)
    assert found is not None
    assert event_ids(found.items) == ["a1"]


async def test_a_token_that_is_not_above_all_before_it_claims_nothing(tested: CacheInTest) -> None:
    tested.writer = await tested.cache.claim(7)
    for token in (7, 6, 0):
        with pytest.raises(FencedError):
            await tested.cache.claim(token)
    await tested.put("A", "a1")


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
@settings(max_examples=examples(200))
def test_a_snapshot_is_the_fold_of_the_log(steps: list[Any], items_max: int, name: str) -> None:
    async def play() -> None:
        async with opener(name) as open_cache:
            await check(await open_cache(items_max=items_max))

    async def check(tested: CacheInTest) -> None:
        for number, (kind, *given_) in enumerate(steps):
            if kind == "put":
                key, slot, sure = given_
                await tested.put(key, f"e{number}", slot, sure=sure and slot % 5 == 0)
            elif kind == "again" and given_[0] in (standing := fold(tested.log)):
                await tested.put(given_[0], standing[given_[0]], number)
            elif kind == "retract":
                await tested.retract(*(f"e{number - back}" for back in given_[0]))
            elif kind == "promote":
                await tested.promote(given_[0])
        if tested.log:
            found = await tested.snapshot()
            got = newest(found.items)
            wanted = fold(tested.log)
            assert got == wanted if found.complete else got.items() <= wanted.items()

    asyncio.run(play())
