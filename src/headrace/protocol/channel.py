"""Messages on the channel for other programs: from JSON, and to JSON. Pure."""

import hashlib
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from headrace.model.identity import SUBJECT_LENGTH_MAX
from headrace.model.topics import TOPIC_LENGTH_MAX

CHANNEL_BYTES_MAX: Final = 65_536
"""Maximum size of one message; what is longer is not read."""

OWN: Final = "headrace:"
"""Begins `from` in every message that a server of Headrace published. Other programs' names must not begin so."""

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class ToAll(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every client of every server: `{"all":true}`."""

    all: bool


class ToTopic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The clients that subscribed to a topic."""

    topic: Annotated[str, msgspec.Meta(min_length=1, max_length=TOPIC_LENGTH_MAX)]


class ToUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The connections of one user."""

    user: Annotated[str, msgspec.Meta(pattern=r"\A[ -~]+\Z", max_length=SUBJECT_LENGTH_MAX)]


class ToServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every client of one server."""

    server: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


Target: TypeAlias = ToAll | ToTopic | ToUser | ToServer
"""The receivers of a message."""

_TARGETS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    "all": msgspec.json.Decoder(ToAll),
    "topic": msgspec.json.Decoder(ToTopic),
    "user": msgspec.json.Decoder(ToUser),
    "server": msgspec.json.Decoder(ToServer),
}


class ChannelMessage(msgspec.Struct, frozen=True):
    """One message. `id` is unique among those of `sender`; `data` is the JSON of an object, which is not read here."""

    id: str
    sender: str
    target: Target
    data: bytes

    @property
    def own(self) -> bool:
        """Return whether a server of Headrace published the message."""
        return self.sender.startswith(OWN)

    @property
    def event_id(self) -> str:
        """Return the id of the event that the message becomes: the same each time the message is published."""
        names = msgspec.json.encode((self.sender, self.id))
        return f"app:{hashlib.sha256(names).hexdigest()[:24]}"


class _Written(msgspec.Struct, frozen=True, kw_only=True):
    """A message as it is on the channel. Members that this version does not know are left out."""

    id: _Id
    sender: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = msgspec.field(name="from")
    target: msgspec.Raw
    data: msgspec.Raw


class MalformedMessage(Exception):  # noqa: N818  (the sender's fault)
    """The bytes are no message. The text names members and types, never values."""


_written = msgspec.json.Decoder(_Written)
_target_names = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_message(text: bytes) -> ChannelMessage:
    """Return the message. Raises MalformedMessage."""
    if len(text) > CHANNEL_BYTES_MAX:
        raise MalformedMessage(f"longer than {CHANNEL_BYTES_MAX} bytes")
    try:
        written = _written.decode(text)
        return ChannelMessage(written.id, written.sender, _read_target(written.target), bytes(written.data))
    except msgspec.ValidationError as error:
        raise MalformedMessage(str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise MalformedMessage("not JSON") from None


def write_message(message: ChannelMessage) -> bytes:
    """Return the message as JSON."""
    data = msgspec.Raw(message.data)
    return msgspec.json.encode({"id": message.id, "from": message.sender, "target": message.target, "data": data})


def _read_target(text: msgspec.Raw) -> Target:
    """Return the target. Raises MalformedMessage unless it has one of the four members, and no other."""
    names = list(_target_names.decode(text))
    if len(names) != 1 or names[0] not in _TARGETS:
        raise MalformedMessage("target: not one of all, topic, user and server")
    target: Target = _TARGETS[names[0]].decode(text)
    if isinstance(target, ToAll) and not target.all:
        raise MalformedMessage("target.all: not true")
    return target
