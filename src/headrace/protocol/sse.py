"""Frames of the wire protocol as server-sent events, for clients that have no WebSocket. Pure.

The WHATWG HTML standard, chapter "Server-sent events", defines the format. `data` is the frame as on the WebSocket. The
event's type is the frame's type, except that `event` frames have no type and arrive at `onmessage`. The event's id is
`epoch:offset`, so that a client can resume after the last id that it received.
"""

import re
from typing import Final

import msgspec

from headrace.model.events import Position
from headrace.protocol.codes import CLOSE_REASONS, CloseCode, may_reconnect
from headrace.protocol.frames import U64_MAX

_EVENT_ID: Final = re.compile(r"([ -~]{1,64}):([0-9]{1,20})", re.ASCII)
_LINE_ENDS: Final = bytes.maketrans(b"\r\n", b"  ")


class _Frame(msgspec.Struct, frozen=True):
    """The parts of a frame that become fields of its server-sent event."""

    type: str
    epoch: str | None = None
    offset: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"{}")


class _Subscribed(msgspec.Struct, frozen=True):
    epoch: str
    offset: str
    recovered: bool


_read = msgspec.json.Decoder(_Frame).decode
_subscribed = msgspec.json.Decoder(_Subscribed).decode


def server_sent(payload: bytes) -> bytes:
    """Return one frame, given as JSON text, as one server-sent event.

    `subscribed` sets the client's id to the newest position. If missed messages follow, they set the id instead.
    """
    frame = _read(payload)
    epoch, offset = frame.epoch, frame.offset
    if frame.type == "subscribed":
        answer = _subscribed(frame.data)
        if not answer.recovered:
            epoch, offset = answer.epoch, answer.offset
    lines = b"" if epoch is None or offset is None else b"id: %b:%b\n" % (epoch.encode(), offset.encode())
    if frame.type != "event":
        lines += b"event: %b\n" % frame.type.encode()
    return b"%bdata: %b\n\n" % (lines, payload.translate(_LINE_ENDS))  # JSON treats a line end as white space


def retry(delay_ms: int) -> bytes:
    """Return the field that sets how long an EventSource waits before it reconnects."""
    return b"retry: %d\n\n" % delay_ms


def close(code: CloseCode) -> bytes:
    """Return the last event of a stream that the server ends, with the content of a WebSocket's close frame."""
    data = {"code": int(code), "reason": CLOSE_REASONS.get(code, ""), "reconnect": may_reconnect(code)}
    return b"event: close\ndata: %b\n\n" % msgspec.json.encode({"type": "close", "data": data})


def position_of(event_id: str) -> Position | None:
    """Return the position that an event's id names; None if the id is malformed."""
    found = _EVENT_ID.fullmatch(event_id)
    if found is None or int(found[2]) > U64_MAX:
        return None
    return Position(found[1], int(found[2]))
