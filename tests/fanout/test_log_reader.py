"""A log is read from a position and then followed live: every entry comes once, in order, or is counted as missing."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.fanout.log_reader import Arrival, LogReader, tail_after
from headrace.model.events import Message, Position, TopicEpoch

PAGE = 3
STEPS = ("append", "append unheard", "hear late", "begin to read", "read a page", "stop taking", "take again")


class Follower:
    """A log, and a follower that acts on what its reader says. `got` are the offsets it took."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.log: list[int] = []
        self.late: list[int] = []
        self.got: list[int] = []
        self.missing: set[int] = set()
        self.able = True
        self.reader = LogReader(Position("e", 0))

    def step(self, name: str) -> None:
        if name.startswith("append"):
            self.log.append(len(self.log) + 1)
            if name == "append":
                self.hear(self.log[-1])
            else:
                self.late.append(self.log[-1])
        elif name == "hear late" and self.late:
            self.hear(self.late.pop(0))
        elif name == "begin to read":
            self.reader.reading = True
        elif name == "read a page" and self.reader.reading:
            self.read()
        elif name == "stop taking":
            self.able = False
        elif name == "take again":
            self.able = True
            self.reader.reading |= self.reader.behind

    def hear(self, offset: int) -> None:
        arrival = self.reader.arrive(Position("e", offset), able=self.able)
        if arrival is Arrival.NEXT:
            self.got.append(offset)
        elif arrival is Arrival.BEYOND:
            self.reader.reading = True

    def read(self) -> None:
        page = [offset for offset in self.log[-self.kept :] if offset > self.reader.at.offset][:PAGE]
        for offset in page:
            before = self.reader.at.offset
            if self.reader.take(offset):
                self.missing |= set(range(before + 1, offset))
            self.got.append(offset)
        if not self.able or self.reader.is_through(len(page), PAGE):
            self.reader.reading = False

    def check(self) -> None:
        assert self.got == sorted(set(self.got)), "in order, each once"
        assert not self.missing & set(self.got)
        assert set(self.got) | self.missing == set(range(1, self.reader.at.offset + 1)), "no hole that is not counted"

    def finish(self) -> None:
        while self.late:
            self.step("hear late")
        self.step("take again")
        while self.reader.reading:
            self.read()
        self.check()
        assert self.reader.at.offset == len(self.log), "all came"


@pytest.mark.parametrize("kept", [2, 100])
@pytest.mark.parametrize("first", STEPS)
def test_no_short_history_loses_or_repeats_an_entry(first: str, kept: int) -> None:
    for rest in itertools.product(STEPS, repeat=4):
        follower = Follower(kept)
        for name in (first, *rest):
            follower.step(name)
            follower.check()
        follower.finish()


@given(steps=st.lists(st.sampled_from(STEPS), max_size=80), kept=st.sampled_from([1, 4, 100]))
def test_no_long_history_loses_or_repeats_an_entry(steps: list[str], kept: int) -> None:
    follower = Follower(kept)
    for name in steps:
        follower.step(name)
        follower.check()
    follower.finish()


def test_an_entry_of_another_epoch_begins_the_log_anew() -> None:
    reader = LogReader(Position("a", 7))
    assert reader.arrive(Position("b", 2)) is Arrival.BEYOND
    assert (reader.at, reader.newest, reader.behind) == (Position("b", 0), 2, True)
    assert reader.arrive(Position("c", 1)) is Arrival.NEXT
    assert reader.at == Position("c", 1)


def test_the_tail_of_every_short_log_joins_without_hole_or_repeat() -> None:
    """Live entries `first` to `last` are held, reading ends at `top`: the tail is what is after it, or not known."""
    for top, first, last in itertools.product(range(6), range(1, 7), range(7)):
        held = [Message(TopicEpoch("slots", "e"), "event", offset, b"") for offset in range(first, last + 1)]
        tail = tail_after(Position("e", top), held, 0)
        if held and first > top + 1:
            assert tail is None, "entries between are missing"
        else:
            assert tail is not None
            assert [message.offset for message in tail] == list(range(max(first, top + 1), last + 1))


def test_held_entries_of_an_earlier_epoch_are_not_in_the_tail() -> None:
    places = (("a", 5), ("b", 1), ("b", 2))
    held = [Message(TopicEpoch("slots", epoch), "event", offset, b"") for epoch, offset in places]
    assert tail_after(Position("b", 1), held, 0) == held[2:]
