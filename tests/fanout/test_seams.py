"""Delivery against a model: whatever is published, filtered, awaited, paused and renewed, no hole and no repeat."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from headrace.fanout.catch_up import catch_up
from headrace.fanout.hub import Hub
from headrace.model.errors import TransientError
from headrace.model.events import Message, Position, Publication, TopicEpoch
from headrace.protocol.codes import CloseCode
from headrace.protocol.filters import parse_filter
from headrace.protocol.frames import OnSlow
from headrace.protocol.selection import Conflate
from headrace.protocol.session import Subscribe
from tests.examples import examples
from tests.fanout.hub_machine import HesitatingBus, HubMachine, WiredClient

T = TypeVar("T")
TOPICS = ("slots", "token_updates")
HOW: tuple[tuple[bool, OnSlow], ...] = (
    (False, "disconnect"),
    (True, "disconnect"),
    (False, "drop_oldest"),
    (True, "drop_oldest"),
    (True, "conflate"),
)
"""Whether a subscription conflates, and what it wishes when it is slow."""


class Entry(NamedTuple):
    """A message of the model: where it is, and its event's `data.k`; None for a record, which is no event."""

    at: Position
    k: str | None


@dataclass
class Wish:
    """A subscription as a listener asked for it, and where it is: `place` is the index of what may come next.

    `owed` are values of `k` of which an event was left out: by conflation, so a later one must follow.
    """

    since: Position | None
    only: frozenset[str] | None
    conflate: bool
    on_slow: OnSlow
    place: int | None = None
    owed: set[str] = field(default_factory=set)

    def passes(self, entry: Entry) -> bool:
        return self.only is None or entry.k is None or entry.k in self.only

    def of(self, entries: Sequence[Entry]) -> list[Entry]:
        return [entry for entry in entries if self.passes(entry)]

    def thinned(self, entries: Sequence[Entry]) -> list[Entry]:
        """What is left of those that pass, if they are conflated."""
        passing = self.of(entries)
        if not self.conflate:
            return passing
        last = {entry.k: entry for entry in passing}
        return [entry for entry in passing if entry.k is None or last[entry.k] is entry]

    def command(self, topic: str) -> Subscribe:
        chosen = None
        if self.only is not None:
            chosen = parse_filter(json.dumps({"key": "k", "cmp": "in", "vals": sorted(self.only)}).encode())
        return Subscribe(topic, None, self.since, chosen, Conflate("k", 50) if self.conflate else None, self.on_slow)


WISHES = st.builds(
    lambda only, how: Wish(None, only, *how),
    st.sampled_from([None, frozenset("a"), frozenset("ab"), frozenset("z")]),
    st.sampled_from(HOW),
)


KS = st.lists(st.sampled_from(["a", "a", "b", "c", None]), min_size=1, max_size=9)


class Listener(WiredClient):
    """A client that checks every frame of each topic that it has."""

    def __init__(self, hub: Hub, batch: bool, model: "Seams") -> None:
        super().__init__(hub, batch)
        self.model = model
        self.wishes: dict[str, Wish] = {}

    def not_subscribed(self, topic: str) -> None:
        self.wishes.pop(topic)

    def check(self) -> None:
        for got in self.pipe.frames():
            topic = got.get("topic")
            if got["type"] == "error":
                continue
            wish, log = self.wishes[topic], self.model.log[topic]
            if got["type"] == "subscribed":
                self._check_ack(wish, topic, got["data"])
            elif got["type"] == "lag":
                self._check_lag(wish, log, got["data"])
            else:
                self._check_message(wish, log, Position(got["epoch"], int(got["offset"])))

    def _check_ack(self, wish: Wish, topic: str, data: Any) -> None:
        since, top = wish.since, Position(data["epoch"], int(data["offset"]))
        assert wish.place is None, "an ack comes once, before everything else"
        assert data["was_recovering"] == (since is not None)
        wish.place = self.model.index(topic, top)
        if data["recovered"]:
            assert since is not None
            assert since.epoch == top.epoch
            end, wish.place = wish.place, self.model.index(topic, since)
            assert data["replayed"] == len(wish.thinned(self.model.log[topic][wish.place : end]))
        else:
            assert data["replayed"] == 0

    def _check_message(self, wish: Wish, log: list[Entry], at: Position) -> None:
        assert wish.place is not None
        index = next(i for i in range(wish.place, len(log)) if log[i].at == at)  # else it is a repeat
        entry = log[index]
        assert wish.passes(entry)
        for skipped in wish.of(log[wish.place : index]):
            assert wish.conflate, "a hole"
            assert skipped.k is not None, "records are not conflated"
            wish.owed.add(skipped.k)
        wish.place = index + 1
        wish.owed.discard(entry.k or "")

    def _check_lag(self, wish: Wish, log: list[Entry], data: Any) -> None:
        assert wish.place is not None
        first, to = int(data["from_offset"]), int(data["to_offset"])
        last = next(i for i in range(wish.place, len(log)) if log[i].at == (data["epoch"], to))
        begin = last - (to - first)
        for skipped in wish.of(log[wish.place : begin]):
            assert wish.conflate and skipped.k is not None, "a hole before a lag"
            wish.owed.add(skipped.k)
        told = log[begin : last + 1]
        assert data["dropped"] > 0
        assert {entry.at.epoch for entry in told} == {log[last].at.epoch}
        passing = wish.of(told)
        if data["dropped"] == len(passing):
            wish.place = last + 1
            wish.owed -= {entry.k for entry in passing if entry.k is not None}
        else:
            assert wish.on_slow == "conflate"
            assert data["dropped"] == len(passing) - len(wish.thinned(told))
            wish.place = max(wish.place, begin)

    def check_tops(self) -> None:
        """What `ping` would say: whoever recovers from there misses nothing."""
        self.flush()
        self.check()
        for topic, offset in self.hub.tops(self).items():
            wish = self.wishes[topic]
            if wish.place is not None and not wish.conflate:
                rest = wish.of(self.model.log[topic][wish.place :])
                epochs = {entry.at.epoch for entry in self.model.log[topic][max(0, wish.place - 1) :]}
                assert len(epochs) > 1 or not rest or rest[0].at.offset > offset, "tops are ahead"


