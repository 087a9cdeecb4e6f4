"""Conflation of a stretch of the log: the latest of each key, every record, in order."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.model.events import Message, MessageKind, TopicEpoch
from headrace.protocol.filters import parse_filter
from headrace.protocol.predicates import compiled
from headrace.protocol.selection import Conflate, Selection

KINDS: tuple[MessageKind, ...] = ("event", "event", "event", "promote", "retract", "gap")
DATAS = (b'{"k":"a"}', b'{"k":"b"}', b'{"k":1}', b'{"k":"1"}', b'{"k":null}', b"{}", b'{"k":{}}', b'"k"')
SAME = {b'{"k":"a"}': "a", b'{"k":"b"}': "b", b'{"k":1}': "1", b'{"k":"1"}': "1"}


def messages(parts: list[tuple[MessageKind, bytes]]) -> list[Message]:
    return [Message(TopicEpoch("slots", "e"), kind, n, b'"data":%b' % data) for n, (kind, data) in enumerate(parts, 1)]


def key(message: Message) -> str | None:
    return SAME.get(message.body.removeprefix(b'"data":')) if message.kind == "event" else None


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(DATAS)), max_size=30))
def test_the_latest_of_each_key_and_everything_else_in_order(parts: list[tuple[MessageKind, bytes]]) -> None:
    log = messages(parts)
    kept = Selection(None, None, Conflate("k", 100)).conflated(log)
    expected = [
        message
        for n, message in enumerate(log)
        if key(message) is None or all(key(later) != key(message) for later in log[n + 1 :])
    ]
    assert kept == expected
    assert Selection(None, None, None).conflated(log) == log


def test_records_pass_every_filter() -> None:
    chosen = parse_filter(b'{"key":"k","cmp":"eq","val":"nothing"}')
    assert chosen is not None
    log = messages([("event", b'{"k":"a"}'), ("promote", b"{}"), ("retract", b"{}"), ("gap", b"{}")])
    assert Selection(chosen, compiled(chosen.node), None).passed(log) == log[1:]
