"""Events and accounts as decoders return them, and messages as the bus carries them."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

Via: TypeAlias = Literal["cpi", "log"]
MessageKind: TypeAlias = Literal["event", "promote", "retract", "gap"]


class DecodedEvent(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One program event of one transaction.

    - `program`: the name of the program's IDL file (or the program id if it has no IDL).
    - `name`: the event's name in the IDL.
    - `data`: native values: int, bool, base58 str for keys, str, list, dict. A field that a shorter (older) layout
      lacks is None.
    - `path`: the path of the instruction that emitted the event.
    - `ordinal`: the number of the event among those of its path, from 0.
    - `leftover`: the number of bytes after the layout's end (a longer, newer layout).
    - `truncated`: the logs were cut off, so the transaction may have emitted further events.
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
    """One instruction with its own name and the names of its program and its accounts.

    `name` is None if the program or the discriminator is unknown. `names` are the IDL's names for the first of `keys`.
    """

    program: str
    program_id: str
    name: str | None
    path: tuple[int, ...]
    names: Sequence[str]
    keys: tuple[str, ...]

    @property
    def accounts(self) -> dict[str, str]:
        """Account name → key. Keys beyond the IDL's names are called `remaining_<n>`."""
        extra = [f"remaining_{n}" for n in range(len(self.keys) - len(self.names))]
        return dict(zip((*self.names, *extra), self.keys, strict=False))


class EventBody(msgspec.Struct, frozen=True, gc=False):
    """Body of an event's message, and three byte positions in it.

    `data` is where the message's data begin, `fields` where the event's fields begin in these data, and `end` where the
    fields end. The bytes before `data` and after the data are the same in all messages of the event.
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
        """Return the body of another message of the event.

        Its data begin with `opening` and end with the event's fields.
        """
        return b"%b%b%b" % (self.text[: self.data], opening, self.text[self.fields :])

    def with_all(self, data: bytes) -> bytes:
        """Return the body of another message of the event, with `data` as its data."""
        return b"%b%b%b" % (self.text[: self.data], data, self.text[self.end + 1 :])


class DecodedAccount(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The data of one account under its program's layout. Values are native, as in DecodedEvent."""

    program: str
    program_id: str
    name: str
    data: dict[str, Any]
    leftover: int = 0


class Position(NamedTuple):
    """A place in a topic's log. `offset` is the offset of the last message seen; 0 is before the first message."""

    epoch: str
    offset: int


class Label(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="state"):
    """Label of an event that sets the state of one key, so that consumers on the server need not parse the body.

    `key` is the key as `model.states` builds it. `event_id` and `slot` (None for an event without a slot) repeat the
    body's. `certain` means that no fork can take the event back. As JSON, a label is a short list.
    """

    key: str
    event_id: str
    slot: int | None
    certain: bool


class Promotion(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="promote"):
    """Label of a `promote`: the slot that is confirmed."""

    slot: int


class Retraction(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="retract"):
    """Label of a `retract`: the ids of the retracted events."""

    event_ids: tuple[str, ...]


AnyLabel: TypeAlias = Label | Promotion | Retraction


class TopicHandle(msgspec.Struct, gc=False, eq=False):
    """A topic as publishers name it. A bus looks the name up once for each handle, not once for each message.

    Handles cost nothing to create and to keep. A topic may have several handles. Each works on every bus, even after
    the bus has dropped the topic's log. `log` is what a bus found for the name, and only the bus reads it.
    """

    # gc=False is safe: neither a log nor a message refers to a handle, so no cycle can form.

    name: str
    log: Any = None


class Publication(msgspec.Struct, frozen=True, gc=False):
    """One message to append to one or more topics of one lane.

    `body` is the JSON text that follows the offset in the frame, without the outer braces; for an event, that is
    `"event_id":"…","data":{…},"chain":{…}`. `label` repeats the part of the body that consumers on the server need.
    Only events that belong to a topic's state, `promote` and `retract` have a label.
    """

    topics: tuple[TopicHandle, ...]
    kind: MessageKind
    body: bytes
    label: AnyLabel | None = None

    @classmethod
    def on(cls, topic: str, kind: MessageKind, body: bytes, label: AnyLabel | None = None) -> "Publication":
        """Return a message for the topic named `topic`. For a topic with many messages, keep a TopicHandle instead."""
        return cls((TopicHandle(topic),), kind, body, label)

    @property
    def topic(self) -> str:
        """The name of the first topic."""
        return self.topics[0].name


class TopicEpoch(msgspec.Struct, gc=False):
    """A topic in one epoch, shared by all messages of the epoch.

    `head` is the opening text of their frames; empty until the first frame is built.
    """

    topic: str
    epoch: str
    head: bytes = b""


class Message(msgspec.Struct, frozen=True, gc=False):
    """A publication that has its place in the log of one topic.

    `at_s` is the time at which the message reached this process, in seconds of the monotonic clock.
    """

    within: TopicEpoch
    kind: MessageKind
    offset: int
    body: bytes
    label: AnyLabel | None = None
    at_s: float = 0.0

    @property
    def topic(self) -> str:
        """The name of the topic."""
        return self.within.topic

    @property
    def epoch(self) -> str:
        """The epoch to which `offset` belongs."""
        return self.within.epoch

    @property
    def position(self) -> Position:
        """The place in the topic's log."""
        return Position(self.within.epoch, self.offset)


def event_id_of(body: bytes) -> str:
    """Return the id with which the body of an event begins; empty for a body without one."""
    return body[12 : body.index(b'"', 12)].decode() if body.startswith(b'"event_id":"') else ""
