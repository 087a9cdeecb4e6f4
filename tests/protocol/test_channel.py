"""The codec of the channel for other programs: what is written is read, and anything else is refused by name."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.protocol.channel import (
    CHANNEL_BYTES_MAX,
    ChannelMessage,
    MalformedMessage,
    Target,
    ToAll,
    ToServer,
    ToTopic,
    ToUser,
    read_message,
    write_message,
)
from tests.examples import examples

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=50)
users = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=128)
targets: st.SearchStrategy[Target] = st.one_of(
    st.just(ToAll(True)), st.builds(ToTopic, texts), st.builds(ToUser, users), st.builds(ToServer, texts)
)
datas = st.dictionaries(texts, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts)


@settings(max_examples=examples(400), deadline=None)
@given(texts, texts, targets, datas)
def test_what_is_written_is_read(message_id: str, sender: str, target: Target, data: dict[str, Any]) -> None:
    message = ChannelMessage(message_id, sender, target, msgspec.json.encode(data))
    assert read_message(write_message(message)) == message


@settings(max_examples=examples(400), deadline=None)
@given(st.binary(max_size=200) | st.recursive(datas, lambda one: st.lists(one)).map(msgspec.json.encode))
def test_anything_else_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedMessage):
        read_message(text)


GOOD: dict[str, Any] = {"id": "1", "from": "shop", "target": {"all": True}, "data": {"type": "Sale"}}


@pytest.mark.parametrize("target", [{"all": True}, {"topic": "app:x"}, {"user": "42"}, {"server": "a"}])
def test_each_target_is_read(target: dict[str, Any]) -> None:
    text = msgspec.json.encode(GOOD | {"target": target, "later": 1})
    found = read_message(text)
    assert msgspec.to_builtins(found.target) == target
    assert (found.id, found.sender, msgspec.json.decode(found.data)) == ("1", "shop", {"type": "Sale"})


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"id": 1}, "id"),
        ({"id": ""}, "id"),
        ({"id": "x" * 201}, "id"),
        ({"from": None}, "from"),
        ({"target": "all"}, "object"),
        ({"target": {}}, "target"),
        ({"target": {"all": False}}, "target.all"),
        ({"target": {"all": True, "topic": "app:x"}}, "target"),
        ({"target": {"topic": ""}}, "topic"),
        ({"target": {"topic": "x" * 200}}, "topic"),
        ({"target": {"user": "new\nline"}}, "user"),
        ({"target": {"users": ["42"]}}, "target"),
        ({"data": {"x": "x" * CHANNEL_BYTES_MAX}}, "longer"),
    ],
)
def test_a_wrong_member_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(MalformedMessage, match=named):
        read_message(msgspec.json.encode(GOOD | wrong))


@pytest.mark.parametrize("missing", ["id", "from", "target", "data"])
def test_a_missing_member_is_named(missing: str) -> None:
    text = msgspec.json.encode({name: value for name, value in GOOD.items() if name != missing})
    with pytest.raises(MalformedMessage, match=missing):
        read_message(text)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b'{"id":"1","from":"a","data":' + b"[" * 9999])
def test_what_is_no_json_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedMessage):
        read_message(text)


def test_own_messages_and_repeats_are_recognised() -> None:
    one, again = read_message(msgspec.json.encode(GOOD)), read_message(msgspec.json.encode(GOOD | {"data": {}}))
    other = read_message(msgspec.json.encode(GOOD | {"from": "sho", "id": "p1"}))
    own = read_message(msgspec.json.encode(GOOD | {"from": "headrace:a"}))
    assert one.event_id == again.event_id
    assert len({one.event_id, other.event_id, own.event_id}) == 3
    assert (one.own, own.own) == (False, True)
