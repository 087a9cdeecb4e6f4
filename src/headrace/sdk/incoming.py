"""Decodes the server's frames into types. A malformed frame is an error. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from headrace.model.events import Position
from headrace.sdk.values import Chain, Event, Gap, Head, OrderAnswer, Page, Promote, Retract

Record: TypeAlias = Event | Promote | Retract | Gap
Offset = Annotated[int, msgspec.Meta(ge=0)]


class Unreadable(Exception):  # noqa: N818  (the server's fault)
    """The frame does not follow the protocol, so messages may be missing on this connection."""


class Frame(msgspec.Struct, frozen=True):
    """Any frame. `data` is decoded once the type is known."""

    type: str
    id: int | str | None = None
    topic: str = ""
    epoch: str = ""
    offset: Offset | None = None
    event_id: str = ""
    ack: bool = False
    data: msgspec.Raw = msgspec.Raw(b"null")
    chain: Chain | None = None

    @property
    def position(self) -> Position:
        """The frame's position. Raises Unreadable if the frame has no position."""
        if not self.epoch or self.offset is None or not self.topic:
            raise Unreadable(f"{self.type} without a position")
        return Position(self.epoch, self.offset)


class WelcomeData(msgspec.Struct, frozen=True):
    connection_id: str
    ping_s: float
    pong_s: float
    user_id: str | None = None
    server_id: str = ""


class SubscribedData(msgspec.Struct, frozen=True):
    epoch: str
    offset: Offset
    was_recovering: bool = False
    recovered: bool = False

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.offset)


class LagData(msgspec.Struct, frozen=True):
    from_offset: Offset
    to_offset: Offset
    dropped: Offset
    epoch: str = ""


class SnapshotData(msgspec.Struct, frozen=True):
    items: tuple[msgspec.Raw, ...]
    as_of_slot: int | None = None
    complete: bool = True
    next: Any = None


class FieldError(msgspec.Struct, frozen=True):
    name: str
    message: str


class ErrorData(msgspec.Struct, frozen=True):
    """Data of an `error` frame.

    The fields from `reason` on belong to a refused order command. Without `fate`, no order was affected.
    """

    code: int
    message: str
    temporary: bool = False
    retry_after_ms: int | None = None
    reason: str = ""
    retryable: bool = False
    fate: str | None = None
    errors: tuple[FieldError, ...] = ()


class OrderFrame(msgspec.Struct, frozen=True):
    """An `order` frame."""

    data: dict[str, Any]
    replayed: bool = False
    requested: bool = False


class PingData(msgspec.Struct, frozen=True):
    class HeadData(msgspec.Struct, frozen=True):
        processed: int | None = None
        confirmed: int | None = None

    ts: int = 0
    head: HeadData = HeadData()
    upstream_lag_ms: int | None = None
    tops: dict[str, Offset] = {}

    def known(self) -> Head:
        """Return the newest slots of the chain that the heartbeat names."""
        return Head(
            at_ms=self.ts,
            processed=self.head.processed,
            confirmed=self.head.confirmed,
            upstream_lag_ms=self.upstream_lag_ms,
        )


class _PromoteData(msgspec.Struct, frozen=True):
    slot: int
    commitment: str


class _RetractData(msgspec.Struct, frozen=True):
    event_ids: tuple[str, ...]
    reason: str


class _GapData(msgspec.Struct, frozen=True):
    gap_id: str
    from_slot: int
    to_slot: int
    state: Literal["open", "backfilled", "unrecoverable"]
    reason: str = ""


class _PageData(msgspec.Struct, frozen=True):
    epoch: str
    offset: Offset
    items: tuple[msgspec.Raw, ...]


# Not strict: integers arrive as text, because JavaScript can't represent all of them.
_frame = msgspec.json.Decoder(Frame, strict=False)
_any = msgspec.json.Decoder()
welcome_data = msgspec.json.Decoder(WelcomeData, strict=False)
subscribed_data = msgspec.json.Decoder(SubscribedData, strict=False)
lag_data = msgspec.json.Decoder(LagData, strict=False)
snapshot_data = msgspec.json.Decoder(SnapshotData, strict=False)
order_frame = msgspec.json.Decoder(OrderFrame)
quote = msgspec.json.Decoder(dict[str, Any])
error_data = msgspec.json.Decoder(ErrorData, strict=False)
ping_data = msgspec.json.Decoder(PingData, strict=False)
_promote_data = msgspec.json.Decoder(_PromoteData, strict=False)
_retract_data = msgspec.json.Decoder(_RetractData)
_gap_data = msgspec.json.Decoder(_GapData, strict=False)
_page_data = msgspec.json.Decoder(_PageData, strict=False)


def read_frame(text: str) -> Frame:
    """Return one JSON object as a frame. Raises msgspec.DecodeError or RecursionError, like the decoders of `data`."""
    return _frame.decode(text)


def read_order(text: str) -> OrderAnswer:
    """Return the answer to an order command. Raises msgspec.DecodeError."""
    frame = order_frame.decode(text)
    return OrderAnswer(order=frame.data, replayed=frame.replayed, requested=frame.requested)


def read_page(frame: Frame) -> Page:
    """Return the page of a `history` answer."""
    data = _page_data.decode(frame.data)
    return Page(topic=frame.topic, top=Position(data.epoch, data.offset), items=tuple(_records(data.items)))


def events_of(items: Iterable[msgspec.Raw]) -> tuple[Event, ...]:
    """Return the events of a snapshot's page."""
    return tuple(record for record in _records(items) if isinstance(record, Event))


def _records(items: Iterable[msgspec.Raw]) -> Iterator[Record]:
    """Yield the records of a page of frames. Kinds that only a newer server knows are left out."""
    for raw in items:
        text = bytes(raw).decode()
        frame = read_frame(text)
        if frame.type in RECORDS:
            yield RECORDS[frame.type](frame, text)


def _event(frame: Frame, text: str) -> Event:
    return Event(
        topic=frame.topic,
        position=frame.position,
        event_id=frame.event_id,
        data=_any.decode(frame.data),
        chain=frame.chain,
        ack=frame.ack,
        frame=text,
    )


def _promote(frame: Frame, text: str) -> Promote:
    data = _promote_data.decode(frame.data)
    return Promote(topic=frame.topic, position=frame.position, slot=data.slot, commitment=data.commitment, frame=text)


def _retract(frame: Frame, text: str) -> Retract:
    data = _retract_data.decode(frame.data)
    return Retract(topic=frame.topic, position=frame.position, event_ids=data.event_ids, reason=data.reason, frame=text)


def _gap(frame: Frame, text: str) -> Gap:
    data = _gap_data.decode(frame.data)
    return Gap(
        topic=frame.topic,
        position=frame.position,
        gap_id=data.gap_id,
        from_slot=data.from_slot,
        to_slot=data.to_slot,
        state=data.state,
        reason=data.reason,
        frame=text,
    )


RECORDS: Final[Mapping[str, Callable[[Frame, str], Record]]] = MappingProxyType(
    {"event": _event, "promote": _promote, "retract": _retract, "gap": _gap}
)
"""The kinds of frames that have an offset in a topic's log."""
