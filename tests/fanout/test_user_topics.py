"""A user's letters against a model: whatever is sent, acknowledged or paused, none is missed in silence."""

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.bus import BusSettings
from headrace.fanout.client import Client
from headrace.fanout.user_topics import UserTopic, UserTopics, announcement
from headrace.inbox import InboxSettings, Letter
from headrace.inbox.sqlite import SqliteInbox
from headrace.protocol.codes import CloseCode
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from tests.examples import examples
from tests.fanout.hub_machine import Wire
from tests.local_bus import LocalBus

USER = "42"


class Reader(Client):
    """A connection of the user. `got` are the offsets it was sent, `told` those that it was told are gone."""

    user_topic: UserTopic

    def __init__(self) -> None:
        self.pipe = Wire()
        super().__init__(self.pipe, batch=False)
        self.top: int | None = None
        self.got: list[int] = []
        self.told: set[int] = set()

    def cut_off(self, code: CloseCode) -> None:
        raise AssertionError(code)

    def check(self) -> None:
        for frame in self.pipe.frames():
            data = frame["data"]
            if frame["type"] == "subscribed":
                assert self.top is None, "announced once, before everything else"
                self.top = int(data["offset"])
            elif frame["type"] == "lag":
                self.told |= set(range(int(data["from_offset"]), int(data["to_offset"]) + 1))
            elif frame["type"] == "event":
                assert self.top is not None
                assert not self.got or int(frame["offset"]) > self.got[-1], "in order, none twice"
                self.got.append(int(frame["offset"]))
            else:
                assert frame["type"] == "acknowledged", frame


class Post:
    """The user topics of one server on a bus, and a model of the user's log."""

    def __init__(self, inbox: SqliteInbox, tasks: Supervisor, kept_max: int) -> None:
        self.inbox, self.bus, self.kept_max = inbox, LocalBus(BusSettings(), SystemClock(), "g"), kept_max
        self.user_topics = UserTopics(inbox, tasks, SystemClock(), Metrics())
        self.bus.attach(self.user_topics.sink)
        self.readers: list[Reader] = []
        self.held: list[Any] = []
        self.sent: list[bool] = []
        self.acknowledged = 0

    async def send(self, count: int, ack: bool, late: bool) -> None:
        """`late`: the news of it waits, and comes after that of later letters."""
        letters = [Letter(USER, f"e{len(self.sent) + n}", json.dumps({"n": n}), ack) for n in range(count)]
        positions, _ = await self.inbox.put(letters, None, lambda _: "")
        self.sent += [ack] * count
        news = [announcement(letter, at) for letter, at in zip(letters, positions, strict=True)]
        if late:
            self.held += news
        else:
            await self.bus.publish(news)

    async def release(self) -> None:
        held, self.held = self.held, []
        await self.bus.publish(held)

    def come(self) -> None:
        if len(self.readers) < 4:
            reader = Reader()
            reader.user_topic = self.user_topics.open(reader, USER)
            self.readers.append(reader)

    def leave(self, which: int) -> None:
        if self.readers:
            reader = self.readers.pop(which % len(self.readers))
            reader.open = False
            reader.user_topic.close()

    def pause(self, which: int) -> None:
        if self.readers:
            reader = self.readers[which % len(self.readers)]
            reader.paused = not reader.paused
            if not reader.paused:
                reader.user_topic.resume()

    async def acknowledge(self, which: int) -> None:
        if self.readers and (got := self.readers[which % len(self.readers)].got):
            self.readers[which % len(self.readers)].user_topic.acknowledge(got[-1], 1)
            self.acknowledged = max(self.acknowledged, got[-1])

    async def settle(self) -> None:
        """Until nobody reads any more."""
        while any(reader.user_topic.reading for reader in self.readers):
            await self.inbox.box(USER)
            await asyncio.sleep(0)
        for reader in self.readers:
            reader.check()

    def check_end(self) -> None:
        for reader in self.readers:
            assert reader.top is not None
            known = set(reader.got) | reader.told
            waiting = {n for n, ack in enumerate(self.sent, 1) if ack and n > self.acknowledged}
            assert waiting <= known, "a letter that waits was neither sent nor told to be gone"
            assert set(range(reader.top + 1, len(self.sent) + 1)) <= known, "live ones come without a hole"
            passing = {n for n, ack in enumerate(self.sent, 1) if not ack and n <= reader.top}
            assert not passing & set(reader.got), "what passed before it came is not its own"


STEP = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 40), st.booleans(), st.sampled_from([False, False, True])),
    st.tuples(st.just("release")),
    st.tuples(st.just("come")),
    st.tuples(st.just("settle")),
    *(st.tuples(st.just(kind), st.integers(0, 3)) for kind in ("leave", "pause", "acknowledge")),
)


@given(steps=st.lists(STEP, max_size=25), kept_max=st.sampled_from([10, 1000]))
@settings(max_examples=examples(60))
def test_no_letter_is_lost_unreported(steps: list[Any], kept_max: int) -> None:
    async def play() -> None:
        inbox = await SqliteInbox.at(":memory:", SystemClock(), InboxSettings(messages_max=kept_max))
        async with Supervisor(SystemClock()) as tasks:
            post = Post(inbox, tasks, kept_max)
            for kind, *given_ in steps:
                doing = getattr(post, kind)(*given_)
                if doing is not None:
                    await doing
                for reader in post.readers:
                    reader.check()
            await post.release()
            await post.settle()
            for which, reader in enumerate(post.readers):
                if reader.paused:
                    post.pause(which)
            await post.settle()
            post.check_end()
            for _ in list(post.readers):
                post.leave(0)
            tasks.cancel()
        await inbox.close()

    asyncio.run(play())
