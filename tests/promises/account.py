"""What one client was told of one topic, held against what was published: nothing missing, twice or out of order."""

from collections import defaultdict
from collections.abc import Mapping
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


class Lagged(NamedTuple):
    """Messages that the client was too slow for are declared lost."""

    from_offset: int
    to_offset: int
    dropped: int


Fact: TypeAlias = Begun | Arrived | Lagged


class Wish(NamedTuple):
    """What a client asks for. `lanes`: only those, by a filter (None: all). `conflated`: only the newest of each."""

    topic: str
    lanes: tuple[str, ...] | None = None
    conflated: bool = False
    on_slow: str = "disconnect"

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
        self.events = 0
        self.declared_lost = 0
        self._owed: dict[str, int] = {}
        """Conflation: offsets of the newest message of each lane that was passed over."""

    def take(self, fact: Fact) -> None:
        match fact:
            case Begun(epoch, offset, recovered):
                self._begin(epoch, offset, recovered=recovered)
            case Arrived(epoch, offset, data):
                self._arrive(epoch, offset, data)
            case Lagged():
                self._lag(fact)

    def is_current(self) -> bool:
        """Whether everything that was published reached the client or was declared lost."""
        newest = self._published.newest(self.wish)
        if self._owed:
            return False
        return newest is None or (self.epoch == newest[0] and self.offset >= newest[1])

    def _begin(self, epoch: str, offset: int, *, recovered: bool) -> None:
        if recovered:
            assert self.epoch == epoch, f"recovered into another epoch: {self.epoch} → {epoch}"
            assert offset >= self.offset, f"recovered to {offset}, before {self.offset}"
            return
        self.epoch, self.offset = epoch, offset
        self.declared_lost += 1
        self._owed.clear()

    def _arrive(self, epoch: str, offset: int, data: Mapping[str, Any]) -> None:
        assert epoch == self.epoch, f"an event of epoch {epoch} within {self.epoch}"
        is_owed = self.wish.conflated and self._owed.get(data["lane"]) == offset
        assert offset > self.offset or is_owed, f"{offset} came after {self.offset}: repeated or out of order"
        assert data == self._published.at(self.wish.topic, epoch, offset), "not what was published"
        assert self.wish.wants(data), f"{offset} was not asked for"
        self.events += 1
        skipped = self._published.between(self.wish, epoch, self.offset, offset)
        if self.wish.conflated:
            for passed, message in skipped.items():
                self._owed[message["lane"]] = passed
            if self._owed.get(data["lane"], 0) <= offset:
                self._owed.pop(data["lane"], None)
        else:
            assert not skipped, f"{list(skipped)} never came and nobody said so"
        self.offset = max(self.offset, offset)

    def _lag(self, lag: Lagged) -> None:
        assert lag.from_offset > self.offset, f"lag from {lag.from_offset}, but {self.offset} was there"
        assert self.epoch is not None
        before = self._published.between(self.wish, self.epoch, self.offset, lag.from_offset)
        assert not before or self.wish.conflated, f"{list(before)} never came, and the lag begins after them"
        lost = self._published.between(self.wish, self.epoch, lag.from_offset - 1, lag.to_offset + 1)
        assert lag.dropped == len(lost), f"{lag.dropped} dropped were told, {len(lost)} it were"
        self.declared_lost += lag.dropped
        self.offset = max(self.offset, lag.to_offset)
