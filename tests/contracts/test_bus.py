"""What every bus in the register must do; a new one is tested by being registered."""

import asyncio
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast, get_args

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headrace.bus import BUSES, Bus, BusSettings
from headrace.model.errors import TransientError
from headrace.model.events import Label, Message, MessageKind, Position, Publication
from headrace.runtime.clock import Clock, ManualClock
from tests.examples import examples

TTL_S = 60.0
SIZE = 4


class Make(Protocol):
    def __call__(self, settings: BusSettings, clock: Clock, generation: str) -> Bus: ...


def registered(name: str) -> Make:
    module, _, attribute = BUSES[name].partition(":")
    return cast(Make, getattr(import_module(module), attribute))


class Desk:
    """A bus of its own with a clock that stands."""

    def __init__(self, make: Make, **bounds: float) -> None:
        self.clock = ManualClock()
        self.bus = make(BusSettings(**{"history_size": SIZE, "history_ttl_s": TTL_S, **bounds}), self.clock, "gen")  # type: ignore[arg-type]
        self.seen: list[Message] = []
        self.detach = self.bus.attach(self.seen.extend)

    async def publish(self, *items: str) -> list[Position]:
        """Publish "topic/body" items as one batch."""
        return await self.bus.publish([publication(item) for item in items])

    async def bodies(
        self, topic: str, since: Position | None = None, limit: int = 100, *, reverse: bool = False
    ) -> list[str]:
        page = await self.bus.history(topic, since, limit, reverse=reverse)
        assert page.complete
        return [message.body.decode() for message in page.messages]


def publication(item: str) -> Publication:
    topic, _, body = item.partition("/")
    return Publication(topic, "event", body.encode())


@pytest.fixture(params=sorted(BUSES))
def make(request: pytest.FixtureRequest) -> Make:
    return registered(request.param)


@pytest.fixture
def desk(make: Make) -> Desk:
    return Desk(make)


async def test_offsets_count_from_one_in_each_topic(desk: Desk) -> None:
    positions = await desk.publish("a/1", "b/2", "a/3")
    assert [p.offset for p in positions] == [1, 1, 2]
    assert [(m.topic, m.offset, m.body, m.epoch) for m in desk.seen] == [
        ("a", 1, b"1", positions[0].epoch),
        ("b", 1, b"2", positions[1].epoch),
        ("a", 2, b"3", positions[2].epoch),
    ]
    assert await desk.bus.top("a") == positions[2]
    assert desk.bus.topics() == {"a": positions[2], "b": positions[1]}


async def test_a_message_is_carried_as_it_was_given(desk: Desk) -> None:
    labels = [Label("key", "event", 5, certain=True), Label("", "app:1", None, certain=False), None]
    given = [Publication("a", kind, b"x", label) for kind in get_args(MessageKind) for label in labels]
    await desk.bus.publish(given)
    for messages in (desk.seen, (await desk.bus.history("a", None, len(given))).messages):
        assert [(m.kind, m.body, m.label) for m in messages] == [(p.kind, p.body, p.label) for p in given][
            -len(messages) :
        ]


async def test_an_unknown_topic_is_where_its_first_message_will_follow(desk: Desk) -> None:
    before = await desk.bus.top("a")
    assert before.offset == 0
    assert await desk.bus.history("a", before, 10) == ([], before, True)
    assert await desk.publish("a/1") == [Position(before.epoch, 1)]
    assert await desk.bodies("a", before) == ["1"]


async def test_history_pages_forwards_and_backwards(desk: Desk) -> None:
    await desk.publish("a/1", "a/2", "a/3")
    epoch = (await desk.bus.top("a")).epoch
    assert await desk.bodies("a") == ["1", "2", "3"]
    assert await desk.bodies("a", limit=2) == ["1", "2"]
    assert await desk.bodies("a", Position(epoch, 1), 1) == ["2"]
    assert await desk.bodies("a", Position(epoch, 3)) == []
    assert await desk.bodies("a", reverse=True) == ["3", "2", "1"]
    assert await desk.bodies("a", Position(epoch, 3), 1, reverse=True) == ["2"]
    assert await desk.bodies("a", Position(epoch, 4), 9, reverse=True) == ["3", "2", "1"]
    assert await desk.bodies("a", Position(epoch, 1), 9, reverse=True) == []


async def test_size_makes_an_old_position_incomplete_and_empty(desk: Desk) -> None:
    await desk.publish(*(f"a/{n}" for n in range(1, SIZE + 3)))
    top = await desk.bus.top("a")
    assert await desk.bodies("a") == ["3", "4", "5", "6"]
    assert await desk.bodies("a", Position(top.epoch, 2)) == ["3", "4", "5", "6"]
    assert await desk.bus.history("a", Position(top.epoch, 1), 10) == ([], top, False)
    assert await desk.bus.history("a", Position(top.epoch, 2), 10, reverse=True) == ([], top, False)