class Seams(HubMachine[Listener]):
    """Rules are what may happen; `log` is everything that was ever published, in order."""

    @initialize(first=st.lists(st.tuples(st.booleans(), WISHES), min_size=1, max_size=5))
    def begin(self, first: list[tuple[bool, Wish]]) -> None:
        self.log: dict[str, list[Entry]] = {topic: [] for topic in TOPICS}
        self.begins: dict[tuple[str, str], int] = {}
        self.start(history_size=25)
        for batch, wish in first:
            self.connect(batch)
            self._subscribe(self.listeners[-1], TOPICS[0], None, wish)

    async def note_epoch(self) -> None:
        epoch = (await self.bus.bus.top("none")).epoch
        for topic in TOPICS:
            self.begins[topic, epoch] = len(self.log[topic])

    def index(self, topic: str, at: Position) -> int:
        return self.begins[topic, at.epoch] + at.offset

    @rule(topic=st.sampled_from([TOPICS[0], *TOPICS]), ks=KS, size=st.sampled_from([0, 0, 20_000]))
    def publish(self, topic: str, ks: list[str | None], size: int) -> None:
        async def work() -> None:
            pad = b"x" * size
            batch = [
                Publication.on(topic, "gap", b'"data":{"pad":"%b"}' % pad)
                if k is None
                else Publication.on(topic, "event", b'"data":{"k":"%b","pad":"%b"}' % (k.encode(), pad))
                for k in ks
            ]
            positions = await self.bus.publish(batch)
            self.log[topic] += [Entry(at, k) for at, k in zip(positions, ks, strict=True)]

        self.run(work())

    @precondition(lambda self: self.listeners)
    @rule(data=st.data(), ks=KS, later=KS, ticks=st.integers(0, 2), ended=st.booleans())
    def stall_one(
        self, data: st.DataObject, ks: list[str | None], later: list[str | None], ticks: int, ended: bool
    ) -> None:
        """One can't take what comes, while more comes."""
        self.publish(TOPICS[0], ks, 0)
        if ended:
            self.hub.windows.end_all()
        self.fill_or_free(data)
        self.publish(TOPICS[0], later, 0)
        for _ in range(ticks):
            self.tick()

    @rule(seconds=st.sampled_from([0.01, 0.03, 0.2]))
    def time_passes(self, seconds: float) -> None:
        async def work() -> None:
            await self.clock.advance(seconds)
            self.hub.windows.round()

        self.run(work())

    @rule()
    def ask_for_tops(self) -> None:
        for listener in self.listeners:
            if listener.closed_with is None:
                listener.check_tops()

    @precondition(lambda self: len(self.listeners) < 6)
    @rule(batch=st.booleans())
    def connect_one(self, batch: bool) -> None:
        self.connect(batch)

    def connect(self, batch: bool) -> None:
        self.listeners.append(Listener(self.hub, batch, self))

    @precondition(lambda self: self._unasked())
    @rule(data=st.data(), back=st.one_of(st.none(), st.integers(0, 30)), wish=WISHES)
    def subscribe(self, data: st.DataObject, back: int | None, wish: Wish) -> None:
        listener, topic = data.draw(st.sampled_from(self._unasked()))
        self._subscribe(listener, topic, back, wish)

    @precondition(lambda self: self._unasked())
    @rule(data=st.data(), back=st.integers(0, 30), wish=WISHES, ks=KS)
    def subscribe_while_more_comes(self, data: st.DataObject, back: int, wish: Wish, ks: list[str | None]) -> None:
        mode, self.bus.mode = self.bus.mode, "old answer"
        listener, topic = data.draw(st.sampled_from(self._unasked()))
        self._subscribe(listener, topic, back, wish)
        self.bus.mode = mode
        self.publish(topic, ks, 0)
        if self.bus.waiting:
            self.release(data)

    def _unasked(self) -> list[tuple[Listener, str]]:
        open_ones = [listener for listener in self.listeners if listener.closed_with is None]
        return [(listener, topic) for listener in open_ones for topic in TOPICS if topic not in listener.wishes]

    def _subscribe(self, listener: Listener, topic: str, back: int | None, wish: Wish) -> None:
        log, since = self.log[topic], None
        if back is not None and log:
            since = log[max(0, len(log) - 1 - back)].at
        wish = listener.wishes[topic] = replace(wish, since=since, owed=set())
        self.hub.subscribe(listener, wish.command(topic))
        self.run(asyncio.sleep(0))

    @precondition(lambda self: any(listener.wishes for listener in self.listeners))
    @rule(data=st.data())
    def unsubscribe(self, data: st.DataObject) -> None:
        asked = [(listener, topic) for listener in self.listeners for topic in listener.wishes]
        listener, topic = data.draw(st.sampled_from(asked))
        self.hub.unsubscribe(listener, topic)
        listener.flush()
        listener.check()
        listener.wishes.pop(topic, None)

    @precondition(lambda self: self.listeners)
    @rule(data=st.data())
    def fill_or_free(self, data: st.DataObject) -> None:
        listener = data.draw(st.sampled_from(self.listeners))
        if listener.closed_with is None:
            self.fill(listener, full=not listener.paused)
            self.run(asyncio.sleep(0))

    def check_end(self, listener: Listener) -> None:
        for topic, wish in listener.wishes.items():
            assert not wish.of(self.log[topic][wish.place :]), "something never came"
            assert not wish.owed, "the latest never came"


