"""What one client was told of one topic, held against what was published: nothing missing, twice or out of order."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias


class Begun(NamedTuple):
    """Delivery begins. Not `recovered`: what came before `offset` and was not delivered is declared lost."""

    epoch: str
    offset: int
    recovered: bool


class Arrived(NamedTuple):
    """An event."""

    epoch: str
    offset: int
    data: Mapping[str, Any]


class Pictured(NamedTuple):
    """The whole state as of `offset`: the offsets and data of its events."""

    epoch: str
    offset: int
    items: Sequence[tuple[int, Mapping[str, Any]]]
    complete: bool


class Lagged(NamedTuple):
    """Messages that the client was too slow for are declared lost."""

    epoch: str
    from_offset: int
    to_offset: int
    dropped: int


Fact: TypeAlias = Begun | Pictured | Arrived | Lagged


class Wish(NamedTuple):
    """What a client asks for. `lanes`: only those, by a filter (None: all). `conflated`: only the newest of each.

    `snapshot`: where nothing is recovered, the newest of each lane first.
    """

    topic: str
    lanes: tuple[str, ...] | None = None
    conflated: bool = False
    on_slow: str = "disconnect"
    snapshot: bool = False

    def wants(self, data: Mapping[str, Any]) -> bool:
        return self.lanes is None or data["lane"] in self.lanes


class Published:
    """The truth: every message of every topic and epoch, by offset."""

    def __init__(self) -> None:
        self._logs: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        self._epochs: dict[str, str] = {}

    def add(self, topic: str, epoch: str, offset: int, data: dict[str, Any]) -> None:
        log = self._logs[topic, epoch]
        log.append(data)
        assert len(log) == offset, "the bus skipped an offset"
        self._epochs[topic] = epoch

    def forget(self) -> None:
        """The server lost its logs: what was published can't be had any more, though some may be on its way still."""
        self._epochs.clear()

    def at(self, topic: str, epoch: str, offset: int) -> Mapping[str, Any]:
        return self._logs[topic, epoch][offset - 1]

    def between(self, wish: Wish, epoch: str, after: int, before: int) -> dict[int, Mapping[str, Any]]:
        """Those that are wished for with `after < offset < before`."""
        log = self._logs[wish.topic, epoch]
        return {offset: log[offset - 1] for offset in range(after + 1, before) if wish.wants(log[offset - 1])}

    def newest(self, wish: Wish) -> tuple[str, int] | None:
        """Epoch and offset of the last message of the topic that is wished for; None if there is none."""
        epoch = self._epochs.get(wish.topic)
        if epoch is None:
            return None
        log = self._logs[wish.topic, epoch]
        return next(((epoch, offset) for offset in range(len(log), 0, -1) if wish.wants(log[offset - 1])), None)


class Account:
    """Takes facts in the order in which a client gets them; the first that breaks a promise raises AssertionError."""

    def __init__(self, published: Published, wish: Wish) -> None:
        self._published, self.wish = published, wish
        self.epoch: str | None = None
        self.offset = 0
        self.lags = 0
        self._unpictured = False
        """Whether a snapshot must come before anything else."""
        self._owed: dict[str, int] = {}
        """Conflation: offsets of the newest message of each lane that was passed over; a newer one must follow."""
        self._lost_to = 0
        """Up to there what does not come is declared lost."""

    def take(self, fact: Fact) -> None:
        match fact:
            case Begun(epoch, offset, recovered):
                self._begin(epoch, offset, recovered=recovered)
            case Pictured():
                self._picture(fact)
            case Arrived(epoch, offset, data):
                self._arrive(epoch, offset, data)
            case Lagged():
                self._lag(fact)

    def is_current(self) -> bool:
        """Return whether everything that was published reached the client or was declared lost."""
        newest = self._published.newest(self.wish)
        if self._owed or self._unpictured:
            return False
        return newest is None or (self.epoch == newest[0] and max(self.offset, self._lost_to) >= newest[1])

    def _begin(self, epoch: str, offset: int, *, recovered: bool) -> None:
        if recovered:
            assert self.epoch == epoch, f"recovered into another epoch: {self.epoch} → {epoch}"
            assert offset >= self.offset, f"recovered to {offset}, before {self.offset}"
            return
        self.epoch, self.offset, self._lost_to = epoch, offset, 0
        self._owed.clear()
        self._unpictured = self.wish.snapshot

    def _picture(self, state: Pictured) -> None:
        assert self._unpictured, "a snapshot that was not asked for, or the second"
        assert state.epoch == self.epoch, f"a snapshot of epoch {state.epoch} within {self.epoch}"
        told = {data["lane"]: offset for offset, data in state.items}
        for offset, data in state.items:
            assert data == self._published.at(self.wish.topic, state.epoch, offset), "not what was published"
            assert self.wish.wants(data), f"{offset} was not asked for"
        past = self._published.between(self.wish, state.epoch, 0, state.offset + 1)
        newest = {data["lane"]: offset for offset, data in past.items()}
        assert told.items() <= newest.items(), f"the state is {newest}, not {told}"
        assert told == newest or not state.complete, f"{newest.keys() - told.keys()} are missing in a complete state"
        self.offset, self._unpictured = state.offset, False

    def _arrive(self, epoch: str, offset: int, data: Mapping[str, Any]) -> None:
        assert epoch == self.epoch, f"an event of epoch {epoch} within {self.epoch}"
        assert not self._unpictured, "an event before the snapshot"
        assert offset > self.offset, f"{offset} came after {self.offset}: repeated or out of order"
        assert data == self._published.at(self.wish.topic, epoch, offset), "not what was published"
        assert self.wish.wants(data), f"{offset} was not asked for"
        skipped = self._published.between(self.wish, epoch, self.offset, offset)
        if self.wish.conflated:
            self._owed |= {message["lane"]: passed for passed, message in skipped.items() if passed > self._lost_to}
            self._owed.pop(data["lane"], None)
        else:
            assert not skipped, f"{list(skipped)} never came and nobody said so"
        self.offset = offset

    def _lag(self, lag: Lagged) -> None:
        self.lags += 1
        assert lag.from_offset > self.offset, f"lag from {lag.from_offset}, but {self.offset} was there"
        assert lag.epoch == self.epoch, f"a lag of epoch {lag.epoch} within {self.epoch}"
        before = self._published.between(self.wish, self.epoch, self.offset, lag.from_offset)
        assert not before or self.wish.conflated, f"{list(before)} never came, and the lag begins after them"
        lost = self._published.between(self.wish, self.epoch, lag.from_offset - 1, lag.to_offset + 1)
        latest = {message["lane"] for message in lost.values()}
        if self.wish.on_slow == "conflate" and lag.dropped == len(lost) - len(latest):
            return  # the latest of each lane comes now
        assert lag.dropped == len(lost), f"{lag.dropped} dropped were told, {len(lost)} it were"
        self._owed = {lane: passed for lane, passed in self._owed.items() if lane not in latest}
        self._lost_to = lag.to_offset
        if self.wish.on_slow != "conflate":
            self.offset = lag.to_offset
