"""What every bus in the register must do, and one behind a lossy channel; a new one is tested by being registered."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, get_args

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headrace.adapters import Register
from headrace.bus import BUSES, REPEATS, Batch, Bus, Change, Lane, Writer
from headrace.bus.lanes import lane_of, publish_until_answered
from headrace.model.errors import FencedError, InvariantError, TransientError
from headrace.model.events import Label, Message, MessageKind, Position, Publication, TopicHandle
from headrace.runtime.clock import ManualClock
from headrace.testing.valkey import Valkey
from tests.contracts.contexts import Opener
from tests.contracts.lossy_bus import LossyBus
from tests.examples import examples
from tests.redis.servers import new_prefix

TTL_S = 60.0
SIZE = 4
TRIES_MAX = 200
SETTLED_TURNS = 30


WITH_LOSSY: Register[Bus] = Register("bus", {**BUSES, "lossy": "tests.contracts.lossy_bus:LossyBus"})

SERVERS: dict[str, str] = {}
"""The URL of the server that a bus needs; set once for all tests."""


@pytest.fixture(scope="module", autouse=True)
def servers(valkey: Valkey) -> None:
    SERVERS["redis"] = valkey.url


Open: TypeAlias = "Callable[..., Coroutine[Any, Any, BusInTest]]"


async def settle() -> None:
    """Let everything arrive that is on its way."""
    for _ in range(SETTLED_TURNS):
        await asyncio.sleep(0)


async def answered(
    writer: Writer, publications: Sequence[Publication], *, new_epoch: bool = False
) -> Sequence[Position]:
    """Publish one batch until the answer comes."""
    return await until_answered(writer, writer.batch(publications, new_epoch=new_epoch, positions=True))


async def until_answered(writer: Writer, batch: Batch) -> Sequence[Position]:
    for _ in range(TRIES_MAX):
        try:
            return await writer.publish(batch)
        except TransientError:
            continue
    raise TransientError("never answered")


class BusInTest:
    """A bus of its own with a clock that stands, a sink of everything, and the writers of all lanes."""

    def __init__(self, bus: Bus, clock: ManualClock) -> None:
        self.bus, self.clock = bus, clock
        self.seen: list[Message] = []
        self.writers: dict[Lane, Writer] = {}
        self.subscription = self.bus.subscribe(self.seen.extend, kinds=None)

    async def writer(self, lane: Lane) -> Writer:
        if lane not in self.writers:
            self.writers[lane] = await self.bus.claim(lane)
        return self.writers[lane]

    async def publish(self, *items: str) -> Sequence[Position]:
        """Publish "topic/body" items of one lane as one batch."""
        publications = [publication(item) for item in items]
        positions = await answered(await self.writer(lane_of(items[0]) if items else "ingest"), publications)
        await settle()
        return positions

    async def begin_epoch(self, lane: Lane = "ingest") -> None:
        await answered(await self.writer(lane), [], new_epoch=True)
        await settle()

    async def bodies(
        self, topic: str, since: Position | None = None, limit: int = 100, *, reverse: bool = False
    ) -> list[str]:
        page = await self.bus.history(topic, since, limit, reverse=reverse)
        assert page.complete
        return [message.body.decode() for message in page.messages]


def publication(item: str) -> Publication:
    topic, _, body = item.partition("/")
    return Publication.on(topic, "event", body.encode())


@asynccontextmanager
async def opener(name: str) -> AsyncIterator[Open]:
    """Yield the function that opens the bus called `name` for a test."""
    clock = ManualClock()
    async with Opener(WITH_LOSSY, name, clock) as adapters:

        async def open_bus(generation: str = "gen", **bounds: float) -> BusInTest:
            settings: dict[str, Any] = {"history_size": SIZE, "history_ttl_s": TTL_S, **bounds}
            if name == "redis":
                settings |= {"redis_url": SERVERS[name], "redis_prefix": new_prefix()}
            return BusInTest(await adapters.open(generation, **settings), clock)

        yield open_bus


@pytest.fixture(params=sorted(WITH_LOSSY))
async def open_bus(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    async with opener(request.param) as open_bus:
        yield open_bus


@pytest.fixture
async def tested(open_bus: Open) -> BusInTest:
    return await open_bus()


@pytest.fixture(params=sorted(BUSES))
async def tested_here(request: pytest.FixtureRequest) -> AsyncIterator[BusInTest]:
    """A bus whose sinks get a batch before `publish` returns."""
    async with opener(request.param) as open_bus:
        yield await open_bus()


async def test_offsets_count_from_one_in_each_topic(tested: BusInTest) -> None:
    positions = await tested.publish("a/1", "b/2", "a/3")
    assert [p.offset for p in positions] == [1, 1, 2]
    assert [(m.topic, m.offset, m.body, m.epoch) for m in tested.seen] == [
        ("a", 1, b"1", positions[0].epoch),
        ("b", 1, b"2", positions[1].epoch),
        ("a", 2, b"3", positions[2].epoch),
    ]
    assert await tested.bus.top("a") == positions[2]
    assert tested.bus.topics() == {"a": positions[2], "b": positions[1]}


async def test_a_message_is_carried_as_it_was_given(tested: BusInTest) -> None:
    labels = [Label("key", "event", 5, certain=True), Label("", "app:1", None, certain=False), None]
    given = [Publication.on("a", kind, b"x", label) for kind in get_args(MessageKind) for label in labels]
    await answered(await tested.writer("ingest"), given)
    await settle()
    for messages in (tested.seen, (await tested.bus.history("a", None, len(given))).messages):
        assert [(m.kind, m.body, m.label) for m in messages] == [(p.kind, p.body, p.label) for p in given][
            -len(messages) :
        ]


async def test_an_unknown_topic_is_where_its_first_message_will_follow(tested: BusInTest) -> None:
    before = await tested.bus.top("a")
    assert before.offset == 0
    assert await tested.bus.history("a", before, 10) == ([], before, True)
    assert await tested.publish("a/1") == [Position(before.epoch, 1)]
    assert await tested.bodies("a", before) == ["1"]


async def test_one_publication_on_several_topics_is_a_message_of_each_with_one_body(tested: BusInTest) -> None:
    a, b = TopicHandle("a"), TopicHandle("b")
    label = Label("key", "event", 5, certain=True)
    shared = Publication((a, b), "event", b"1", label)
    given = [shared, Publication((b,), "event", b"2"), Publication((), "event", b"3")]
    positions = await answered(await tested.writer("ingest"), given)
    await settle()
    assert [p.offset for p in positions] == [1, 1, 2], "in the order of the topics of each publication"
    assert [(m.topic, m.offset, m.body, m.label) for m in tested.seen] == [
        ("a", 1, b"1", label),
        ("b", 1, b"1", label),
        ("b", 2, b"2", None),
    ]
    assert tested.seen[0].body is tested.seen[1].body


async def test_handles_of_one_topic_publish_on_one_log(tested: BusInTest) -> None:
    writer = await tested.writer("ingest")
    first, second = TopicHandle("a"), TopicHandle("a")
    for handle in (first, second, first, second):
        await answered(writer, [Publication((handle,), "event", b"x")])
    await tested.publish("a/by name")
    assert [m.offset for m in tested.seen] == [1, 2, 3, 4, 5]


async def test_positions_are_for_who_asks(tested: BusInTest) -> None:
    writer = await tested.writer("ingest")
    for asks, offsets in ((False, []), (True, [2])):
        batch = writer.batch([publication("a/1")], positions=asks)
        for _ in range(2):
            assert [p.offset for p in await until_answered(writer, batch)] == offsets


async def test_a_message_carries_when_it_came(tested: BusInTest) -> None:
    await tested.clock.advance(5.0)
    await tested.publish("a/1", "b/1")
    await tested.clock.advance(1.5)
    await tested.publish("a/2")
    times = [m.at_s for m in tested.seen]
    assert [at_s - times[0] for at_s in times] == [0.0, 0.0, 1.5]
    assert times[-1] == tested.clock.monotonic()


async def test_a_handle_whose_topic_was_forgotten_publishes_in_the_new_epoch(open_bus: Open) -> None:
    tested = await open_bus(topics_max=2)
    writer, a, other = await tested.writer("ingest"), TopicHandle("a"), TopicHandle("a")
    (first,) = await answered(writer, [Publication((a,), "event", b"1")])
    await answered(writer, [Publication((other,), "event", b"2")])
    await tested.publish("b/1")
    await tested.publish("c/1")
    assert "a" not in tested.bus.topics()
    (again,) = await answered(writer, [Publication((other,), "event", b"3")])
    assert again.epoch != first.epoch
    assert await answered(writer, [Publication((a,), "event", b"4")]) == [Position(again.epoch, 2)]
    await settle()
    assert await tested.bodies("a") == ["3", "4"]
    assert set(tested.bus.topics()) == {"a", "c"}


async def test_a_handle_goes_on_after_silence_and_after_a_new_epoch(tested: BusInTest) -> None:
    writer, a = await tested.writer("ingest"), TopicHandle("a")
    publication = Publication((a,), "event", b"x")
    await answered(writer, [publication])
    await tested.clock.advance(TTL_S * 2)
    await tested.publish("b/1")
    (silent,) = await answered(writer, [publication])
    assert silent.offset == 2
    assert await tested.bodies("a", Position(silent.epoch, 1)) == ["x"]
    await tested.begin_epoch()
    (new,) = await answered(writer, [publication])
    assert (new.offset, new.epoch != silent.epoch) == (1, True)


async def test_one_handle_serves_two_buses(open_bus: Open) -> None:
    handle = TopicHandle("a")
    one, two = await open_bus(), await open_bus()
    for tested, count in ((one, 1), (two, 1), (one, 2), (one, 3), (two, 2)):
        (position,) = await answered(await tested.writer("ingest"), [Publication((handle,), "event", b"x")])
        await settle()
        assert position.offset == len(tested.seen) == count


async def test_a_handle_of_another_lane_is_refused_even_where_the_topic_is_known(tested: BusInTest) -> None:
    order = TopicHandle("order:1")
    await answered(await tested.writer("orders"), [Publication((order,), "event", b"x")])
    with pytest.raises(InvariantError, match="not its own"):
        await answered(await tested.writer("ingest"), [publication("a/1"), Publication((order,), "event", b"y")])
    await settle()
    assert [m.body for m in tested.seen] == [b"x"]


async def test_history_pages_forwards_and_backwards(tested: BusInTest) -> None:
    await tested.publish("a/1", "a/2", "a/3")
    epoch = (await tested.bus.top("a")).epoch
    assert await tested.bodies("a") == ["1", "2", "3"]
    assert await tested.bodies("a", limit=2) == ["1", "2"]
    assert await tested.bodies("a", Position(epoch, 1), 1) == ["2"]
    assert await tested.bodies("a", Position(epoch, 3)) == []
    assert await tested.bodies("a", reverse=True) == ["3", "2", "1"]
    assert await tested.bodies("a", Position(epoch, 3), 1, reverse=True) == ["2"]
    assert await tested.bodies("a", Position(epoch, 4), 9, reverse=True) == ["3", "2", "1"]
    assert await tested.bodies("a", Position(epoch, 1), 9, reverse=True) == []


async def test_size_makes_an_old_position_incomplete_and_empty(tested: BusInTest) -> None:
    await tested.publish(*(f"a/{n}" for n in range(1, SIZE + 3)))
    top = await tested.bus.top("a")
    assert await tested.bodies("a") == ["3", "4", "5", "6"]
    assert await tested.bodies("a", Position(top.epoch, 2)) == ["3", "4", "5", "6"]
    assert await tested.bus.history("a", Position(top.epoch, 1), 10) == ([], top, False)
    assert await tested.bus.history("a", Position(top.epoch, 2), 10, reverse=True) == ([], top, False)


async def test_time_makes_an_old_position_incomplete_and_empty(tested: BusInTest) -> None:
    await tested.publish("a/1")
    await tested.clock.advance(TTL_S / 2)
    await tested.publish("a/2")
    await tested.clock.advance(TTL_S / 2)
    top = await tested.bus.top("a")
    assert await tested.bodies("a") == ["2"]
    assert await tested.bus.history("a", Position(top.epoch, 0), 10) == ([], top, False)
    assert await tested.bodies("a", Position(top.epoch, 1)) == ["2"]
    await tested.clock.advance(TTL_S / 2)
    await tested.publish("b/1")
    assert await tested.bus.history("a", Position(top.epoch, 1), 10) == ([], top, False)
    assert await tested.bus.history("a", top, 10) == ([], top, True), "nothing was missed, silence is no loss"
    assert await tested.publish("a/3") == [Position(top.epoch, 3)], "a silent topic keeps its epoch"


@pytest.mark.parametrize("offset", [-1, 2, 99])
async def test_a_position_that_never_was_is_incomplete(tested: BusInTest, offset: int) -> None:
    await tested.publish("a/1")
    top = await tested.bus.top("a")
    assert await tested.bus.history("a", Position(top.epoch, offset), 10) == ([], top, False)
    assert await tested.bus.history("a", Position("other", 1), 10) == ([], top, False)


async def test_a_forgotten_topic_comes_back_under_a_new_epoch(open_bus: Open) -> None:
    tested = await open_bus(topics_max=2)
    (first,) = await tested.publish("a/1")
    await tested.publish("b/1")
    awaited = await tested.bus.top("c")
    assert await tested.publish("c/1") == [Position(awaited.epoch, 1)]
    assert set(tested.bus.topics()) == {"b", "c"}
    gone = await tested.bus.top("a")
    assert gone.offset == 0
    assert gone.epoch != first.epoch
    assert not (await tested.bus.history("a", first, 10)).complete
    assert await tested.publish("a/again") == [Position(gone.epoch, 1)]


BODY = "x" * 500


async def test_bytes_are_bounded_and_the_topic_unused_longest_gives_way_first(open_bus: Open) -> None:
    tested = await open_bus(history_bytes=4000)
    (quiet,) = await tested.publish(f"quiet/{BODY}")
    for number in range(20):
        await tested.clock.advance(0.1)
        await tested.publish(f"new {number}/{BODY}", f"busy/{number}{BODY}")
        kept = [body for topic in tested.bus.topics() for body in await tested.bodies(topic)]
        assert sum(map(len, kept)) <= 4000
    assert len(await tested.bodies("busy")) == SIZE
    assert await tested.bodies("quiet") == []
    assert await tested.bus.history("quiet", quiet, 10) == ([], quiet, True), "its position stays"
    assert not (await tested.bus.history("quiet", Position(quiet.epoch, 0), 10)).complete
    assert await tested.publish("quiet/again") == [Position(quiet.epoch, 2)]


async def test_one_topic_that_is_too_heavy_alone_keeps_its_newest(open_bus: Open) -> None:
    tested = await open_bus(history_bytes=2500)
    await tested.publish(*(f"a/{n}{BODY}" for n in range(SIZE)))
    kept = await tested.bodies("a")
    assert 1 <= len(kept) < SIZE
    assert kept[-1] == f"{SIZE - 1}{BODY}"
    await tested.publish("a/" + "y" * 9000)
    assert await tested.bodies("a") == []
    assert (await tested.bus.top("a")).offset == SIZE + 1
    assert len(tested.seen) == SIZE + 1, "live messages are not concerned"


async def test_a_multitude_of_topics_leaves_no_more_behind_than_the_bound(open_bus: Open) -> None:
    tested = await open_bus(topics_max=100)
    await tested.publish("hot/1")
    count = 4_000 if tested.bus.shared else 20_000
    for start in range(0, count, 100):
        await tested.publish("hot/again", *(f"account:{start + n}/x" for n in range(100)))
    assert len(tested.bus.topics()) == 100
    assert set(tested.bus.topics()) >= {f"account:{n}" for n in range(count - 99, count)}


async def test_without_history_every_position_but_the_newest_is_gone(open_bus: Open) -> None:
    tested = await open_bus(history_size=0)
    first, top = await tested.publish("a/1", "a/2")
    assert await tested.bodies("a") == []
    assert await tested.bus.history("a", top, 10) == ([], top, True)
    assert not (await tested.bus.history("a", first, 10)).complete


async def test_another_process_never_has_an_epoch_of_this_one(open_bus: Open) -> None:
    async def first_position(generation: str) -> tuple[Bus, Position]:
        bus = (await open_bus(generation)).bus
        (position,) = await answered(await bus.claim("ingest"), [publication("a/1")])
        await settle()
        return bus, position

    _, old = await first_position("first")
    after, new = await first_position("second")
    assert (old.offset, new.offset) == (1, 1)
    assert not (await after.history("a", old, 10)).complete
    _, again = await first_position("first")
    assert after.shared or again == old, "a replay that must be the same each time names its own"


# Writers and lanes.


async def test_a_batch_that_is_published_again_is_answered_with_its_first_positions(tested: BusInTest) -> None:
    writer = await tested.writer("ingest")
    batch = writer.batch([publication("a/1"), publication("b/1"), publication("a/2")], positions=True)
    answers = []
    for other in range(3):
        answers.append(await until_answered(writer, batch))
        await tested.publish(f"c/{other}")
    epoch = answers[0][0].epoch
    assert answers == [[Position(epoch, 1), Position(epoch, 1), Position(epoch, 2)]] * 3
    assert [m.body.decode() for m in tested.seen if m.topic != "c"] == ["1", "1", "2"]
    assert await tested.bodies("a") == ["1", "2"]


async def test_a_batch_from_long_ago_is_refused_because_nobody_knows_whether_it_was_appended(tested: BusInTest) -> None:
    writer = await tested.writer("ingest")
    batch = writer.batch([publication("a/1")])
    await until_answered(writer, batch)
    for other in range(REPEATS):
        await tested.publish(f"b/{other}")
    with pytest.raises(InvariantError, match="no longer known"):
        for _ in range(TRIES_MAX):
            with pytest.raises(TransientError):
                await writer.publish(batch)
    await settle()
    assert await tested.bodies("a") == ["1"]


async def test_publishing_until_an_answer_comes_appends_the_batch_once(open_bus: Open) -> None:
    tested = await open_bus()
    writer = await tested.writer("ingest")
    if isinstance(tested.bus, LossyBus):
        tested.bus.faults.extend(["answer lost", "request late", "request lost", "answer lost"])
    waiting = asyncio.create_task(publish_until_answered(writer, [publication("a/1")], tested.clock, positions=True))
    while not waiting.done():
        await tested.clock.advance(10.0)
    assert [p.offset for p in waiting.result()] == [1]
    await settle()
    assert [m.body for m in tested.seen] == [b"1"]


async def test_a_writer_is_refused_once_another_has_claimed_its_lane(tested: BusInTest) -> None:
    stale = await tested.writer("ingest")
    await tested.publish("a/1")
    fresh = tested.writers["ingest"] = await tested.bus.claim("ingest")
    for new_epoch in (False, True):
        with pytest.raises(FencedError):
            await answered(stale, [publication("a/stale")], new_epoch=new_epoch)
    await tested.publish("a/2")
    assert fresh.lane == "ingest"
    assert [m.body for m in tested.seen] == [b"1", b"2"]
    with pytest.raises(FencedError):
        await answered(stale, [publication("a/stale")])


async def test_a_token_that_is_not_above_all_before_it_claims_nothing(tested: BusInTest) -> None:
    tested.writers["orders"] = await tested.bus.claim("orders", 7)
    for token in (7, 6, 0):
        with pytest.raises(FencedError):
            await tested.bus.claim("orders", token)
    await tested.publish("order:1/a")
    await tested.bus.claim("orders", 8)
    with pytest.raises(FencedError):
        await tested.publish("order:1/b")


async def test_the_first_of_two_publishers_of_a_lane_is_refused(tested: BusInTest) -> None:
    first, second = await tested.bus.claim("orders"), await tested.bus.claim("orders")
    said = 0
    for writer in (first, second):
        try:
            await answered(writer, [publication("orders:u/news")])
            said += 1
        except FencedError:
            continue
    await settle()
    assert (said, [m.body for m in tested.seen]) == (1, [b"news"])


async def test_the_batches_of_two_writers_of_a_lane_are_not_confused(tested: BusInTest) -> None:
    await tested.publish("a/1")
    tested.writers["ingest"] = await tested.bus.claim("ingest")
    await tested.publish("a/2")
    assert await tested.bodies("a") == ["1", "2"]


async def test_a_claim_on_one_lane_leaves_the_others_alone(tested: BusInTest) -> None:
    await tested.publish("order:1/a")
    await tested.publish("app:x/b")
    await tested.bus.claim("ingest")
    await tested.publish("order:1/c")
    await tested.publish("user:u/d")
    assert [m.body for m in tested.seen] == [b"a", b"b", b"c", b"d"]


@pytest.mark.parametrize(("lane", "foreign"), [("ingest", "order:1"), ("orders", "slots"), ("broadcasts", "orders:u")])
async def test_a_topic_of_another_lane_is_refused_with_its_whole_batch(
    tested: BusInTest, lane: Lane, foreign: str
) -> None:
    own = {"ingest": "slots", "orders": "order:1", "broadcasts": "app:x"}[lane]
    await tested.publish(f"{foreign}/known")
    for topic in (foreign, f"{foreign}9"):
        if lane_of(topic) != lane:
            with pytest.raises(InvariantError, match="not its own"):
                await answered(await tested.writer(lane), [publication(f"{own}/1"), publication(f"{topic}/2")])
    await settle()
    assert [m.body for m in tested.seen] == [b"known"]
    assert [p.offset for p in await tested.publish(f"{own}/3")] == [1]


# Epochs.


async def test_a_new_epoch_begins_every_topic_of_its_lane_anew_and_no_other(tested: BusInTest) -> None:
    (old,) = await tested.publish("a/1")
    (order,) = await tested.publish("order:1/a")
    await tested.begin_epoch()
    assert tested.bus.topics() == {"order:1": order}
    assert not (await tested.bus.history("a", old, 10)).complete
    (new,) = await tested.publish("a/1")
    assert new.offset == 1
    assert new.epoch != old.epoch
    assert await tested.publish("order:1/b") == [Position(order.epoch, 2)]


async def test_an_epoch_that_is_asked_for_again_begins_once(tested: BusInTest) -> None:
    writer = await tested.writer("ingest")
    batch = writer.batch([publication("a/1")], new_epoch=True, positions=True)
    answers: list[Sequence[Position]] = []
    while len(answers) < 2:
        try:
            answers.append(await writer.publish(batch))
        except TransientError:
            continue
    await settle()
    assert answers[0] == answers[1] == [await tested.bus.top("a")]
    assert [m.offset for m in tested.seen] == [1]


async def test_a_new_epoch_reaches_sinks_without_a_message_and_between_the_right_ones(tested: BusInTest) -> None:
    heard: list[object] = []
    tested.bus.subscribe(lambda messages: heard.extend(m.body for m in messages), kinds=("a",), changed=heard.append)
    await tested.publish("a/1", "b/1")
    await tested.publish("order:1/x")
    await tested.begin_epoch()
    assert heard == [b"1", Change("new_epoch", ["a"])]
    await tested.publish("a/2")
    await tested.begin_epoch("orders")
    assert heard == [b"1", Change("new_epoch", ["a"]), b"2"]


async def test_topics_that_are_forgotten_are_reported_to_who_wants_them(open_bus: Open) -> None:
    tested, heard = await open_bus(topics_max=2), list[Change]()
    tested.bus.subscribe(lambda messages: None, kinds=("account",), changed=heard.append)
    await tested.publish("account:1/x", "slots/x")
    await tested.publish("account:2/x", "slots/x")
    assert heard == [Change("new_epoch", ["account:1"])]


# Sinks.


class Interested:
    """A sink that remembers the topics of what it got."""

    def __init__(self, bus: Bus, **interest: Any) -> None:
        self.topics: list[str] = []
        self.subscription = bus.subscribe(self.take, **interest)

    def take(self, messages: Sequence[Message]) -> None:
        self.topics += [message.topic for message in messages]


EVERY_KIND = ["slots", "token:M", "token_updates", "market-data", "market-data:M"]


@pytest.mark.parametrize(
    ("kinds", "got"),
    [
        ((), []),
        (None, EVERY_KIND),
        (("token",), ["token:M"]),
        (("token_updates", "slots"), ["slots", "token_updates"]),
        (("market-data",), ["market-data", "market-data:M"]),
    ],
)
async def test_a_sink_gets_the_kinds_that_it_subscribed(tested: BusInTest, kinds: Any, got: list[str]) -> None:
    await tested.publish("slots/before")
    interested = Interested(tested.bus, kinds=kinds)
    await tested.publish(*(f"{topic}/x" for topic in EVERY_KIND))
    assert interested.topics == got


async def test_topics_come_and_go_from_an_interest(tested: BusInTest) -> None:
    interested = Interested(tested.bus, kinds=("slots",))
    both = ("account:1/x", "account:2/x", "slots/x")
    await tested.publish(*both)
    for topic in ("account:1", "account:new", "slots"):
        interested.subscription.add(topic)
    await tested.publish(*both, "account:new/x")
    for topic in ("account:1", "slots", "never"):
        interested.subscription.remove(topic)
    await tested.publish(*both)
    assert interested.topics == ["slots", "account:1", "slots", "account:new", "slots"]


async def test_a_sink_gets_what_comes_after_it_until_it_leaves(tested: BusInTest) -> None:
    late: list[Message] = []
    await tested.publish("a/1")
    tested.bus.subscribe(late.extend, kinds=("a",))
    await tested.publish("a/2")
    tested.subscription.close()
    tested.subscription.close()
    await tested.publish("a/3")
    assert [m.offset for m in tested.seen] == [1, 2]
    assert [m.offset for m in late] == [2, 3]


async def test_a_message_that_a_sink_gets_is_in_the_view(tested: BusInTest) -> None:
    tops: list[tuple[int, int]] = []

    def look(messages: Sequence[Message]) -> None:
        known = tested.bus.topics()
        tops.extend((message.offset, known[message.topic].offset) for message in messages)

    tested.bus.subscribe(look, kinds=None)
    await tested.publish("a/1", "a/2")
    await tested.publish("a/3")
    assert tops == [(1, 2), (2, 2), (3, 3)]


async def test_in_one_process_a_slow_sink_slows_the_publisher_and_loses_nothing(tested_here: BusInTest) -> None:
    tested, heard = tested_here, list[str]()

    def slow(batch: Sequence[Message]) -> None:
        heard.extend(f"sink {message.offset}" for message in batch)

    tested.bus.subscribe(slow, kinds=None)
    for number in range(3):
        await tested.publish(f"a/{number}")
        heard.append("published")
    assert heard == ["sink 1", "published", "sink 2", "published", "sink 3", "published"]


async def test_in_one_process_a_sink_that_raises_hurts_no_other_and_repeats_nothing(
    tested_here: BusInTest,
) -> None:
    tested = tested_here

    def broken(batch: Sequence[Message]) -> None:
        raise RuntimeError("sink bug")

    after: list[Message] = []
    subscription = tested.bus.subscribe(broken, kinds=None)
    tested.bus.subscribe(after.extend, kinds=None)
    writer = await tested.writer("ingest")
    batch = writer.batch([publication("a/1")], positions=True)
    with pytest.raises(RuntimeError, match="sink bug"):
        await writer.publish(batch)
    assert [p.offset for p in await writer.publish(batch)] == [1]
    subscription.close()
    await tested.publish("a/2")
    assert [m.offset for m in tested.seen] == [m.offset for m in after] == [1, 2]


async def test_a_closed_bus_is_away(tested: BusInTest) -> None:
    writer = await tested.writer("ingest")
    await tested.bus.close()
    await tested.bus.close()
    with pytest.raises(TransientError):
        await writer.publish(writer.batch([publication("a/1")]))
    with pytest.raises(TransientError):
        await tested.bus.history("a", None, 1)
    with pytest.raises(TransientError):
        await tested.bus.top("a")
    with pytest.raises(TransientError):
        await tested.bus.claim("ingest")
    with pytest.raises(TransientError):
        tested.bus.subscribe(tested.seen.extend)
    assert tested.seen == []


TOPICS = st.sampled_from("abcdef")


class Truth(RuleBasedStateMachine):
    """Whatever happens, what a client asks with a position it once had is answered whole or declared incomplete."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = self.runner.run
        self.opener = opener(self.name)
        open_bus = self.now(self.opener.__aenter__())
        self.tested = self.now(open_bus(topics_max=3, history_bytes=1200))
        self.log: dict[tuple[str, str], list[str]] = {}  # (topic, epoch) → all bodies ever appended, in order
        self.count = 0
        self.handles = {topic: TopicHandle(topic) for topic in "abcdef"}

    name: str

    def teardown(self) -> None:
        self.now(self.opener.__aexit__(None, None, None))
        self.runner.close()

    @rule(publications=st.lists(st.lists(TOPICS, max_size=3), max_size=8), kept=st.booleans())
    def publish(self, publications: list[list[str]], kept: bool) -> None:
        given, wanted = list[Publication](), list[tuple[str, str]]()
        for topics in publications:
            self.count += 1
            handles = [self.handles[topic] if kept else TopicHandle(topic) for topic in topics]
            given.append(Publication(tuple(handles), "event", b"%d" % self.count))
            wanted += [(topic, str(self.count)) for topic in topics]
        positions = self.now(self.published(given))
        for (topic, body), position in zip(wanted, positions, strict=True):
            log = self.log.setdefault((topic, position.epoch), [])
            log.append(body)
            assert position.offset == len(log)

    async def published(self, publications: Sequence[Publication]) -> Sequence[Position]:
        positions = await answered(await self.tested.writer("ingest"), publications)
        await settle()
        return positions

    @rule(seconds=st.floats(0, TTL_S * 1.5))
    def wait(self, seconds: float) -> None:
        self.now(self.tested.clock.advance(seconds))

    @rule()
    def begin_epoch(self) -> None:
        self.now(self.tested.begin_epoch())

    @rule(topic=TOPICS, back=st.integers(0, 6), limit=st.integers(1, 5), reverse=st.booleans())
    def ask(self, topic: str, back: int, limit: int, reverse: bool) -> None:
        for (logged_topic, epoch), log in self.log.items():
            if logged_topic != topic:
                continue
            offset = max(0, len(log) - back)
            page = self.now(self.tested.bus.history(topic, Position(epoch, offset), limit, reverse=reverse))
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
        for message in self.tested.seen:
            log = seen.setdefault((message.topic, message.epoch), [])
            log.append(message.body.decode())
            assert message.offset == len(log)
        assert seen == self.log


@pytest.mark.parametrize("name", sorted(WITH_LOSSY))
def test_received_or_declared(name: str) -> None:
    machine: Any = type("OfThisBus", (Truth,), {"name": name})
    machine.TestCase.settings = hypothesis_settings(
        max_examples=examples(20 if name == "redis" else 60), stateful_step_count=30
    )
    machine.TestCase("runTest").runTest()