async def test_time_makes_an_old_position_incomplete_and_empty(desk: Desk) -> None:
    await desk.publish("a/1")
    await desk.clock.advance(TTL_S / 2)
    await desk.publish("a/2")
    await desk.clock.advance(TTL_S / 2)
    top = await desk.bus.top("a")
    assert await desk.bodies("a") == ["2"]
    assert await desk.bus.history("a", Position(top.epoch, 0), 10) == ([], top, False)
    assert await desk.bodies("a", Position(top.epoch, 1)) == ["2"]
    await desk.clock.advance(TTL_S / 2)
    await desk.publish("b/1")
    assert await desk.bus.history("a", Position(top.epoch, 1), 10) == ([], top, False)
    assert await desk.bus.history("a", top, 10) == ([], top, True), "nothing was missed, silence is no loss"
    assert await desk.publish("a/3") == [Position(top.epoch, 3)], "a silent topic keeps its epoch"


@pytest.mark.parametrize("offset", [-1, 2, 99])
async def test_a_position_that_never_was_is_incomplete(desk: Desk, offset: int) -> None:
    await desk.publish("a/1")
    top = await desk.bus.top("a")
    assert await desk.bus.history("a", Position(top.epoch, offset), 10) == ([], top, False)
    assert await desk.bus.history("a", Position("other", 1), 10) == ([], top, False)


async def test_a_forgotten_topic_comes_back_under_a_new_epoch(make: Make) -> None:
    desk = Desk(make, topics_max=2)
    (first,) = await desk.publish("a/1")
    await desk.publish("b/1")
    awaited = await desk.bus.top("c")
    assert await desk.publish("c/1") == [Position(awaited.epoch, 1)]
    assert set(desk.bus.topics()) == {"b", "c"}
    gone = await desk.bus.top("a")
    assert gone.offset == 0
    assert gone.epoch != first.epoch
    assert not (await desk.bus.history("a", first, 10)).complete
    assert await desk.publish("a/again") == [Position(gone.epoch, 1)]


BODY = "x" * 500


async def test_bytes_are_bounded_and_the_topic_unused_longest_gives_way_first(make: Make) -> None:
    desk = Desk(make, history_bytes=4000)
    (quiet,) = await desk.publish(f"quiet/{BODY}")
    for number in range(20):
        await desk.clock.advance(0.1)
        await desk.publish(f"new {number}/{BODY}", f"busy/{number}{BODY}")
        kept = [body for topic in desk.bus.topics() for body in await desk.bodies(topic)]
        assert sum(map(len, kept)) <= 4000
    assert len(await desk.bodies("busy")) == SIZE
    assert await desk.bodies("quiet") == []
    assert await desk.bus.history("quiet", quiet, 10) == ([], quiet, True), "its position stays"
    assert not (await desk.bus.history("quiet", Position(quiet.epoch, 0), 10)).complete
    assert await desk.publish("quiet/again") == [Position(quiet.epoch, 2)]


async def test_one_topic_that_is_too_heavy_alone_keeps_its_newest(make: Make) -> None:
    desk = Desk(make, history_bytes=2500)
    await desk.publish(*(f"a/{n}{BODY}" for n in range(SIZE)))
    kept = await desk.bodies("a")
    assert 1 <= len(kept) < SIZE
    assert kept[-1] == f"{SIZE - 1}{BODY}"
    await desk.publish("a/" + "y" * 9000)
    assert await desk.bodies("a") == []
    assert (await desk.bus.top("a")).offset == SIZE + 1
    assert len(desk.seen) == SIZE + 1, "live messages are not concerned"


async def test_a_multitude_of_topics_leaves_no_more_behind_than_the_bound(make: Make) -> None:
    desk = Desk(make, topics_max=100)
    await desk.publish("hot/1")
    for start in range(0, 20_000, 100):
        await desk.publish("hot/again", *(f"account:{start + n}/x" for n in range(100)))
    assert len(desk.bus.topics()) == 100
    assert set(desk.bus.topics()) >= {f"account:{n}" for n in range(19_901, 20_000)}


async def test_without_history_every_position_but_the_newest_is_gone(make: Make) -> None:
    desk = Desk(make, history_size=0)
    first, top = await desk.publish("a/1", "a/2")
    assert await desk.bodies("a") == []
    assert await desk.bus.history("a", top, 10) == ([], top, True)
    assert not (await desk.bus.history("a", first, 10)).complete


async def test_a_slow_sink_slows_the_publisher_and_loses_nothing(desk: Desk) -> None:
    told: list[str] = []

    def slow(batch: Sequence[Message]) -> None:
        told.extend(f"sink {message.offset}" for message in batch)

    desk.bus.attach(slow)
    for number in range(3):
        await desk.publish(f"a/{number}")
        told.append("published")
    assert told == ["sink 1", "published", "sink 2", "published", "sink 3", "published"]


