"""Find the lane of a topic, and publish even if the bus is unavailable for a while."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, get_args

import structlog

from headrace.bus import Bus, Lane, Writer
from headrace.model.errors import TransientError
from headrace.model.events import Position, Publication
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock

LANES: Final[Sequence[Lane]] = get_args(Lane)

_LANE_OF_KIND: Final[Mapping[str, Lane]] = MappingProxyType(
    {"order": "orders", "orders": "orders", "quotes": "orders", "app": "broadcasts", "user": "broadcasts"}
)
"""Kind of topic → lane; all other kinds belong to `ingest`.

What an application broadcasts on a topic of another kind is published by the writer of `ingest`, because two writers
can't count the offsets of one topic.
"""

_log = structlog.get_logger("bus")


def lane_of(topic: str) -> Lane:
    """Return the lane of a topic, which depends on its kind."""
    return _LANE_OF_KIND.get(topic.partition(":")[0], "ingest")


def lanes_of(bus: Bus, lanes: Iterable[Lane], *, stream: bool) -> Sequence[Lane]:
    """Return the lanes that a process may publish on; on a shared bus without `ingest` while `stream` is off."""
    return [lane for lane in dict.fromkeys(lanes) if lane != "ingest" or stream or not bus.shared]


async def publish_until_answered(
    writer: Writer,
    publications: Sequence[Publication],
    clock: Clock,
    *,
    new_epoch: bool = False,
    positions: bool = False,
    on_trouble: Callable[[TransientError], None] = lambda _: None,
) -> Sequence[Position]:
    """Publish one batch, and repeat while the bus is unavailable; the batch is appended once.

    `on_trouble` gets each failure. Raises FencedError if another writer has the lane.
    """
    batch = writer.batch(publications, new_epoch=new_epoch, positions=positions)
    backoff = Backoff(initial_s=0.05, max_s=5.0)
    while True:
        try:
            return await writer.publish(batch)
        except TransientError as error:
            if not backoff.tries:
                _log.warning("bus_away", lane=writer.lane, error=str(error))
            on_trouble(error)
            await clock.sleep(backoff.next_s())
