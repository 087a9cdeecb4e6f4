"""Frames as server-sent events: whatever is in them, one event comes out, with the right id."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.events import Message, MessageKind, Position, TopicEpoch
from headrace.protocol import frames, sse
from headrace.protocol.codes import CloseCode, may_reconnect
from headrace.protocol.frames import U64_MAX, event_frame

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def fields(event: bytes) -> dict[str, str]:
    """Read as the standard says: lines end with LF, CR or CRLF, a blank one ends the event."""
    lines = event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    assert lines[-2:] == [b"", b""]
    assert b"" not in lines[:-2]  # one event, not two
    pairs = [line.decode().partition(": ") for line in lines[:-2]]
    assert len({name for name, _, _ in pairs}) == len(pairs)
    return {name: value for name, _, value in pairs}


@given(
    kind=st.sampled_from(["event", "promote", "retract", "gap"]),
    offset=st.integers(1, U64_MAX),
    data=json_values,
    indent=st.sampled_from([None, 1]),
    line_end=st.sampled_from(["\n", "\r", "\r\n"]),
)
def test_every_message_is_one_event(
    kind: MessageKind, offset: int, data: Any, indent: int | None, line_end: str
) -> None:
    body = json.dumps({"data": data}, indent=indent)[1:-1].replace("\n", line_end).encode()
    payload = event_frame(Message(TopicEpoch("slots", "g-1"), kind, offset, body))
    told = fields(sse.server_sent(payload))
    assert told.get("event", "event") == kind
    assert sse.position_of(told["id"]) == Position("g-1", offset)
    assert json.loads(told["data"]) == json.loads(payload)


@pytest.mark.parametrize(("recovered", "moved"), [(True, None), (False, "g:5")])
def test_an_answer_moves_the_id_unless_what_was_missed_follows(recovered: bool, moved: str | None) -> None:
    payload = frames.subscribed(
        "slots", None, Position("g", 5), was_recovering=True, recovered=recovered, replayed=3 if recovered else 0
    )
    told = fields(sse.server_sent(payload))
    assert (told["event"], told.get("id")) == ("subscribed", moved)


def test_a_frame_without_a_position_has_no_id() -> None:
    for payload in (frames.ping(1, frames.Head(), {"slots": 3}), frames.lag("slots", "e", 1, 2, 2)):
        assert "id" not in fields(sse.server_sent(payload))


@pytest.mark.parametrize("code", CloseCode)
def test_every_close_code_has_an_event(code: CloseCode) -> None:
    told = json.loads(fields(sse.close(code))["data"])["data"]
    assert (told["code"], told["reconnect"]) == (code, may_reconnect(code))


@given(st.text())
def test_an_id_is_a_position_or_nothing(text: str) -> None:
    found = sse.position_of(text)
    assert found is None or text.startswith(f"{found.epoch}:")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64), st.integers(0, U64_MAX))
def test_every_position_has_an_id(epoch: str, offset: int) -> None:
    assert sse.position_of(f"{epoch}:{offset}") == Position(epoch, offset)
