"""Functions that are called with news when it happens."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Generic, TypeVar

T = TypeVar("T")


class Sinks(Generic[T]):
    """Functions to call with news. They must not raise. If one raises all the same, the other functions are called."""

    def __init__(self) -> None:
        self._sinks: tuple[Callable[[Sequence[T]], None], ...] = ()

    def attach(self, sink: Callable[[Sequence[T]], None]) -> Callable[[], None]:
        """Call `sink` with all later news. Call the returned function to stop."""
        self._sinks = (*self._sinks, sink)

        def detach() -> None:
            self._sinks = tuple(other for other in self._sinks if other is not sink)

        return detach

    def __bool__(self) -> bool:
        """Return whether any sink is attached."""
        return bool(self._sinks)

    def detach_all(self) -> None:
        """Stop calling any sink."""
        self._sinks = ()

    def deliver(self, news: Sequence[T]) -> None:
        """Call every sink in the order in which they were attached. An empty sequence calls none."""
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
