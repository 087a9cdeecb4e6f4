"""A bus behind a channel that loses, delays and repeats requests and answers, as a network does."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from headrace.adapters import Context
from headrace.bus import Batch, BusSettings, Lane
from headrace.bus.memory import MemoryBus, MemoryWriter
from headrace.bus.view import View
from headrace.bus.viewed import ViewedBus
from headrace.model.errors import FencedError, TransientError
from headrace.model.events import Position, Publication, TopicHandle
from headrace.runtime.clock import Clock

Fault: TypeAlias = Literal["none", "request lost", "answer lost", "request late", "request repeated"]
FAULTS: tuple[Fault, ...] = ("none", "none", "request lost", "answer lost", "request late", "request repeated")
TURNS_MAX = 4


class _LoggedView(View):
    """The logs at the far end: every batch that was appended is kept for the reader."""

    def __init__(self, settings: BusSettings, clock: Clock, generation: str) -> None:
        super().__init__(settings, clock, generation)
        self.entries: deque[tuple[Lane, Batch]] = deque()

    def append(self, lane: Lane, batch: Batch) -> Sequence[Position]:
        positions = super().append(lane, batch)
        self.entries.append((lane, carried(batch)))
        return positions


class _Server(MemoryBus):
    """The far end of the channel."""

    def __init__(self, settings: BusSettings, clock: Clock, generation: str) -> None:
        super().__init__(settings, clock, generation)
        self._view = self.log = _LoggedView(settings, clock, generation)


def carried(batch: Batch) -> Batch:
    """Return the batch as it arrives elsewhere: with the names of topics, as no handle crosses the channel."""
    return batch._replace(
        publications=[
            Publication(tuple([TopicHandle(handle.name) for handle in each.topics]), each.kind, each.body, each.label)
            for each in batch.publications
        ]
    )


class LossyWriter:
    """A writer whose requests and answers meet faults, drawn by chance or given as `faults`."""

    def __init__(self, bus: "LossyBus", inner: MemoryWriter) -> None:
        self._bus, self._inner = bus, inner
        self.lane = inner.lane

    def batch(self, publications: Sequence[Publication], *, new_epoch: bool = False, positions: bool = False) -> Batch:
        return self._inner.batch(publications, new_epoch=new_epoch, positions=positions)

    async def publish(self, batch: Batch) -> Sequence[Position]:
        fault = self._bus.next_fault()
        request = carried(batch)
        await self._bus.some_turns()
        if fault == "request lost":
            raise TransientError("the request was lost")
        if fault == "request late":
            self._bus.later(lambda: self._repeat(request))
            raise TransientError("no answer in time")
        positions = self._append(request)
        if fault == "request repeated":
            self._bus.later(lambda: self._repeat(request))
        await self._bus.some_turns()
        if fault == "answer lost":
            raise TransientError("the answer was lost")
        return positions

    def _append(self, request: Batch) -> Sequence[Position]:
        positions = self._bus.server.append(self.lane, self._inner.token, request)
        self._bus.later(self._bus.read)
        return positions

    def _repeat(self, request: Batch) -> None:
        try:
            self._append(request)
        except (FencedError, TransientError):
            pass  # nobody waits for this answer


class LossyBus(ViewedBus):
    """A `Bus` whose logs are far away: writers reach them through the channel, and the view here lags behind them."""

    Settings = BusSettings

    def __init__(self, settings: BusSettings, clock: Clock, generation: str, seed: int = 0) -> None:
        super().__init__(settings, clock, generation)
        self.server = _Server(settings, clock, generation)
        self.faults: deque[Fault] = deque()
        self._chance = random.Random(seed)

    @classmethod
    async def open(cls, settings: BusSettings, context: Context) -> "LossyBus":
        return cls(settings, context.clock, context.generation)

    async def claim(self, lane: Lane, token: int | None = None) -> LossyWriter:
        await self.some_turns()
        return LossyWriter(self, await self.server.claim(lane, token))

    async def close(self) -> None:
        await super().close()
        await self.server.close()

    def read(self) -> None:
        """Bring the view up to date with the logs."""
        entries = self.server.log.entries
        while entries and not self._closed:
            self._view.append(*entries.popleft())
            self._view.deliver()

    def next_fault(self) -> Fault:
        """The fault of the next request: the next of `faults`, else one by chance."""
        return self.faults.popleft() if self.faults else self._chance.choice(FAULTS)

    async def some_turns(self) -> None:
        """Take some time on the way."""
        for _ in range(self._chance.randrange(TURNS_MAX)):
            await asyncio.sleep(0)

    def later(self, action: Callable[[], object]) -> None:
        """Do it in one of the next turns of the loop."""
        loop = asyncio.get_running_loop()

        def wait(turns: int) -> None:
            if turns:
                loop.call_soon(wait, turns - 1)
            else:
                action()

        loop.call_soon(wait, self._chance.randrange(TURNS_MAX))