async def test_another_process_never_has_an_epoch_of_this_one(make: Make) -> None:
    settings, clock = BusSettings(), ManualClock()
    before, after = make(settings, clock, "first"), make(settings, clock, "second")
    (old,) = await before.publish([publication("a/1")])
    (new,) = await after.publish([publication("a/1")])
    assert (old.offset, new.offset) == (1, 1)
    assert not (await after.history("a", old, 10)).complete
    again = await make(settings, clock, "first").publish([publication("a/1")])
    assert again == [old], "a replay that must be the same each time names its own"


async def test_renew_starts_every_topic_anew(desk: Desk) -> None:
    (old,) = await desk.publish("a/1")
    await desk.bus.renew()
    assert desk.bus.topics() == {}
    assert not (await desk.bus.history("a", old, 10)).complete
    (new,) = await desk.publish("a/1")
    assert new.offset == 1
    assert new.epoch != old.epoch


async def test_a_sink_gets_what_comes_after_it_until_it_leaves(desk: Desk) -> None:
    late: list[Message] = []
    await desk.publish("a/1")
    desk.bus.attach(late.extend)
    await desk.publish("a/2")
    desk.detach()
    await desk.publish("a/3")
    assert [m.offset for m in desk.seen] == [1, 2]
    assert [m.offset for m in late] == [2, 3]


async def test_a_sink_that_raises_hurts_no_other_and_is_not_hidden(desk: Desk) -> None:
    def broken(batch: Sequence[Message]) -> None:
        raise RuntimeError("sink bug")

    after: list[Message] = []
    detach = desk.bus.attach(broken)
    desk.bus.attach(after.extend)
    with pytest.raises(RuntimeError, match="sink bug"):
        await desk.publish("a/1")
    detach()
    await desk.publish("a/2")
    assert [m.offset for m in desk.seen] == [m.offset for m in after] == [1, 2]


async def test_a_closed_bus_is_away(desk: Desk) -> None:
    await desk.bus.close()
    await desk.bus.close()
    with pytest.raises(TransientError):
        await desk.publish("a/1")
    with pytest.raises(TransientError):
        await desk.bus.history("a", None, 1)
    with pytest.raises(TransientError):
        await desk.bus.top("a")
    with pytest.raises(TransientError):
        await desk.bus.renew()
    assert desk.seen == []


TOPICS = st.sampled_from("abcdef")


class Truth(RuleBasedStateMachine):
    """Whatever happens, what a client asks with a position it once had is answered whole or declared incomplete."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = self.runner.run
        self.desk = Desk(self.make, topics_max=3, history_bytes=1200)
        self.told: dict[tuple[str, str], list[str]] = {}  # (topic, epoch) → all bodies ever appended, in order
        self.count = 0

    make: Make

    def teardown(self) -> None:
        self.runner.close()

    @rule(topics=st.lists(TOPICS, max_size=8))
    def publish(self, topics: list[str]) -> None:
        items = [f"{topic}/{self.count + n}" for n, topic in enumerate(topics)]
        self.count += len(topics)
        for item, position in zip(items, self.now(self.desk.publish(*items)), strict=True):
            topic, _, body = item.partition("/")
            log = self.told.setdefault((topic, position.epoch), [])
            log.append(body)
            assert position.offset == len(log)

    @rule(seconds=st.floats(0, TTL_S * 1.5))
    def wait(self, seconds: float) -> None:
        self.now(self.desk.clock.advance(seconds))

    @rule()
    def renew(self) -> None:
        self.now(self.desk.bus.renew())

    @rule(topic=TOPICS, back=st.integers(0, 6), limit=st.integers(1, 5), reverse=st.booleans())
    def ask(self, topic: str, back: int, limit: int, reverse: bool) -> None:
        for (told_topic, epoch), log in self.told.items():
            if told_topic != topic:
                continue
            offset = max(0, len(log) - back)
            page = self.now(self.desk.bus.history(topic, Position(epoch, offset), limit, reverse=reverse))
            bodies = [m.body.decode() for m in page.messages]
            wanted = log[: max(0, offset - 1)][::-1] if reverse else log[offset:]
            if page.complete:
                assert page.top == Position(epoch, len(log))
                assert bodies == wanted[:limit] or (reverse and bodies == wanted[: len(bodies)] and bodies)
            else:
                assert bodies == []

    @invariant()
    def every_sink_saw_every_message_in_order(self) -> None:
        seen: dict[tuple[str, str], list[str]] = {}
        for message in self.desk.seen:
            log = seen.setdefault((message.topic, message.epoch), [])
            log.append(message.body.decode())
            assert message.offset == len(log)
        assert seen == self.told


@pytest.mark.parametrize("name", sorted(BUSES))
def test_received_or_declared(name: str) -> None:
    class OfThisBus(Truth):
        make = staticmethod(registered(name))

    OfThisBus.TestCase.settings = hypothesis_settings(max_examples=examples(60), stateful_step_count=30)
    OfThisBus.TestCase("runTest").runTest()
