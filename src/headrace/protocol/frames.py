"""Frames of the wire protocol: inbound commands as strict types, outbound frames as bytes. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

import msgspec

from headrace.model.errors import RequestError
from headrace.model.events import Message, MessageKind, Position
from headrace.model.orders import OrderRefused
from headrace.model.topics import TOPIC_LENGTH_MAX
from headrace.protocol.codes import ErrorCode

OnSlow: TypeAlias = Literal["disconnect", "conflate", "drop_oldest"]
"""What the server does with a subscription whose client can't keep up."""

FrameId: TypeAlias = str | int | None
"""The `id` of a command. Its answer repeats it unchanged."""

Framer: TypeAlias = Callable[[Message], bytes]
"""Returns the JSON text of a message's frame; in this protocol, `event_frame`."""

U64_MAX: Final = 2**64 - 1

_Topic = Annotated[str, msgspec.Meta(min_length=1, max_length=TOPIC_LENGTH_MAX)]
_Epoch = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_U64 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{1,20}\Z")]


class Envelope(msgspec.Struct, frozen=True):
    """The parts of every command: its type, the `id` for the answer, and its data, decoded once the type is known."""

    type: Annotated[str, msgspec.Meta(max_length=32)]
    id: (
        Annotated[str, msgspec.Meta(max_length=64)] | Annotated[int, msgspec.Meta(ge=-(2**53) + 1, le=2**53 - 1)] | None
    ) = None
    data: msgspec.Raw = msgspec.Raw(b"{}")


class PositionData(msgspec.Struct, frozen=True):
    """Position of the last message that the client has: `{"epoch":"k3Fq","offset":"1842"}`."""

    epoch: _Epoch
    offset: _U64

    def position(self) -> Position:
        """Return the position. Raises RequestError 107 for an offset beyond u64."""
        offset = int(self.offset)
        if offset > U64_MAX:
            raise RequestError(ErrorCode.BAD_REQUEST, "offset is beyond 64 bits")
        return Position(self.epoch, offset)


class SubscribeData(msgspec.Struct, frozen=True):
    topic: _Topic
    recover: PositionData | None = None
    filter: msgspec.Raw = msgspec.Raw(b"null")
    conflate: msgspec.Raw = msgspec.Raw(b"null")
    snapshot: bool = False
    on_slow: OnSlow = "disconnect"


class UnsubscribeData(msgspec.Struct, frozen=True):
    topic: _Topic


class HistoryData(msgspec.Struct, frozen=True):
    topic: _Topic
    since: PositionData | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] = 100
    reverse: bool = False


class AuthData(msgspec.Struct, frozen=True):
    token: Annotated[str, msgspec.Meta(min_length=1, max_length=16_384)]


class AckData(msgspec.Struct, frozen=True):
    """The data of `ack`: the client has every message of its user's topic up to `offset`."""

    topic: _Topic
    offset: _U64


class Limits(msgspec.Struct, frozen=True):
    """Limits of one connection, sent with `welcome`. `history` is the maximum number of messages of a history page."""

    topics: int = 128
    frame: int = 65536
    cmd_per_s: int = 20
    history: int = 1000


class Head(msgspec.Struct, frozen=True):
    """The newest slots that the server knows. With them a client can tell a quiet market from a dead feed.

    None: unknown.
    """

    processed: int | None = None
    confirmed: int | None = None
    upstream_lag_ms: int | None = None


class BadFrame(Exception):  # noqa: N818  (the sender's fault)
    """The frame is not a command: not JSON, not an object, or without a valid `type` or `id`."""


_TYPES: Final[Mapping[str, bytes]] = {kind: kind.encode() for kind in get_args(MessageKind)}

_encode = msgspec.json.Encoder().encode
_envelope = msgspec.json.Decoder(Envelope)


def read_envelope(text: bytes | str) -> Envelope:
    """Parse one inbound frame. Raises BadFrame. The parser limits the nesting; the caller must limit the size."""
    try:
        return _envelope.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadFrame from error


def event_frame(message: Message) -> bytes:
    """Return the JSON text of one event, promote, retract or gap frame. The body is not parsed."""
    within = message.within
    if not within.head:
        within.head = b'"topic":%b,"epoch":%b,"offset":"' % (_encode(within.topic), _encode(within.epoch))
    return b'{"type":"%b",%b%d",%b}' % (_TYPES[message.kind], within.head, message.offset, message.body)


def text_header(length: int) -> bytes:
    """Return the header of an unmasked, unfragmented text frame with `length` bytes of payload (RFC 6455 §5.2)."""
    return frame_header(1, length)


def frame_header(opcode: int, length: int, *, compressed: bool = False) -> bytes:
    """Return the header of an unmasked, unfragmented frame of any kind. `compressed` sets the bit of RFC 7692."""
    first = 0xC0 | opcode if compressed else 0x80 | opcode
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")


def welcome(
    *, connection_id: str, user_id: str | None, server_id: str, ping_s: float, pong_s: float, limits: Limits
) -> bytes:
    shown = {"topics": limits.topics, "frame": limits.frame, "cmd_per_s": limits.cmd_per_s}
    return _frame(
        "welcome",
        data={
            "connection_id": connection_id,
            "user_id": user_id,
            "server_id": server_id,
            "ping_s": ping_s,
            "pong_s": pong_s,
            "limits": shown,
        },
    )


