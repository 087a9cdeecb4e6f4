"""What every inbox in the register must do; a new one is tested by being registered."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

import pytest

from headrace.inbox import INBOXES, Inbox, Kept, Known, Letter, Lost
from headrace.model.errors import RequestError, TransientError
from headrace.model.events import Position
from headrace.runtime.clock import ManualClock
from tests.contracts.clocks import WrongClock
from tests.contracts.contexts import Opener
from tests.orders.store.servers import settings_of

DAY_S = 86_400.0

Open = Callable[..., Awaitable[Inbox]]


@pytest.fixture
def clock() -> WrongClock:
    return WrongClock()


@pytest.fixture
async def open_one(kind_of_store: tuple[str, str], store_place: str, clock: ManualClock) -> AsyncIterator[Open]:
    """Opens the same database each time, as another process would."""
    async with Opener(INBOXES, kind_of_store[0], clock) as opener:
        yield partial(opener.open, **settings_of(store_place))


@pytest.fixture
async def inbox(open_one: Open) -> Inbox:
    return await open_one()


def compose(positions: Sequence[Position]) -> str:
    return ",".join(str(position.offset) for position in positions)


async def send(inbox: Inbox, user_id: str, *names: str, ack: bool = True, size: int = 0) -> list[Position]:
    letters = [Letter(user_id, name, '{"n":"%s"}' % (name + "x" * size), ack) for name in names]
    return (await inbox.put(letters, None, compose))[0]


async def waiting(inbox: Inbox, user_id: str = "42") -> list[int]:
    return [kept.offset for kept in await inbox.after(user_id, 0, 10_000, unacknowledged=True)]


async def test_each_user_has_a_log(inbox: Inbox) -> None:
    assert await inbox.box("42") is None
    assert await inbox.after("42", 0, 10, unacknowledged=True) == []
    letters = [Letter("42", "a", '"A"', True), Letter("7", "b", '"B"', False), Letter("42", "c", '"C"', False)]
    positions, answer = await inbox.put(letters, None, compose)
    assert ([position.offset for position in positions], answer) == ([1, 1, 2], "1,1,2")
    box = await inbox.box("42")
    assert box == (positions[2], None, 1)
    assert await inbox.after("42", 0, 10, unacknowledged=False) == [
        Kept(1, "a", '"A"', True),
        Kept(2, "c", '"C"', False),
    ]
    assert await inbox.after("42", 0, 10, unacknowledged=True) == [Kept(1, "a", '"A"', True)]
    assert await inbox.after("42", 1, 10, unacknowledged=False) == [Kept(2, "c", '"C"', False)]
    assert [kept.offset for kept in await inbox.after("42", 0, 1, unacknowledged=False)] == [1]


async def test_a_letter_outlives_the_process(open_one: Open) -> None:
    (position,) = await send(await open_one(), "42", "a")
    again = await open_one()
    assert await waiting(again) == [1]
    assert await send(again, "42", "b") == [Position(position.epoch, 2)]


async def test_acknowledging_is_cumulative_and_idempotent(inbox: Inbox) -> None:
    await send(inbox, "42", *"abcd")
    await send(inbox, "7", "other")
    for _ in range(2):
        await inbox.acknowledge("42", 2)
        assert await waiting(inbox) == [3, 4]
    await inbox.acknowledge("42", 1)
    assert await waiting(inbox) == [3, 4]
    await inbox.acknowledge("42", 99)
    assert await waiting(inbox) == []
    assert await waiting(inbox, "7") == [1]
    await inbox.acknowledge("nobody", 1)
    assert [position.offset for position in await send(inbox, "42", "e")] == [5]


async def test_beyond_the_number_the_oldest_letters_go_and_count_as_lost(open_one: Open) -> None:
    inbox = await open_one(messages_max=3)
    await send(inbox, "42", *"abcde")
    assert await waiting(inbox) == [3, 4, 5]
    box = await inbox.box("42")
    assert box is not None
    assert box.lost == Lost(2, 1, 2)
    await send(inbox, "42", "f")
    await inbox.acknowledge("42", 2)
    box = await inbox.box("42")
    assert box is not None
    assert box.lost == Lost(3, 1, 3)
    await inbox.acknowledge("42", 3)
    box = await inbox.box("42")
    assert box is not None
    assert box.lost is None


async def test_beyond_the_bytes_the_oldest_letters_go(open_one: Open) -> None:
    inbox = await open_one(bytes_max=1024)
    await send(inbox, "42", *"abcde", size=300)
    assert await waiting(inbox) == [3, 4, 5]
    await inbox.acknowledge("42", 5)
    await send(inbox, "42", *"abc", size=300)
    assert await waiting(inbox) == [6, 7, 8]
    await send(inbox, "42", "huge", size=2000)
    assert await waiting(inbox) == []
    box = await inbox.box("42")
    assert box is not None
    assert box.lost == Lost(4, 6, 9)


async def test_letters_without_ack_go_first_and_are_no_loss(open_one: Open) -> None:
    inbox = await open_one(messages_max=2)
    await send(inbox, "42", *"abc", ack=False)
    box = await inbox.box("42")
    assert box is not None
    assert (box.top.offset, box.lost) == (3, None)


async def test_a_letter_beyond_the_age_is_lost(inbox: Inbox, clock: ManualClock) -> None:
    await send(inbox, "42", "old")
    await send(inbox, "42", "passing", ack=False)
    await clock.advance(6 * DAY_S)
    assert await inbox.tidy() == 0
    assert [kept.event_id for kept in await inbox.after("42", 0, 10, unacknowledged=False)] == ["old"]
    await send(inbox, "42", "young")
    await clock.advance(2 * DAY_S)
    assert await inbox.tidy() == 1
    assert await waiting(inbox) == [3]
    box = await inbox.box("42")
    assert box is not None
    assert box.lost == Lost(1, 1, 1)


async def test_a_user_of_whom_nothing_is_left_begins_anew(inbox: Inbox, clock: ManualClock) -> None:
    (first,) = await send(inbox, "42", "a")
    await inbox.acknowledge("42", 1)
    await clock.advance(8 * DAY_S)
    await inbox.tidy()
    assert await inbox.box("42") is None
    (again,) = await send(inbox, "42", "b")
    assert again.offset == 1
    assert again.epoch != first.epoch


async def test_a_key_is_taken_once_and_answers_again(open_one: Open) -> None:
    inbox, other = await open_one(), await open_one()
    assert await inbox.begin("key", "print") is None
    assert await other.begin("key", "print") == Known(same=True, answer=None), "somebody is at work"
    _, answer = await inbox.put([Letter("42", "a", "1", True)], "key", compose)
    assert await other.begin("key", "print") == Known(same=True, answer=answer)
    assert (await other.begin("key", "another")) == Known(same=False, answer=answer)


async def test_a_broadcast_begun_and_left_is_taken_over(inbox: Inbox, clock: ManualClock) -> None:
    assert await inbox.begin("key", "print") is None
    await clock.advance(29)
    assert await inbox.begin("key", "print") is not None
    await clock.advance(2)
    assert await inbox.begin("key", "print") is None
    assert await inbox.begin("key", "print") is not None


async def test_a_key_is_known_for_a_day(inbox: Inbox, clock: ManualClock) -> None:
    assert await inbox.begin("key", "print") is None
    await inbox.put([], "key", compose)
    await clock.advance(DAY_S)
    await inbox.tidy()
    assert await inbox.begin("key", "print") is not None
    await clock.advance(2 * 3600)
    await inbox.tidy()
    assert await inbox.begin("key", "print") is None


@pytest.mark.parametrize("off_h", [49, 24 * 365, -49])
async def test_a_clock_that_is_set_wrong_makes_nothing_older(
    inbox: Inbox, open_one: Open, clock: WrongClock, off_h: int
) -> None:
    assert await inbox.begin("key", "print") is None
    await inbox.put([Letter("42", "a", "1", True)], "key", compose)
    clock.off_s = off_h * 3600
    for each in (inbox, await open_one()):
        assert await each.tidy() == 0
        assert await each.begin("key", "print") is not None
        assert await waiting(each) == [1]
    await clock.advance(8 * DAY_S)
    assert await inbox.tidy() == 1


async def test_a_key_beyond_the_bound_is_refused(open_one: Open) -> None:
    inbox = await open_one(keys_max=2)
    for key in ("a", "b"):
        assert await inbox.begin(key, "print") is None
    with pytest.raises(RequestError) as refused:
        await inbox.begin("c", "print")
    assert refused.value.temporary
    assert await inbox.begin("a", "print") is not None


async def test_two_at_once_get_offsets_without_a_hole(open_one: Open) -> None:
    inbox, other = await open_one(), await open_one()
    users = ["1", "2", "3"]

    async def many(which: Inbox, order: Sequence[str]) -> list[Position]:
        return (await which.put([Letter(user, "e", "1", True) for user in order], None, compose))[0]

    await asyncio.gather(
        *(many(which, order) for _ in range(20) for which, order in ((inbox, users), (other, users[::-1])))
    )
    for user in users:
        assert await waiting(inbox, user) == list(range(1, 41))


async def test_a_closed_inbox_is_away(inbox: Inbox) -> None:
    await inbox.close()
    with pytest.raises(TransientError):
        await inbox.box("42")
