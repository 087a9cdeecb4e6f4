"""Entries of a lane's log as they travel between processes: a batch with the place of each of its messages."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from headrace.model.errors import BadInputError
from headrace.model.events import AnyLabel, MessageKind, Publication, TopicHandle


class EntryId(NamedTuple):
    """Place of an entry in a lane's log: the log's epoch, and a number that counts from 1 in each epoch."""

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


START: Final = EntryId(0, 0)
"""Before the first entry of every log."""


class Place(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Place of a message on one topic. `part` is the part of the log's epoch in which `offset` counts."""

    topic: str
    part: int
    offset: int


class Carried(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A publication with its place on each of its topics; the body is carried once."""

    kind: MessageKind
    body: bytes
    label: AnyLabel | None
    places: list[Place]

    def publication(self) -> Publication:
        """Return the publication, with handles of this process."""
        topics = tuple([TopicHandle(place.topic) for place in self.places])
        return Publication(topics, self.kind, self.body, self.label)


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A batch in the log. Fields may be added at the end only: a process reads entries of other versions.

    `part` is the part of the epoch in which topics begin. With `restart` all topics of the lane first begin anew, in
    this part. `forgotten` are the topics that the writer forgot after the batch; topics then begin in the next part.
    """

    part: int
    restart: bool
    carried: list[Carried]
    forgotten: list[str] = []

    @property
    def next_part(self) -> int:
        """The part of the epoch in which topics begin after this entry."""
        return self.part + 1 if self.forgotten else self.part

    def publications(self) -> Sequence[Publication]:
        """Return the publications of the batch."""
        return [each.publication() for each in self.carried]


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """Return an entry as msgpack."""
    return _encoder.encode(entry)


def decode(data: bytes) -> Entry:
    """Return the entry that `encode` wrote. Raises BadInputError."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadInputError("log_entry", str(error)) from error


def epoch_name(epoch: int, part: int) -> str:
    """Return the epoch of topics that began in this part of a log's epoch."""
    return f"{epoch:x}-{part}" if part else f"{epoch:x}"
