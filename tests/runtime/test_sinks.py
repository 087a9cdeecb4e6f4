"""Who hears of news: all, in order, whatever one of them does."""

from collections.abc import Sequence

import pytest

from headrace.runtime.sinks import Sinks


def test_all_hear_in_order_until_they_leave() -> None:
    sinks, heard = Sinks[int](), list[tuple[str, Sequence[int]]]()
    leave = sinks.attach(lambda news: heard.append(("a", news)))
    sinks.attach(lambda news: heard.append(("b", news)))
    sinks.deliver([1, 2])
    sinks.deliver([])
    leave()
    leave()
    sinks.deliver([3])
    sinks.detach_all()
    sinks.deliver([4])
    assert heard == [("a", [1, 2]), ("b", [1, 2]), ("b", [3])]


def test_one_that_raises_keeps_nobody_from_hearing() -> None:
    sinks, heard = Sinks[int](), list[int]()

    def broken(_: Sequence[int]) -> None:
        raise ZeroDivisionError

    for sink in (heard.extend, broken, heard.extend):
        sinks.attach(sink)
    with pytest.raises(ZeroDivisionError):
        sinks.deliver([1])
    assert heard == [1, 1]