TestSeams = Seams.TestCase
TestSeams.settings = settings(max_examples=examples(200), stateful_step_count=50)


@pytest.mark.parametrize("missed", [0, 3])
def test_a_client_that_joined_within_a_window_and_stalled_loses_nothing_unreported(missed: int) -> None:
    """It is ahead of those who are live: what they get next is not for it."""
    seams = Seams()
    wish = Wish(None, None, True, "drop_oldest")
    seams.begin([(False, wish)])
    seams.publish(TOPICS[0], ["a", "b", "a"], 0)
    seams.connect(False)
    newcomer = seams.listeners[-1]
    seams._subscribe(newcomer, TOPICS[0], None, wish)
    seams.hub.pause(newcomer)
    if missed:
        seams.publish(TOPICS[0], ["c"] * missed, 0)
    seams.hub.resume(newcomer)
    seams.run(seams.hub.flush())
    assert newcomer.wishes[TOPICS[0]].place == 3 + missed
    seams.teardown()


def test_a_new_epoch_during_a_conflating_replay_ends_the_connection() -> None:
    """A lag counts within one epoch: it must come back, and begin in the new one."""
    seams = Seams()
    seams.begin([(False, Wish(None, None, True, "conflate"))])
    listener = seams.listeners[0]
    seams.hub.pause(listener)
    seams.publish(TOPICS[0], ["a", "a"], 0)
    seams.hesitate("old answer")
    seams.hub.resume(listener)
    seams.run(asyncio.sleep(0))
    seams.publish(TOPICS[0], ["a"], 0)
    seams.renew()
    seams.publish(TOPICS[0], ["a", "a"], 0)
    while seams.bus.waiting:
        seams.bus.let_go(0)
        seams.run(asyncio.sleep(0))
    seams.run(seams.hub.flush())
    assert listener.closed_with == CloseCode.INSUFFICIENT_STATE
    seams.teardown()


def messages(*places: tuple[str, int]) -> list[Message]:
    return [Message(TopicEpoch("slots", epoch), "event", offset, b"") for epoch, offset in places]


async def everything(page: list[Message]) -> list[Message]:
    return page


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
async def test_the_tail_begins_after_the_top(answers: Any, top: tuple[str, int], tail: list[tuple[str, int]]) -> None:
    held: list[Message] = []
    found = await catch_up(ScriptedBus(answers, held), "slots", None, held, 100, everything)
    assert found.top == top
    assert [(message.epoch, message.offset) for message in found.tail] == tail


async def test_a_bus_that_keeps_changing_is_unavailable() -> None:
    held: list[Message] = []
    answers = [(Position("a", 1), messages((f"b{n}", 1))) for n in range(100)]
    with pytest.raises(TransientError):
        await catch_up(ScriptedBus(answers, held), "slots", None, held, 100, everything)
