"""The frame reader alone: any cut of the same bytes gives the same messages, and no bytes break it."""

import tracemalloc
import zlib
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.transports.rfc6455 import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    Data,
    Inbound,
    Received,
    Text,
    Violation,
)
from tests.gateway.running_gateway import frame

LIMIT = 1000


class Outcome(NamedTuple):
    received: list[Received]
    code: int | None


def deflated(payload: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


BOMB = deflated(b"\0" * 10_000_000)


def read(pieces: list[bytes], *, deflate: bool = True, limit: int = LIMIT) -> Outcome:
    inbound = Inbound()
    inbound.message_bytes_max, inbound.deflate = limit, deflate
    received: list[Received] = []
    try:
        for piece in pieces:
            received += [one for one in inbound.receive(piece) if one != Data(CONTINUATION, b"")]
    except Violation as violation:
        return Outcome(received, violation.code)
    return Outcome(received, None)


def message(draw: st.DrawFn) -> tuple[bytes, list[Received]]:
    """A message in one frame or several, compressed or not, perhaps with pings between; and what it is."""
    text = draw(st.booleans())
    payload = draw(st.text(max_size=200)).encode() if text else draw(st.binary(max_size=800))
    compressed = draw(st.booleans())
    wire = deflated(payload) if compressed else payload
    cuts = sorted(draw(st.lists(st.integers(0, len(wire)), max_size=3)))
    parts = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    data, pings = b"", 0
    for index, part in enumerate(parts):
        opcode = (TEXT if text else BINARY) if index == 0 else CONTINUATION
        data += frame(opcode, part, fin=index == len(parts) - 1, rsv=4 if compressed and index == 0 else 0)
        if index < len(parts) - 1 and draw(st.booleans()):
            data += frame(PING, b"p")
            pings += 1
    whole: Received = Text(payload.decode()) if text else Data(BINARY, payload)
    return data, [*[Data(PING, b"p")] * pings, whole]


messages = st.lists(st.composite(message)(), max_size=4)


@given(messages, st.data())
def test_any_cut_gives_the_same_messages(wanted: list[tuple[bytes, list[Received]]], data: st.DataObject) -> None:
    stream = b"".join(part for part, _ in wanted)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(pieces) == ([one for _, expected in wanted for one in expected], None)


@given(st.lists(st.binary(max_size=100), max_size=8), st.booleans())
def test_no_bytes_do_more_than_end_the_connection(pieces: list[bytes], deflate: bool) -> None:
    assert read(pieces, deflate=deflate).code in (None, 1002, 1007, 1009)


@given(st.binary(max_size=2000))
def test_no_compressed_bytes_do_more_than_end_the_connection(junk: bytes) -> None:
    outcome = read([frame(BINARY, junk[:LIMIT], rsv=4)])
    assert outcome.code in (None, 1007, 1009)
    assert all(len(one.data) <= LIMIT for one in outcome.received)


@pytest.mark.parametrize(
    ("what", "data", "code"),
    [
        ("a bomb", frame(BINARY, BOMB[:LIMIT], rsv=4), 1009),
        ("one byte too many", frame(BINARY, deflated(b"\0" * (LIMIT + 1)), rsv=4), 1009),
        (
            "a bomb in fragments",
            frame(BINARY, deflated(b"\0" * 500_000)[:50], rsv=4, fin=False) + frame(0, b"\0"),
            1009,
        ),
        ("no deflate data", frame(TEXT, b"\xff\xff\xff\xff", rsv=4), 1007),
        ("bad UTF-8 inside", frame(TEXT, deflated(b"\xff\xfe"), rsv=4), 1007),
        ("more after the end", frame(TEXT, b"\xf3\x48\xcd\xc9\xc9\x07\x00" + b"junk", rsv=4), 1007),
        ("a compressed continuation", frame(TEXT, b"x", fin=False) + frame(0, b"y", rsv=4), 1002),
        ("a compressed ping", frame(PING, b"x", rsv=4), 1002),
        ("too large compressed", frame(BINARY, b"\0" * (LIMIT + 1), rsv=4), 1009),
    ],
)
def test_bad_compressed_messages(what: str, data: bytes, code: int) -> None:
    assert read([data]) == ([], code), what


def test_the_largest_message_is_whole() -> None:
    assert read([frame(BINARY, deflated(b"\0" * LIMIT), rsv=4)]) == ([Data(BINARY, b"\0" * LIMIT)], None)


def test_the_example_of_rfc_7692_with_a_final_block() -> None:
    assert read([frame(TEXT, b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", rsv=4)]) == ([Text("Hello")], None)


def test_compression_that_was_not_agreed_on() -> None:
    assert read([frame(TEXT, deflated(b"x"), rsv=4)], deflate=False) == ([], 1002)


def test_empty_fragments_leave_nothing_behind() -> None:
    inbound = Inbound()
    inbound.message_bytes_max = LIMIT
    list(inbound.receive(frame(BINARY, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 5000))
    fragments = inbound._fragments
    assert fragments is not None
    assert fragments.data == b""


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_in_crumbs_weighs_little_more_than_whole(opcode: int) -> None:
    inbound = Inbound()
    inbound.message_bytes_max = 65_536
    crumbs = [frame(opcode if n == 0 else CONTINUATION, b"\xc3\xa9", fin=False) for n in range(20_000)]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for crumb in crumbs:
        list(inbound.receive(crumb))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 2 * inbound.message_bytes_max


def test_a_close_comes_out_as_it_is() -> None:
    assert read([frame(CLOSE, b"\x03\xe8bye")]) == ([Data(CLOSE, b"\x03\xe8bye")], None)
