"""Functions that are called with news as they happen."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Generic, TypeVar

T = TypeVar("T")


class Sinks(Generic[T]):
    """Functions to call with news. One that raises, against the rule, keeps no other from hearing."""

    def __init__(self) -> None:
        self._sinks: tuple[Callable[[Sequence[T]], None], ...] = ()

    def attach(self, sink: Callable[[Sequence[T]], None]) -> Callable[[], None]:
        """Call `sink` with all later news; call the result to stop."""
        self._sinks = (*self._sinks, sink)

        def detach() -> None:
            self._sinks = tuple(other for other in self._sinks if other is not sink)

        return detach

    def __bool__(self) -> bool:
        """Return whether any sink is attached."""
        return bool(self._sinks)

    def detach_all(self) -> None:
        """Call no sink any more."""
        self._sinks = ()

    def deliver(self, news: Sequence[T]) -> None:
        """Call every sink in the order in which they were attached, unless there is nothing new."""
        if not news:
            return
        sinks = self._sinks
        for number, sink in enumerate(sinks):
            try:
                sink(news)
            except BaseException:
                with ExitStack() as others:
                    for other in reversed(sinks[number + 1 :]):
                        others.callback(other, news)
                    raise
