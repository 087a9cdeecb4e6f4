"""Where the past of a topic ends and its live messages begin: the seam, found while both move."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from headrace.bus import Bus
from headrace.model.errors import TransientError
from headrace.model.events import Message, Position

PAGE: Final = 1000
READS_MAX: Final = 8

Sift: TypeAlias = Callable[[list[Message]], Awaitable[list[Message]]]
"""Takes a page of the log, returns what of it is wanted; may let others run meanwhile."""


class CatchUp(NamedTuple):
    """`replay` then `tail` then what comes live follow `since` (if `recovered`) without a hole or a repeat.

    `top` is the place between replay and tail: what a client is told it has when the replay is through. `replay` was
    sifted, `tail` was not.
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
    bus: Bus, topic: str, since: Position | None, held: Sequence[Message], replay_max: int, sift: Sift
) -> CatchUp:
    """Read what came after `since` (None: only the newest position) and join it to `held`.

    `held` grows while this waits: the caller appends every live message of the topic from before the call on, until
    this returns; it must go on without yielding to the loop, so that nothing falls between. Raises TransientError when
    the bus is away or keeps changing under our hands.
    """
    for _ in range(READS_MAX):
        known = len(held)
        past = await _read(bus, topic, since, replay_max, sift)
        tail = _after(past.top, held, known)
        if tail is not None:
            return CatchUp(past.top, past.replay, tail, past.recovered)
    raise TransientError("the topic's past and present could not be joined")


async def _read(bus: Bus, topic: str, since: Position | None, replay_max: int, sift: Sift) -> _Past:
    if since is None:
        return _Past(await bus.top(topic), [], recovered=False)
    replay: list[Message] = []
    last = since.offset
    while True:
        page = await bus.history(topic, Position(since.epoch, last), PAGE)
        ends = page.messages[-1].offset if page.messages else last
        whole = page.complete and page.top.epoch == since.epoch and ends - last == len(page.messages)
        if not whole or ends > page.top.offset or page.top.offset - since.offset > replay_max:
            return _Past(page.top, [], recovered=False)
        replay += await sift(page.messages)
        if ends == page.top.offset:
            return _Past(page.top, replay, recovered=True)
        if not page.messages:
            return _Past(page.top, [], recovered=False)
        last = ends


def _after(top: Position, held: Sequence[Message], known: int) -> list[Message] | None:
    """The held messages that come after `top`; None when that can't be told, or when there is a hole between.

    The first `known` were there before `top` was read, so they are not newer than it. Epochs have no order of their
    own: a held message of another epoch is older than `top` or newer, and only its neighbours tell.
    """
    same = next((i for i, message in enumerate(held) if message.epoch == top.epoch), None)
    if same is None:
        return [] if len(held) == known else None
    tail = [message for message in held[same:] if message.epoch != top.epoch or message.offset > top.offset]
    if tail and tail[0].epoch == top.epoch and tail[0].offset != top.offset + 1:
        return None
    return tail
