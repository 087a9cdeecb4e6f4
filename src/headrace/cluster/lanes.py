"""Publish on a lane from any server: directly if it has the lane's lease, otherwise by the lease's holder."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Final

import msgspec
import structlog

from headrace.bus import Batch, Bus, Lane, Writer
from headrace.cluster import Cluster
from headrace.cluster.leadership import Candidate
from headrace.model.errors import FencedError, InvariantError, TransientError
from headrace.model.events import AnyLabel, MessageKind, Position, Publication, TopicHandle, event_id_of
from headrace.runtime.clock import Clock

PATIENCE_S: Final = 1.5
"""Longest wait for the answer of the server that has the lane."""

ANSWERS_MAX: Final = 1_024
"""Maximum number of answers that are remembered, so that a repeated request is published once."""

EVENTS_MAX: Final = 65_536
"""Maximum number of ids of order events that are remembered, so that each event is published once."""

_log = structlog.get_logger("cluster")


class _Forwarded(msgspec.Struct, frozen=True, array_like=True):
    """A batch on its way to another server. `id` names the writer and its batch."""

    id: str
    publications: list[tuple[list[str], MessageKind, bytes, AnyLabel | None]]


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    """Positions of a published batch, or why its outcome is unknown."""

    positions: list[tuple[str, int]] = []
    error: str = ""


_read_request = msgspec.msgpack.Decoder(_Forwarded).decode
_read_answer = msgspec.msgpack.Decoder(_Answer).decode


class LaneWriter:
    """The `Writer` of a lane for a server that may or may not have the lane's lease.

    `own` is the bus's writer while this server has the lease. Without the lease a batch is sent to the server that has
    it. A batch that is repeated, because the answer was lost, is published once, unless the lane changed hands between.
    """

    def __init__(self, lane: Lane, cluster: Cluster, incarnation: str) -> None:
        self.lane: Lane = lane
        self.own: Writer | None = None
        self._cluster, self._incarnation = cluster, incarnation
        self._ids = count()
        self._tried: OrderedDict[str, Batch] = OrderedDict()
        self._answers: OrderedDict[str, bytes] = OrderedDict()
        self.events: dict[str, None] = {}
        """Ids of the order events that were published lately, oldest first."""
        self._one = asyncio.Lock()

    def batch(self, publications: Sequence[Publication], *, new_epoch: bool = False, positions: bool = False) -> Batch:
        return Batch(next(self._ids), publications, new_epoch, positions)

    async def publish(self, batch: Batch) -> Sequence[Position]:
        if batch.new_epoch:
            raise InvariantError(f"lane {self.lane}: only the server with the lease begins an epoch")
        batch_id = f"{self._incarnation}/{batch.id}"
        if self.own is not None:
            try:
                return await self._publish_here(self.own, batch_id, batch.publications, positions=batch.positions)
            except FencedError as error:  # nothing was appended: the next try goes to the server that has the lane now
                self.own = None
                raise TransientError(str(error)) from error
        named = [([each.name for each in one.topics], one.kind, one.body, one.label) for one in batch.publications]
        request = msgspec.msgpack.encode(_Forwarded(batch_id, named))
        answer = _read_answer(await self._cluster.ask(f"lane:{self.lane}", request, PATIENCE_S))
        if answer.error:
            raise TransientError(answer.error)
        return [Position(epoch, offset) for epoch, offset in answer.positions] if batch.positions else ()

    async def serve(self) -> None:
        """Publish the batches that other servers send, until cancelled. Try again while the directory is away."""
        while True:
            await self._cluster.serve(f"lane:{self.lane}", self._answer)

    async def _answer(self, request: bytes) -> bytes:
        try:
            asked = _read_request(request)
        except msgspec.DecodeError:
            return msgspec.msgpack.encode(_Answer(error="a request that can't be read"))
        known = self._answers.get(asked.id)
        if known is not None:
            return known
        if self.own is None:
            return msgspec.msgpack.encode(_Answer(error=f"lane {self.lane} has moved to another server"))
        publications = [
            Publication(tuple(map(TopicHandle, topics)), kind, body, label)
            for topics, kind, body, label in asked.publications
        ]
        try:
            found = await self._publish_here(self.own, asked.id, publications, positions=True)
        except (TransientError, FencedError, InvariantError) as error:
            return msgspec.msgpack.encode(_Answer(error=str(error)))
        answer = self._answers[asked.id] = msgspec.msgpack.encode(
            _Answer([(each.epoch, each.offset) for each in found])
        )
        while len(self._answers) > ANSWERS_MAX:
            self._answers.popitem(last=False)
        return answer

    async def _publish_here(
        self, own: Writer, batch_id: str, publications: Sequence[Publication], *, positions: bool
    ) -> Sequence[Position]:
        """Publish with the bus's writer. On the lane `orders`, leave out events that other servers sent before."""
        if self.lane != "orders":
            return await self._publish_batch(own, batch_id, publications, positions=positions)
        async with self._one:  # every server that follows the orders sends their events: the first one counts
            new = [each for each in publications if event_id_of(each.body) not in self.events]
            if not new:
                return ()
            found = await self._publish_batch(own, batch_id, new, positions=positions)
            self.events.update(dict.fromkeys(event_id_of(each.body) for each in new))
            while len(self.events) > EVENTS_MAX:
                del self.events[next(iter(self.events))]
            return found

    async def _publish_batch(
        self, own: Writer, batch_id: str, publications: Sequence[Publication], *, positions: bool
    ) -> Sequence[Position]:
        """Publish a batch. While the outcome is unknown, publish the same batch again."""
        batch = self._tried.pop(batch_id, None) or own.batch(publications, positions=positions)
        try:
            return await own.publish(batch)
        except TransientError:
            self._tried[batch_id] = batch
            while len(self._tried) > ANSWERS_MAX:
                self._tried.popitem(last=False)
            raise


async def lead(
    candidate: Candidate,
    writer: LaneWriter,
    bus: Bus,
    clock: Clock,
    begin: Callable[[Writer, bytes], None],
) -> None:
    """Take the lease of a lane and claim the lane, call `begin`, and keep the lease until cancelled.

    `begin` gets the lane's writer and the note of the last holder. Raises FencedError if another server takes over.
    """
    while True:
        grant = await candidate.win()
        try:
            own = await bus.claim(writer.lane, grant.token)
        except (TransientError, FencedError) as error:
            _log.warning("lane_not_claimed", lane=writer.lane, error=str(error))
            await candidate.release()
            await clock.sleep(1.0)
            continue
        writer.own = own
        begin(own, grant.note)
        await candidate.keep()


def writers_of(lanes: Sequence[Lane], cluster: Cluster, incarnation: str) -> Mapping[Lane, LaneWriter]:
    """Return a writer for each lane, whether or not this server has the lane's lease."""
    return {lane: LaneWriter(lane, cluster, incarnation) for lane in lanes}
