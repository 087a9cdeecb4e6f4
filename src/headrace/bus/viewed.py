"""The part that all buses share: answers from the view of the logs that this process keeps."""

from collections.abc import Collection, Mapping

from headrace.bus import BusSettings, ChangeSink, History, Sink, Subscription
from headrace.bus.view import View
from headrace.model.errors import TransientError
from headrace.model.events import Position
from headrace.runtime.clock import Clock


class ViewedBus:
    """The part of every `Bus` that answers from the view of the logs that this process keeps."""

    shared = True

    def __init__(self, settings: BusSettings, clock: Clock, generation: str) -> None:
        self._view = View(settings, clock, generation)
        self._closed = False

    def subscribe(
        self, sink: Sink, *, kinds: Collection[str] | None = (), changed: ChangeSink | None = None
    ) -> Subscription:
        self._check_open()
        return self._view.interest.subscribe(sink, kinds, changed)

    async def history(self, topic: str, since: Position | None, limit: int, *, reverse: bool = False) -> History:
        self._check_open()
        return self._view.history(topic, since, limit, reverse=reverse)

    async def top(self, topic: str) -> Position:
        self._check_open()
        return self._view.top(topic)

    def topics(self) -> Mapping[str, Position]:
        self._check_open()
        return self._view.topics()

    async def check(self, *, thorough: bool) -> None:
        self._check_open()

    async def close(self) -> None:
        self._closed = True
        self._view.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise TransientError("the bus is closed")
