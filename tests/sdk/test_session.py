"""The client's machine against a server that is cut, restarted, trimmed, and that loses and repeats messages."""

import json
from collections import Counter, deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.events import Position
from headrace.sdk.feed import Feed, Standing, Wanted
from headrace.sdk.incoming import Unreadable
from headrace.sdk.session import Again, Answered, Call, Given, Leave, Refresh, Session, history_call
from headrace.sdk.values import Event, Lag, NotRecovered, Refused, Value
from tests.examples import examples

TOPIC = "trades:pump"


class ClientAndServer:
    """One client, one server with one topic, and the frames under way between them."""

    def __init__(self, capacity: int) -> None:
        self.epoch, self.top, self.floor = 0, 0, 0
        self.subscribed = False
        self.wire: deque[dict[str, Any]] = deque()
        self.lost: Counter[tuple[int, int]] = Counter()
        """(epoch, offset) → how often it was lost on the way."""
        self.withheld: set[tuple[int, int]] = set()
        self.session = Session()
        self.feed = Feed(Wanted(TOPIC), capacity)
        self.session.subscribe(self.feed)
        self.read: list[Value] = []
        self.began: Position | None = None
        self.connect()

    def connect(self) -> None:
        self.subscribed = False
        self.wire.clear()
        self.session.opened(None)
        self.say("welcome", {"connection_id": "c", "ping_s": 25, "pong_s": 8})

    def say(self, kind: str, data: Any, **more: Any) -> None:
        self.wire.append({"type": kind, "data": data, **more})

    def event(self, offset: int) -> None:
        if (self.epoch, offset) in self.withheld:
            return
        self.say("event", {}, topic=TOPIC, epoch=f"e{self.epoch}", offset=str(offset), event_id="i")

    # What may happen.

    def publish(self, count: int) -> None:
        for _ in range(count):
            self.top += 1
            if self.subscribed:
                self.event(self.top)

    def deliver(self, count: int) -> None:
        for _ in range(min(count, len(self.wire))):
            for notice in self.session.receive(json.dumps(self.wire.popleft())):
                if isinstance(notice, Again):
                    self.session.again(notice.ask)
            self.answer()

    def take(self, count: int) -> None:
        for _ in range(min(count, len(self.feed.items))):
            value, position = self.feed.items.popleft()
            if value is not None:
                self.read.append(value)
            elif self.began is None:
                self.began = position
        if not self.feed.items:
            self.session.emptied(self.feed)
            self.answer()

    def cut(self, _: int) -> None:
        self.session.closed()
        self.connect()

    def renew(self, _: int) -> None:
        self.epoch, self.top, self.floor = self.epoch + 1, 0, 0

    def trim(self, count: int) -> None:
        self.floor = min(self.top, self.floor + count)

    def lose(self, at: int) -> None:
        if at < len(self.wire) and self.wire[at]["type"] == "event":
            event = self.wire[at]  # maybe of an earlier epoch
            self.lost[int(event["epoch"][1:]), int(event["offset"])] += 1
            del self.wire[at]

    def withhold(self, count: int) -> None:
        """The server will leave out what it publishes next, however often it is asked."""
        self.withheld |= {(self.epoch, self.top + 1 + ahead) for ahead in range(count)}

    def repeat(self, at: int) -> None:
        if at < len(self.wire) and self.wire[at]["type"] == "event":
            self.wire.insert(at, self.wire[at])

    def answer(self) -> None:
        """The server obeys what the client sent."""
        while self.session.outbox:
            command = json.loads(self.session.outbox.popleft())
            match command["type"]:
                case "unsubscribe":
                    self.subscribed = False
                    self.say("unsubscribed", None, id=command["id"], topic=TOPIC)
                case "subscribe" if self.subscribed:
                    self.say("error", {"code": 105, "message": "already subscribed"}, id=command["id"])
                case "subscribe":
                    self.subscribe(command)

    def subscribe(self, command: Any) -> None:
        since = command["data"].get("recover")
        last = int(since["offset"]) if since else 0
        recovered = bool(since) and since["epoch"] == f"e{self.epoch}" and self.floor <= last <= self.top
        data = {
            "epoch": f"e{self.epoch}",
            "offset": str(self.top),
            "was_recovering": bool(since),
            "recovered": recovered,
        }
        self.subscribed = True
        self.say("subscribed", data, id=command["id"], topic=TOPIC)
        for offset in range(last + 1, self.top + 1) if recovered else ():
            self.event(offset)

    def settle(self) -> None:
        """Nothing happens any more until everything has come."""
        for _ in range(200):
            self.deliver(1000)
            self.take(1000)
        assert not self.wire
        assert self.feed.standing is Standing.LIVE

    def check(self) -> None:
        """The reader can tell where it is, at every step, and it is at the top."""
        here = self.began
        for value in self.read:
            match value:
                case Event(position=position):
                    assert here is not None
                    assert position == Position(here.epoch, here.offset + 1), "an undeclared loss, a repeat or a mix-up"
                    here = position
                case NotRecovered(before=before, now=now):
                    assert before == here
                    here = now
                case Lag():
                    assert here is not None
                    assert value.from_offset == here.offset + 1
                    assert value.dropped == value.to_offset - here.offset
                    first = int(here.epoch[1:]), value.from_offset  # what came behind it was not taken either time
                    assert first in self.withheld or self.lost[first] > 1, "given up too soon"
                    here = value.position
        assert here == self.feed.last == Position(f"e{self.epoch}", self.top)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["publish", "deliver", "take", "cut", "renew", "trim", "lose", "withhold", "repeat"]),
        st.integers(0, 6),
    ),
    max_size=60,
)


