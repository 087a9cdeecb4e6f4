"""The view of logs whose positions come with their entries, as several processes share them."""

from collections.abc import Mapping, Sequence

from headrace.bus import Batch, Lane
from headrace.bus.entries import Entry, EntryId, epoch_name
from headrace.bus.lanes import LANES
from headrace.bus.ledger import Top
from headrace.bus.view import View
from headrace.model.events import Position, Publication


class SharedView(View):
    """Logs as one of several processes sees them. Epochs are those of the entries; topics are forgotten as they say.

    If a process keeps fewer topics than the writers, it forgets the position of a topic without a new epoch.
    """

    def epoch_of(self, lane: Lane) -> str:
        """Return the epoch in which a topic of the lane would begin now."""
        return self._epochs[lane]

    def begin(self, lane: Lane, epoch: int, part: int) -> None:
        """Begin all topics of the lane anew in this epoch, unless they have it already."""
        name = epoch_name(epoch, part)
        if name != self._epochs[lane]:
            self._begin_epoch(lane, name)

    def reconcile(self, lane: Lane, epoch: int, part: int, tops: Mapping[str, Top]) -> None:
        """Continue after these positions, which are those of all topics of the lane; report what differs here."""
        self._epochs[lane] = epoch_name(epoch, part)
        for logs in (self._silent, self._logs):
            gone = [topic for topic, log in logs.items() if log.lane == lane and topic not in tops]
            if gone:
                self._forget(gone)
        lost = dict[str, Position]()
        for topic, top in tops.items():
            position, log = Position(epoch_name(epoch, top.part), top.offset), self._find(topic)
            if log is None:
                log = self._silent[topic] = self._new_log(topic, lane)
                log.move_to(position)
            elif log.position != position:
                lost[topic] = position
        if lost:
            self.lost(lost)

    def check_lane(self, lane: Lane, publications: Sequence[Publication]) -> None:
        """Raise InvariantError for a topic of another lane."""
        self._check_lane(lane, publications)

    def take(self, lane: Lane, at: EntryId, entry: Entry, publications: Sequence[Publication]) -> None:
        """Append an entry, report what is missing before it, and deliver its messages.

        `publications` are those of the entry. The entry is appended whole, even if a sink raises.
        """
        if entry.restart:
            self.begin(lane, at.epoch, entry.part)
        self._epochs[lane] = epoch_name(at.epoch, entry.part)
        self._find_missing(at.epoch, entry)
        self.append(lane, Batch(0, publications))
        try:
            self.deliver()
        finally:
            if entry.forgotten:
                self._epochs[lane] = epoch_name(at.epoch, entry.next_part)
                self._forget([topic for topic in entry.forgotten if self._find(topic) is not None])

    def _find_missing(self, epoch: int, entry: Entry) -> None:
        """Report topics whose first message in the entry does not follow the last one here."""
        known, lost = set[str](), dict[str, Position]()
        for carried in entry.carried:
            for place in carried.places:
                if place.topic in known:
                    continue
                known.add(place.topic)
                before, log = Position(epoch_name(epoch, place.part), place.offset - 1), self._find(place.topic)
                if log is not None and log.within.epoch != before.epoch:
                    self._forget([place.topic])
                if before.offset != self.top(place.topic).offset:
                    lost[place.topic] = before
        if lost:
            self.lost(lost)

    def _forget_surplus(self) -> None:
        """Forget positions only if the writers of all lanes together have more topics than is expected."""
        surplus = len(self._logs) + len(self._silent) - self._settings.topics_max * len(LANES)
        for _ in range(surplus):
            self._bytes -= (self._silent or self._logs).popitem(last=False)[1].sleep()
