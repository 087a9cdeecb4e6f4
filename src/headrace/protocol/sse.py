"""Frames of the wire protocol as server-sent events, for clients that have no WebSocket. Pure.

The format is the WHATWG HTML standard's, chapter "Server-sent events". `data` is the frame as the WebSocket has it; the
event's type is the frame's, `event` being the one that needs no name (`onmessage`); its id is `epoch:offset`, so that
the last id a client has seen says where it is.
"""

import re
from typing import Final

import msgspec

from headrace.model.events import Position
from headrace.protocol.codes import CLOSE_REASONS, CloseCode, may_reconnect
from headrace.protocol.frames import U64_MAX

_EVENT_ID: Final = re.compile(r"([ -~]{1,64}):([0-9]{1,20})", re.ASCII)
_LINE_ENDS: Final = bytes.maketrans(b"\r\n", b"  ")


class _Told(msgspec.Struct, frozen=True):
    """What of a frame goes into the fields of its event."""

    type: str
    epoch: str | None = None
    offset: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"{}")


class _Subscribed(msgspec.Struct, frozen=True):
    epoch: str
    offset: str
    recovered: bool


_told = msgspec.json.Decoder(_Told).decode
_subscribed = msgspec.json.Decoder(_Subscribed).decode


def server_sent(payload: bytes) -> bytes:
    """One frame's JSON text as one server-sent event.

    `subscribed` moves the client's id to the newest position, unless what it missed follows: then those move it.
    """
    told = _told(payload)
    epoch, offset = told.epoch, told.offset
    if told.type == "subscribed":
        answer = _subscribed(told.data)
        if not answer.recovered:
            epoch, offset = answer.epoch, answer.offset
    lines = b"" if epoch is None or offset is None else b"id: %b:%b\n" % (epoch.encode(), offset.encode())
    if told.type != "event":
        lines += b"event: %b\n" % told.type.encode()
    return b"%bdata: %b\n\n" % (lines, payload.translate(_LINE_ENDS))  # in JSON a bare line end is only a space


def retry(delay_ms: int) -> bytes:
    """Tells an EventSource how long to wait before it comes back."""
    return b"retry: %d\n\n" % delay_ms


def close(code: CloseCode) -> bytes:
    """The last event of a stream that the server ends: what a close frame says on a WebSocket."""
    told = {"code": int(code), "reason": CLOSE_REASONS.get(code, ""), "reconnect": may_reconnect(code)}
    return b"event: close\ndata: %b\n\n" % msgspec.json.encode({"type": "close", "data": told})


def position_of(event_id: str) -> Position | None:
    """The position that an event's id names; None for what is no id of ours."""
    found = _EVENT_ID.fullmatch(event_id)
    if found is None or int(found[2]) > U64_MAX:
        return None
    return Position(found[1], int(found[2]))
