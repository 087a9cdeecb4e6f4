"""A memory bus on which a test publishes whatever it likes, on the lane that each topic has."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from headrace.bus import BusSettings, Lane, Sink, Writer
from headrace.bus.lanes import LANES, lane_of
from headrace.bus.memory import MemoryBus, MemoryWriter
from headrace.model.events import Position, Publication
from headrace.runtime.clock import Clock


class LocalBus(MemoryBus):
    """A memory bus with the writers of all its lanes."""

    def __init__(self, settings: BusSettings, clock: Clock, generation: str) -> None:
        super().__init__(settings, clock, generation)
        self.writers: Mapping[Lane, Writer] = {lane: MemoryWriter(self, lane, 0) for lane in LANES}

    async def publish(self, publications: Sequence[Publication]) -> list[Position]:
        """Publish in this order: one batch for each run of topics of one lane."""
        positions: list[Position] = []
        for lane, run in groupby(publications, lambda publication: lane_of(publication.topic)):
            writer = self.writers[lane]
            positions += await writer.publish(writer.batch(list(run), positions=True))
        return positions

    async def renew(self) -> None:
        """Begin a new epoch on every topic that the chain's updates are published on."""
        writer = self.writers["ingest"]
        await writer.publish(writer.batch([], new_epoch=True))

    def attach(self, sink: Sink) -> Callable[[], None]:
        """Deliver the messages of all topics; call the result to stop."""
        return self.subscribe(sink, kinds=None).close
