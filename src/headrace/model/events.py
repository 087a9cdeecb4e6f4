"""What decoders give and what the bus carries."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

Via: TypeAlias = Literal["cpi", "log"]
MessageKind: TypeAlias = Literal["event", "promote", "retract", "gap"]


class DecodedEvent(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One program event of one transaction.

    `program` is the name of its IDL file (or the program id where there is none), `name` the event's name in the IDL.
    `data` holds native values: int, bool, base58 str for keys, str, list, dict, None for a field that a shorter (older)
    layout lacks. `path` is that of the instruction that emitted it; `ordinal` counts the events of one path from 0.
    `leftover` is the number of bytes after the layout's end (a longer, newer layout). `truncated`: logs were cut, the
    transaction may have emitted more than is here.
    """

    program: str
    program_id: str
    name: str
    via: Via
    path: tuple[int, ...]
    ordinal: int
    data: dict[str, Any]
    leftover: int = 0
    truncated: bool = False


class NamedInstruction(msgspec.Struct, frozen=True, gc=False):
    """One instruction with the names of its program, of itself and of its accounts.

    `name` is None where the program or the discriminator is unknown. `names` are the IDL's for the first of `keys`.
    """

    program: str
    program_id: str
    name: str | None
    path: tuple[int, ...]
    names: Sequence[str]
    keys: tuple[str, ...]

    @property
    def accounts(self) -> dict[str, str]:
        """Map the names to keys; further keys are `remaining_<n>`."""
        extra = [f"remaining_{n}" for n in range(len(self.keys) - len(self.names))]
        return dict(zip((*self.names, *extra), self.keys, strict=False))


class EventBody(NamedTuple):
    """Body of an event's message: `data` is where its data begins, `fields` and `end` are those of its fields.

    What stands before `data` and after the fields' object is the same in all messages of the event.
    """

    text: bytes
    data: int
    fields: int
    end: int

    @property
    def fields_json(self) -> bytes:
        """The event's fields as a JSON object."""
        return self.text[self.fields : self.end]

    def with_data(self, opening: bytes) -> bytes:
        """Return the body of another message of the event, whose data begin so and end with the fields."""
        return b"%b%b%b" % (self.text[: self.data], opening, self.text[self.fields :])

    def with_all(self, data: bytes) -> bytes:
        """Return the body of another message of the event with other data."""
        return b"%b%b%b" % (self.text[: self.data], data, self.text[self.end + 1 :])


class DecodedAccount(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One account's data under its program's layout; native values as in DecodedEvent."""

    program: str
    program_id: str
    name: str
    data: dict[str, Any]
    leftover: int = 0


class Position(NamedTuple):
    """A place in a topic's log. `offset` is that of the last message seen; 0 is before the first."""

    epoch: str
    offset: int


class Label(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="state"):
    """Label of an event that is the state of something, so that nobody on the way need read the body.

    `key` says of what, as `model.states` makes it. `event_id` and `slot` (None for an event of no slot) are those of
    the body; `certain`: no fork can take the event back. As JSON, labels are short lists.
    """

    key: str
    event_id: str
    slot: int | None
    certain: bool


class Promotion(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="promote"):
    """Label of a `promote`: the slot that is confirmed."""

    slot: int


class Retraction(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="retract"):
    """Label of a `retract`: the ids of the events that are taken back."""

    event_ids: tuple[str, ...]


AnyLabel: TypeAlias = Label | Promotion | Retraction


class TopicHandle(msgspec.Struct, gc=False, eq=False):
    """A topic as publishers name it: a bus looks the name up once for a handle, not once for a message.

    Handles are free to make and to keep: of several for one topic each is good, on every bus, whatever the bus forgets
    meanwhile. `log` is what a bus found and is the bus's own.
    """

    # Without gc, as no cycle can come: neither a log nor a message knows a handle.

    name: str
    log: Any = None


class Publication(msgspec.Struct, frozen=True, gc=False):
    """One message to append to one or more topics of one lane.

    `body` is the JSON text that follows the offset in the frame, without the outer braces: for an event
    `"event_id":"…","data":{…},"chain":{…}`. `label` says what consumers on the server need of the body: of an event
    that belongs to the topic's state, a `promote` and a `retract`. Other messages have none.
    """

    topics: tuple[TopicHandle, ...]
    kind: MessageKind
    body: bytes
    label: AnyLabel | None = None

    @classmethod
    def on(cls, topic: str, kind: MessageKind, body: bytes, label: AnyLabel | None = None) -> "Publication":
        """Return a message for the topic of this name; handles are for topics that are published on often."""
        return cls((TopicHandle(topic),), kind, body, label)

    @property
    def topic(self) -> str:
        """Return the name of the first topic."""
        return self.topics[0].name


class TopicEpoch(msgspec.Struct, gc=False):
    """A topic in one epoch, shared by its messages. `head` begins their frames, once a framer has written one."""

    topic: str
    epoch: str
    head: bytes = b""


class Message(msgspec.Struct, frozen=True, gc=False):
    """A publication that has its place in the log of one topic.

    `at_s` is when the message came to this process, in seconds of the monotonic clock.
    """

    within: TopicEpoch
    kind: MessageKind
    offset: int
    body: bytes
    label: AnyLabel | None = None
    at_s: float = 0.0

    @property
    def topic(self) -> str:
        """Return the name of the topic."""
        return self.within.topic

    @property
    def epoch(self) -> str:
        """Return the epoch in which `offset` counts."""
        return self.within.epoch

    @property
    def position(self) -> Position:
        """Return the place in the topic's log."""
        return Position(self.within.epoch, self.offset)
