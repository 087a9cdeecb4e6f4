"""A repeating event is let through now and then and tells how often it was not."""

from headrace.runtime.clock import ManualClock
from headrace.runtime.quiet import Quiet


async def test_first_now_then_only_each_period() -> None:
    clock = ManualClock()
    quiet = Quiet(clock, every_s=60)
    assert quiet.due("a") == 0
    assert [quiet.due("a") for _ in range(3)] == [None] * 3
    assert quiet.due("b") == 0
    await clock.advance(60)
    assert quiet.due("a") == 3
    await clock.advance(60)
    assert quiet.due("a") == 0


def test_reset_makes_it_news_again() -> None:
    quiet = Quiet(ManualClock())
    quiet.due("a")
    quiet.reset("a")
    quiet.reset("never heard of")
    assert quiet.due("a") == 0


def test_remembers_a_bounded_number_of_keys() -> None:
    quiet = Quiet(ManualClock())
    for number in range(5_000):
        quiet.due(f"key-{number}")
    assert len(quiet._last) == 1024
    assert quiet.due("key-4999") is None
    assert quiet.due("key-0") == 0


async def test_what_was_said_longest_ago_is_forgotten_first() -> None:
    clock = ManualClock()
    quiet = Quiet(clock)
    quiet.due("a")
    quiet.due("b")
    await clock.advance(60)
    quiet.due("a")
    for number in range(1023):
        quiet.due(f"key-{number}")
    assert quiet.due("a") is None
