"""Finds what a subscription is missing (the log after a position, or the topic's state) and joins it to live ones."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import chain
from typing import Final, NamedTuple, TypeAlias

from headrace.bus import Bus
from headrace.cache import Snapshot, Snapshots
from headrace.fanout.log_reader import LogReader, tail_after
from headrace.model.errors import TransientError
from headrace.model.events import Message, Position

PAGE: Final = 1000
READS_MAX: Final = 8

Select: TypeAlias = Callable[[list[Message]], Awaitable[list[Message]]]
"""Takes a page of the log and returns the messages that are wanted. Other tasks may run meanwhile."""


class CatchUp(NamedTuple):
    """Missing messages. If `recovered`, `replay`, then `tail`, then live messages follow the given position.

    In that case no message is missing or repeated. `top` is the position between replay and tail, which is the client's
    position once the replay is sent. `replay` contains only selected messages, `tail` contains all.
    """

    top: Position
    replay: list[Message]
    tail: list[Message]
    recovered: bool


class _Past(NamedTuple):
    top: Position
    replay: list[Message]
    recovered: bool


async def catch_up(
    bus: Bus, topic: str, since: Position | None, held: Sequence[Message], replay_max: int, select: Select
) -> CatchUp:
    """Read the messages after `since` (None: only the newest position) and join them to `held`.

    `held` grows meanwhile: from before the call until it returns, the caller appends every live message of the topic.
    After the return the caller must continue without yielding to the loop, so that no message is missed.
    Raises TransientError if the bus is unavailable, or if past and live messages could not be joined in READS_MAX
    attempts.
    """
    for _ in range(READS_MAX):
        known = len(held)
        past = await _read(bus, topic, since, replay_max, select)
        tail = tail_after(past.top, held, known)
        if tail is not None:
            return CatchUp(past.top, past.replay, tail, past.recovered)
    raise TransientError("the topic's past and present could not be joined")


async def read_state(
    bus: Bus, cache: Snapshots, topic: str, held: Sequence[Message], replay_max: int, select: Select
) -> tuple[Snapshot, CatchUp]:
    """Return the topic's state and the log after it, both selected. The log is joined to `held` as in `catch_up`.

    Raises TransientError if bus or cache is unavailable, or if the log never reaches back to the state.
    """
    for _ in range(READS_MAX):
        top = await bus.top(topic)  # read before the cache, so that messages in between are in the log
        snapshot = await cache.snapshot(topic) or Snapshot(top, [], top.offset == 0, None)
        pages = [await select(page) for page in _pages(snapshot.items)]
        found = await catch_up(bus, topic, snapshot.at, held, replay_max, select)
        if found.recovered:
            return snapshot._replace(items=list(chain.from_iterable(pages))), found
    raise TransientError("the topic's state and its log could not be joined")


async def _read(bus: Bus, topic: str, since: Position | None, replay_max: int, select: Select) -> _Past:
    if since is None:
        return _Past(await bus.top(topic), [], recovered=False)
    replay: list[Message] = []
    reader = LogReader(since)
    while True:
        page = await bus.history(topic, reader.at, PAGE)
        before = reader.at.offset
        if page.messages:
            reader.take(page.messages[-1].offset)
        whole = page.complete and page.top.epoch == since.epoch and reader.at.offset - before == len(page.messages)
        if not whole or reader.at.offset > page.top.offset or page.top.offset - since.offset > replay_max:
            return _Past(page.top, [], recovered=False)
        replay += await select(page.messages)
        if reader.at == page.top:
            return _Past(page.top, replay, recovered=True)
        if not page.messages:
            return _Past(page.top, [], recovered=False)


def _pages(items: Sequence[Message]) -> Iterator[list[Message]]:
    return (list(items[start : start + PAGE]) for start in range(0, len(items), PAGE))