@settings(max_examples=examples(400))
@given(STEPS, st.integers(1, 8))
def test_nothing_is_lost_repeated_or_reordered_in_silence(steps: list[tuple[str, int]], capacity: int) -> None:
    pair = ClientAndServer(capacity)
    pair.deliver(2)
    for step, count in steps:
        getattr(pair, step)(count)
    pair.settle()
    pair.withheld.discard((pair.epoch, pair.top + 1))
    pair.publish(1)  # what the server lost last shows with what comes next
    pair.settle()
    pair.check()


@settings(max_examples=examples(200))
@given(STEPS, st.integers(1, 8))
def test_a_full_feed_falls_behind_and_stays_within_its_capacity(steps: list[tuple[str, int]], capacity: int) -> None:
    pair = ClientAndServer(capacity)
    for step, count in steps:
        getattr(pair, step)(count)
        assert len(pair.feed.items) <= capacity + 2  # and what was lost is told all the same
        assert len(pair.session.outbox) == 0


def live(*wanted: Wanted) -> tuple[Session, list[Feed]]:
    """A session with these topics, all answered."""
    session = Session()
    feeds = [Feed(each, 4) for each in wanted]
    for feed in feeds:
        session.subscribe(feed)
    session.opened(None)
    session.receive('{"type":"welcome","data":{"connection_id":"c","ping_s":25,"pong_s":8}}')
    for command in map(json.loads, list(session.outbox)):
        answer(session, command)
    session.outbox.clear()
    return session, feeds


def answer(session: Session, command: Any, kind: str = "subscribed", **data: Any) -> Any:
    data = data or {"epoch": "e", "offset": "0"}
    topic = command["data"]["topic"]
    return session.receive(json.dumps({"type": kind, "id": command["id"], "topic": topic, "data": data}))


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "7", "null", '{"type":7}', '{"data":{}}', "[" * 2000, '{"type":"event","topic":"a","data":{}}',
        '{"type":"event","topic":"a","epoch":"e","offset":"-1","data":{}}',
        '{"type":"event","topic":"a","epoch":"e","offset":"x","data":{}}',
        '{"type":"gap","topic":"a","epoch":"e","offset":"1","data":{"state":"mended"}}',
        '{"type":"welcome","data":null}', '{"type":"ping","data":{"tops":{"a":"x"}}}', '{"type":"error","data":{}}',
        '{"type":"subscribed","id":1}',
    ],
)  # fmt: skip
def test_an_unreadable_frame_ends_the_connection(text: str) -> None:
    session, _ = live(Wanted("a"))
    with pytest.raises(Unreadable):
        session.receive(text)


@given(st.text() | st.from_regex(r'\{"type":"(event|ping|lag|snapshot|error|history)","data":.*\}'))
def test_any_text_is_read_or_raises_unreadable_or_refused(text: str) -> None:
    session, _ = live(Wanted("a"))
    try:
        session.receive(text)
    except (Unreadable, Refused):
        pass


@pytest.mark.parametrize("text", ['{"type":"news","data":[1]}', '{"type":"event","topic":"b"}', '{"type":"lag"}'])
def test_frames_of_unknown_topics_and_types_change_nothing(text: str) -> None:
    session, (feed,) = live(Wanted("a"))
    assert session.receive(text) == []
    assert [item.value for item in feed.items] == [None]


