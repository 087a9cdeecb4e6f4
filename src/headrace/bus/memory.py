"""The in-process bus: topics in memory, delivery by plain calls on the event loop."""

from collections.abc import Sequence
from itertools import count

from headrace.adapters import Context
from headrace.bus import REPEATS, Batch, BusSettings, Lane
from headrace.bus.lanes import LANES
from headrace.bus.viewed import ViewedBus
from headrace.model.errors import FencedError, InvariantError
from headrace.model.events import Position, Publication
from headrace.runtime.clock import Clock


class _LaneState:
    """State of a lane: its writer's token, and the answers to that writer's last batches."""

    def __init__(self, name: Lane) -> None:
        self.name: Lane = name
        self.token = 0
        self.answers: dict[int, Sequence[Position]] = {}
        self.forgotten = -1

    def hand_to(self, token: int) -> None:
        """Let only the writer with this token publish."""
        self.token, self.forgotten = token, -1
        self.answers.clear()

    def remember(self, batch_id: int, positions: Sequence[Position]) -> None:
        """Keep the answer to a batch for its repeats."""
        answers = self.answers
        answers[batch_id] = positions
        if len(answers) > REPEATS:
            oldest = next(iter(answers))
            self.forgotten = max(self.forgotten, oldest)
            del answers[oldest]


class MemoryWriter:
    """The `Writer` of a lane of a memory bus: a batch is appended and delivered before `publish` returns."""

    def __init__(self, bus: "MemoryBus", lane: Lane, token: int) -> None:
        self.lane: Lane = lane
        self.token = token
        self._bus = bus
        self._ids = count()

    def batch(self, publications: Sequence[Publication], *, new_epoch: bool = False, positions: bool = False) -> Batch:
        return Batch(next(self._ids), publications, new_epoch, positions)

    async def publish(self, batch: Batch) -> Sequence[Position]:
        return self._bus.append(self.lane, self.token, batch)


class MemoryBus(ViewedBus):
    """The `Bus` of a single process; its history ends with the process.

    The caller gives `generation`, with which the name of every epoch begins. For a live service it is random, so that
    no other process has the same epochs. For a replay that must be the same each time it is the recording's id.
    """

    Settings = BusSettings
    SECTION = "bus"
    shared = False

    def __init__(self, settings: BusSettings, clock: Clock, generation: str) -> None:
        super().__init__(settings, clock, generation)
        self._lanes = {lane: _LaneState(lane) for lane in LANES}

    @classmethod
    async def open(cls, settings: BusSettings, context: Context) -> "MemoryBus":
        return cls(settings, context.clock, context.generation)

    async def claim(self, lane: Lane, token: int | None = None) -> MemoryWriter:
        self._check_open()
        state = self._lanes[lane]
        if token is None:
            token = state.token + 1
        elif token <= state.token:
            raise FencedError(f"lane {lane}: token {token} was given, expected one above {state.token}")
        state.hand_to(token)
        return MemoryWriter(self, lane, token)

    def append(self, lane: Lane, token: int, batch: Batch) -> Sequence[Position]:
        """Append a batch of the writer with this token, and deliver it; see `Writer.publish`."""
        self._check_open()
        state = self._lanes[lane]
        if token != state.token:
            raise FencedError(f"lane {lane}: the writer with token {token} was followed by one with {state.token}")
        known = state.answers.get(batch.id)
        if known is not None:
            return known
        if batch.id <= state.forgotten:
            raise InvariantError(f"lane {lane}: whether batch {batch.id} was appended is no longer known")
        positions = self._view.append(lane, batch)
        state.remember(batch.id, positions)
        self._view.deliver()
        return positions