def authenticated(request_id: FrameId, user_id: str, expires_in_s: int) -> bytes:
    return _frame("authenticated", request_id, data={"user_id": user_id, "expires_in_s": expires_in_s})


def auth_expiring(in_s: int) -> bytes:
    return _frame("auth_expiring", data={"in_s": in_s})


def subscribed(
    topic: str, request_id: FrameId, top: Position, *, was_recovering: bool, recovered: bool, replayed: int
) -> bytes:
    data = {
        "epoch": top.epoch,
        "offset": str(top.offset),
        "was_recovering": was_recovering,
        "recovered": recovered,
        "replayed": replayed,
    }
    return _frame("subscribed", request_id, topic, data)


def unsubscribed(topic: str, request_id: FrameId) -> bytes:
    return _frame("unsubscribed", request_id, topic)


def error(failure: RequestError, request_id: FrameId = None, topic: str | None = None) -> bytes:
    """Return an `error` frame. `topic` identifies a failed entry of `?subscriptions=`, which has no id."""
    return _frame("error", request_id, topic, _error_data(failure))


def order(view: Any, request_id: FrameId, **more: bool) -> bytes:
    """Return the answer to an order command: the order as over HTTP. `more` replaces HTTP's status and headers."""
    frame: dict[str, Any] = {"type": "order"}
    if request_id is not None:
        frame["id"] = request_id
    return _encode({**frame, **more, "data": view})


def quote(view: Any, request_id: FrameId) -> bytes:
    """Return the answer to `quote`: the offer as over HTTP."""
    return _frame("quote", request_id, data=view)


def order_error(refused: OrderRefused, request_id: FrameId) -> bytes:
    """Return an `error` frame with the members of the order's HTTP problem, whose `code` becomes `reason`."""
    data = _error_data(refused) | {
        "status": int(refused.status),
        "reason": refused.reason,
        "retryable": refused.temporary,
        "fate": refused.fate,
        "errors": [{"name": name, "message": message} for name, message in refused.fields.items()],
    }
    return _frame("error", request_id, data=data)


def ping(ts_ms: int, head: Head, tops: Mapping[str, int]) -> bytes:
    known = {"processed": _text(head.processed), "confirmed": _text(head.confirmed)}
    data = {
        "ts": ts_ms,
        "head": known,
        "upstream_lag_ms": head.upstream_lag_ms,
        "tops": {topic: str(offset) for topic, offset in tops.items()},
    }
    return _frame("ping", data=data)


def lag(topic: str, epoch: str, from_offset: int, to_offset: int, dropped: int) -> bytes:
    data = {"epoch": epoch, "from_offset": str(from_offset), "to_offset": str(to_offset), "dropped": dropped}
    return _frame("lag", topic=topic, data=data)


def history(topic: str, request_id: FrameId, top: Position, items: Iterable[bytes]) -> bytes:
    """Return a page of history. `items` are complete event frames; `top` is the topic's newest position."""
    data = {"epoch": top.epoch, "offset": str(top.offset), "items": [msgspec.Raw(item) for item in items]}
    return _frame("history", request_id, topic, data)


def snapshot(
    topic: str, at: Position, as_of_slot: int | None, items: Iterable[bytes], next_page: int | None, *, complete: bool
) -> bytes:
    """Return one page of a topic's state.

    `items` are complete event frames; `next_page` is the number of the next page.
    """
    data = {
        "as_of_slot": _text(as_of_slot),
        "items": [msgspec.Raw(item) for item in items],
        "complete": complete,
        "next": _text(next_page),
    }
    return _encode({"type": "snapshot", "topic": topic, "epoch": at.epoch, "offset": str(at.offset), "data": data})


def letter(topic: str, epoch: str, offset: int, event_id: str, data: str, *, ack: bool) -> bytes:
    """Return the frame of an inbox message. `data` is JSON."""
    frame: dict[str, Any] = {"type": "event", "topic": topic, "epoch": epoch, "offset": str(offset)}
    frame["event_id"] = event_id
    if ack:
        frame["ack"] = True
    return _encode({**frame, "data": msgspec.Raw(data.encode())})


def acknowledged(topic: str, request_id: FrameId, offset: int) -> bytes:
    return _frame("acknowledged", request_id, topic, {"offset": str(offset)})


def items_within(messages: Sequence[Message], framer: Framer, bytes_max: int) -> list[bytes]:
    """Return the frames of the first messages that together fit in `bytes_max`, but always at least one."""
    items: list[bytes] = []
    room = bytes_max
    for message in messages:
        item = framer(message)
        room -= len(item)
        if items and room < 0:
            break
        items.append(item)
    return items


def _error_data(failure: RequestError) -> dict[str, Any]:
    return {
        "code": int(failure.code),
        "message": failure.message,
        "temporary": failure.temporary,
        "retry_after_ms": failure.retry_after_ms,
    }


def _frame(kind: str, request_id: FrameId = None, topic: str | None = None, data: Any = None) -> bytes:
    frame: dict[str, Any] = {"type": kind}
    if request_id is not None:
        frame["id"] = request_id
    if topic is not None:
        frame["topic"] = topic
    if data is not None:
        frame["data"] = data
    return _encode(frame)


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
