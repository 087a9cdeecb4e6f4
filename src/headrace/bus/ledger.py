"""The positions of a lane's topics as its writer keeps them: the place of each message, before it is appended."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from headrace.bus import Batch
from headrace.bus.entries import Carried, Entry, EntryId, Place, epoch_name
from headrace.model.events import Position


class Top(NamedTuple):
    """The newest offset of a topic, and the part of the log's epoch in which the offset counts."""

    part: int
    offset: int


class Planned(NamedTuple):
    """A batch with its place in the log, and the positions of its messages."""

    id: EntryId
    entry: Entry
    tops: Mapping[str, Top]
    positions: Sequence[Position]


class Ledger:
    """Positions of at most `topics_max` topics of one lane. Topics unused for longest are forgotten first."""

    def __init__(self, at: EntryId, part: int, tops: Mapping[str, Top], topics_max: int) -> None:
        self.at, self.part = at, part
        self.tops = OrderedDict(tops)
        self._topics_max = topics_max

    def restart(self, epoch: int) -> None:
        """Begin a new epoch of the log, in which all topics begin anew."""
        self.at, self.part = EntryId(epoch, 0), 0
        self.tops.clear()

    def plan(self, batch: Batch) -> Planned:
        """Give each message of a batch its place, after all earlier ones."""
        self.at = EntryId(self.at.epoch, self.at.seq + 1)
        if batch.new_epoch:
            self.tops.clear()
            self.part += 1
        part, tops, positions = self.part, self.tops, list[Position]()
        carried, changed = list[Carried](), dict[str, Top]()
        for publication in batch.publications:
            places = list[Place]()
            for handle in publication.topics:
                name = handle.name
                known = tops.get(name)
                top = changed[name] = tops[name] = Top(part, 1) if known is None else Top(known.part, known.offset + 1)
                tops.move_to_end(name)
                places.append(Place(name, top.part, top.offset))
                if batch.positions:
                    positions.append(Position(epoch_name(self.at.epoch, top.part), top.offset))
            carried.append(Carried(publication.kind, publication.body, publication.label, places))
        forgotten = [tops.popitem(last=False)[0] for _ in range(len(tops) - self._topics_max)]
        if forgotten:
            self.part += 1
        first = self.at.seq == 1
        return Planned(self.at, Entry(part, batch.new_epoch or first, carried, forgotten), changed, positions)


def words_of(tops: Iterable[tuple[str, Top]]) -> list[str | bytes | int]:
    """Return tops as words of a command: a topic, then its part and offset as one word, and so on."""
    return [word for topic, top in tops for word in (topic, b"%d %d" % top)]


def tops_of(words: Sequence[bytes]) -> dict[str, Top]:
    """Return the tops that `words_of` wrote."""
    pairs = zip(words[::2], words[1::2], strict=True)
    return {topic.decode(): Top(*map(int, top.split())) for topic, top in pairs}