def test_commands_beyond_the_limit_wait_for_answers() -> None:
    session = Session()
    feeds = [Feed(Wanted(f"t{number}"), 4) for number in range(20)]
    for feed in feeds:
        session.subscribe(feed)
    session.receive('{"type":"welcome","data":{"connection_id":"c","ping_s":25,"pong_s":8}}')
    asked = 0
    while session.outbox:
        assert len(session.outbox) <= 8
        answer(session, json.loads(session.outbox.popleft()))
        asked += 1
    assert asked == 20
    assert all(feed.standing is Standing.LIVE for feed in feeds)


def test_following_a_topic_twice_is_refused() -> None:
    session, (feed,) = live(Wanted("a"))
    with pytest.raises(ValueError, match="a: already subscribed"):
        session.subscribe(Feed(Wanted("a"), 4))
    session.leave(feed)
    session.subscribe(again := Feed(Wanted("a"), 4))
    leave, enter = map(json.loads, session.outbox)
    assert (leave["type"], enter["type"]) == ("unsubscribe", "subscribe")
    session.receive('{"type":"event","topic":"a","epoch":"e","offset":"1","event_id":"i","data":{}}')
    assert not again.items  # that was the first one's


def test_a_temporary_error_is_asked_again_and_a_final_error_is_raised() -> None:
    session, (feed,) = live(Wanted("a"))
    call = history_call("a", None, 10, reverse=False)
    session.call(call)
    command = json.loads(session.outbox.popleft())
    refusal = {"code": 111, "message": "too many commands", "temporary": True, "retry_after_ms": 50}
    assert answer(session, command, "error", **refusal) == [Again(call, 0.05)]
    session.again(call)
    command = json.loads(session.outbox.popleft())
    assert answer(session, command, "error", code=112, message="unrecoverable position") == [Answered(call)]
    assert call.failure is not None
    assert call.failure.code == 112
    session.again(call)
    assert not session.outbox
    assert session.fail(Refused(4500, "bad token")) == [Given(feed)]
    assert feed.failure is not None


def test_a_call_outlives_its_connection() -> None:
    session, _ = live()
    calls = [history_call("a", Position("e", 1), number, reverse=True) for number in range(1, 12)]
    for call in calls:
        session.call(call)
    session.closed()
    assert not session.outbox
    session.receive('{"type":"welcome","data":{"connection_id":"c","ping_s":25,"pong_s":8}}')
    asked = 0
    while session.outbox:
        command = json.loads(session.outbox.popleft())
        asked += 1
        assert command["data"]["limit"] == asked
        answer(session, command, "history", epoch="e", offset="9", items=[])
    assert [call.page.top.offset for call in calls if isinstance(call, Call) and call.page] == [9] * 11


def test_an_unsubscribe_that_was_refused_for_now_is_sent_again() -> None:
    session, (feed,) = live(Wanted("a"))
    session.leave(feed)
    command = json.loads(session.outbox.popleft())
    (again,) = answer(session, command, "error", code=111, message="too many commands", temporary=True)
    assert again == Again(Leave("a"), 1.0)
    session.again(again.ask)
    assert json.loads(session.outbox.popleft())["type"] == "unsubscribe"


def test_an_expired_token_is_refreshed_before_asking_again() -> None:
    session, _ = live()
    feed = Feed(Wanted("a"), 4)
    session.subscribe(feed)
    command = json.loads(session.outbox.popleft())
    assert answer(session, command, "error", code=109, message="token expired") == [Refresh(), Again(feed, 1.0)]
    session.authenticate("new")
    session.again(feed)
    assert [json.loads(text)["type"] for text in session.outbox] == ["auth", "subscribe"]


def test_a_topic_that_is_taken_away_ends_with_a_refusal() -> None:
    session, (kept, lost) = live(Wanted("a"), Wanted("b"))
    error = {"type": "error", "topic": "b", "data": {"code": 103, "message": "permission denied", "temporary": False}}
    assert session.receive(json.dumps(error)) == [Given(lost)]
    assert str(lost.failure) == "b: permission denied (103)"
    assert kept.failure is None


def test_an_overflowing_inbox_says_what_it_dropped() -> None:
    session, (inbox,) = live(Wanted("user:42"))
    for offset in range(1, 8):
        frame = {"type": "event", "topic": "user:42", "epoch": "e", "offset": str(offset), "event_id": "i", "data": {}}
        session.receive(json.dumps(frame))
    *events, lag = [item.value for item in inbox.items]
    assert [event.position.offset for event in events if isinstance(event, Event)] == [1, 2, 3, 4]
    assert isinstance(lag, Lag)
    assert (lag.from_offset, lag.to_offset, lag.dropped) == (5, 7, 3)
