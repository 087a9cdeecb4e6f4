"""The HTTP/2 machine: frames cut anywhere, shared and spanned; credit, answers, ends, and what is no HTTP/2."""

import gzip
from collections.abc import Iterable
from typing import Any

import pytest
import zstandard
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from headrace.sources.yellowstone.http2 import (
    FRAME_MAX,
    HEADERS_MAX,
    OUT_MAX,
    PREFACE,
    STATUSES,
    Http2Call,
    request_headers,
)

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8
ANSWER = [(":status", "200"), ("content-type", "application/grpc")]
WINDOW_BYTES = 1024 * 1024


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 1) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def headers(*pairs: tuple[str, str], flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, Encoder().encode(pairs), flags)


def prefixed(message: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(message).to_bytes(4) + message


def split(payload: bytes, sizes: Iterable[int]) -> list[bytes]:
    parts, at = [], 0
    for size in sizes:
        parts.append(payload[at : at + size])
        at += size
    return [part for part in [*parts, payload[at:]] if part]


def call(*, answered: bool = True, window: int = WINDOW_BYTES, message_max: int = 100_000) -> Http2Call:
    made = Http2Call([(":method", "POST")], window=window, message_max=message_max)
    made.take_out()
    made.feed(frame(SETTINGS, stream=0))
    if answered:
        made.feed(headers(*ANSWER))
    made.take_out()
    return made


def frames_of(out: bytes) -> list[tuple[int, int, int, bytes]]:
    found, at = [], 0
    while at < len(out):
        length = int.from_bytes(out[at : at + 3])
        found.append((out[at + 3], out[at + 4], int.from_bytes(out[at + 5 : at + 9]), out[at + 9 : at + 9 + length]))
        at += 9 + length
    return found


def test_begin_of_a_connection_is_preface_settings_credit_and_headers() -> None:
    pairs = request_headers("host:10000", secure=True, x_token="secret", encodings="identity", user_agent="headrace/1")
    out = Http2Call(pairs, window=WINDOW_BYTES, message_max=1).take_out()
    assert out.startswith(PREFACE)
    settings, credit, begin = frames_of(out[len(PREFACE) :])
    assert settings[:3] == (SETTINGS, 0, 0)
    assert settings[3][6:12] == (4).to_bytes(2) + WINDOW_BYTES.to_bytes(4)
    assert credit == (WINDOW, 0, 0, (WINDOW_BYTES - 65_535).to_bytes(4))
    assert begin[:3] == (HEADERS, END_HEADERS, 1)
    sent = {str(name): str(value) for name, value in Decoder().decode(begin[3])}
    assert sent[":path"] == "/geyser.Geyser/Subscribe"
    assert (sent[":scheme"], sent["x-token"], sent["te"]) == ("https", "secret", "trailers")


MESSAGES = st.lists(st.binary(max_size=2_000), max_size=12)


@given(MESSAGES, st.lists(st.integers(0, 3_000), max_size=20), st.lists(st.integers(1, 2_500), max_size=40))
def test_messages_come_whole_however_frames_and_reads_cut_them(
    messages: list[bytes], frame_sizes: list[int], read_sizes: list[int]
) -> None:
    payload = b"".join(map(prefixed, messages))
    stream = b"".join(frame(DATA, part) for part in split(payload, frame_sizes)) if len(payload) <= FRAME_MAX else b""
    if not stream:
        stream = b"".join(frame(DATA, payload[at : at + FRAME_MAX]) for at in range(0, len(payload), FRAME_MAX))
    made = call()
    for part in split(stream, read_sizes):
        made.feed(part)
    assert made.messages == messages
    assert made.end is None


def test_stream_cut_at_every_byte_gives_the_same_messages() -> None:
    messages = [b"", b"a", b"bc" * 40, b"", b"d" * 30]
    payload = b"".join(map(prefixed, messages))
    parts = (payload[:3], payload[3:9], b"", payload[9:60], payload[60:])
    trailers = headers(("grpc-status", "13"), ("grpc-message", "lagged%20behind"), flags=END_HEADERS | END_STREAM)
    stream = headers(*ANSWER) + frame(PING, bytes(8), stream=0) + b"".join(frame(DATA, part) for part in parts)
    stream += frame(SETTINGS, (4).to_bytes(2) + (70_000).to_bytes(4), stream=0) + trailers
    for cut in range(1, len(stream)):
        made = call(answered=False)
        made.feed(stream[:cut])
        made.feed(stream[cut:])
        assert made.messages == messages
        assert made.end is not None
        assert (made.end.status, made.end.detail) == ("INTERNAL", "lagged behind")
    single = call(answered=False)
    for byte in stream:
        single.feed(bytes([byte]))
    assert single.messages == messages


def test_padding_is_not_part_of_a_message_and_is_credited() -> None:
    made = call(window=65_536)
    made.feed(frame(DATA, bytes([200]) + prefixed(b"padded") + bytes(200), PADDED))
    assert made.messages == [b"padded"]
    for _ in range(400):
        made.feed(frame(DATA, bytes([255]) + bytes(255), PADDED))
    assert made.end is None
    assert [each[0] for each in frames_of(made.take_out())][:2] == [WINDOW, WINDOW]


def test_node_gets_credit_only_for_what_was_taken() -> None:
    made = call(window=65_536)
    message = prefixed(bytes(8_187))
    for _ in range(8):
        made.feed(frame(DATA, message))
    assert made.take_out() == b""
    made.taken(made.waiting)
    credit = frames_of(made.take_out())
    assert [(kind, stream, int.from_bytes(payload)) for kind, _, stream, payload in credit] == [
        (WINDOW, 0, 65_536),
        (WINDOW, 1, 65_536),
    ]
    for _ in range(9):
        made.feed(frame(DATA, message))
    assert made.end is not None
    assert "credit" in made.end.detail


def test_message_longer_than_the_window_is_credited_while_it_comes() -> None:
    made = call(window=65_536, message_max=1_000_000)
    payload = prefixed(bytes(500_000))
    for at in range(0, len(payload), FRAME_MAX):
        made.feed(frame(DATA, payload[at : at + FRAME_MAX]))
    assert made.end is None
    assert made.messages == [bytes(500_000)]


def test_requests_wait_for_credit() -> None:
    made = call()
    made.send(bytes(200_000))
    sent = sum(len(payload) for kind, _, _, payload in frames_of(made.take_out()) if kind == DATA)
    assert sent == 65_535
    made.feed(frame(WINDOW, (300_000).to_bytes(4), stream=0))
    assert made.take_out() == b""
    made.feed(frame(SETTINGS, (4).to_bytes(2) + (100_000).to_bytes(4), stream=0))
    made.feed(frame(WINDOW, (300_000).to_bytes(4)))
    sent += sum(len(payload) for kind, _, _, payload in frames_of(made.take_out()) if kind == DATA)
    assert sent == 200_005


def test_pings_and_settings_are_acknowledged() -> None:
    made = call()
    made.feed(frame(PING, b"12345678", stream=0) + frame(SETTINGS, stream=0) + frame(PING, bytes(8), ACK, stream=0))
    assert [each[:2] for each in frames_of(made.take_out())] == [(PING, ACK), (SETTINGS, ACK)]


@pytest.mark.parametrize(("code", "name"), list(enumerate(STATUSES)))
def test_status_of_the_trailers_is_the_end(code: int, name: str) -> None:
    made = call()
    made.feed(headers(("grpc-status", str(code)), flags=END_HEADERS | END_STREAM))
    assert made.end is not None
    assert made.end.status == name


@pytest.mark.parametrize("status", ["17", "-1", "", "x", "999999999999"])
def test_unknown_status_is_unknown(status: str) -> None:
    made = call(answered=False)
    made.feed(headers(*ANSWER, ("grpc-status", status), flags=END_HEADERS | END_STREAM))
    assert made.end is not None
    assert made.end.status == "UNKNOWN"


@pytest.mark.parametrize(
    ("pairs", "status"),
    [
        ([(":status", "401")], "UNAUTHENTICATED"),
        ([(":status", "403")], "PERMISSION_DENIED"),
        ([(":status", "404")], "UNIMPLEMENTED"),
        ([(":status", "502")], "UNAVAILABLE"),
        ([(":status", "418")], "UNKNOWN"),
        ([(":status", "x")], "UNKNOWN"),
        ([(":status", "200"), ("content-type", "text/html")], "UNKNOWN"),
    ],
)
def test_answer_that_is_no_grpc_is_the_end(pairs: list[tuple[str, str]], status: str) -> None:
    made = call(answered=False)
    made.feed(headers(*pairs))
    assert made.end is not None
    assert made.end.status == status


def test_informational_headers_come_before_the_answer() -> None:
    made = call(answered=False)
    made.feed(headers((":status", "103")) + headers(*ANSWER) + frame(DATA, prefixed(b"x")))
    assert made.messages == [b"x"]


def test_headers_in_parts_are_read() -> None:
    made = call(answered=False)
    block = Encoder().encode(ANSWER)
    made.feed(frame(HEADERS, block[:1]) + frame(CONTINUATION, block[1:2]) + frame(CONTINUATION, block[2:], END_HEADERS))
    made.feed(frame(DATA, prefixed(b"x")))
    assert made.messages == [b"x"]


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_compressed_messages_are_read(name: str) -> None:
    made = call(answered=False)
    made.feed(headers(*ANSWER, ("grpc-encoding", name)))
    pack = gzip.compress if name == "gzip" else zstandard.ZstdCompressor(write_content_size=False).compress
    made.feed(frame(DATA, prefixed(pack(b"ab" * 400), 1) + prefixed(b"plain")))
    assert made.messages == [b"ab" * 400, b"plain"]
    made.feed(frame(DATA, prefixed(pack(bytes(100_001)), 1)))
    assert made.end is not None
    assert made.end.status == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("snappy", b"x"),
        ("identity", b"x"),
        ("gzip", b"no gzip"),
        ("gzip", gzip.compress(b"cut")[:-3]),
        ("zstd", b"no zstd"),
    ],
)
def test_compressed_message_that_can_not_be_read_is_the_end(encoding: str, message: bytes) -> None:
    made = call(answered=False)
    made.feed(headers(*ANSWER, ("grpc-encoding", encoding)) + frame(DATA, prefixed(message, 1)))
    assert made.messages == []
    assert made.end is not None
    assert made.end.status == "INTERNAL"


WRONG: list[Any] = [
    pytest.param(bytes((0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 1)), "a frame of", id="frame too long"),
    pytest.param(frame(DATA, prefixed(b"x"), stream=3), "without a call", id="data of another stream"),
    pytest.param(frame(DATA, b"\x05xx", PADDED), "padding", id="too much padding"),
    pytest.param(frame(DATA, b"", PADDED), "padding", id="no padding length"),
    pytest.param(frame(DATA, prefixed(b"x", 2)), "compression flag", id="flag 2"),
    pytest.param(frame(HEADERS, b"\xff\xff\xff\xff\xff\xff", END_HEADERS), "can't be read", id="no hpack"),
    pytest.param(headers(("x", "y")), "trailers without", id="trailers without status"),
    pytest.param(frame(HEADERS, b"", 0) + frame(DATA), "without a call", id="data between headers"),
    pytest.param(frame(HEADERS, b"", 0) + frame(CONTINUATION, b"", 0), "part of no", id="empty continuation"),
    pytest.param(frame(CONTINUATION, b"x"), "parts", id="continuation alone"),
    pytest.param(frame(HEADERS, bytes(FRAME_MAX)) + frame(CONTINUATION, bytes(FRAME_MAX)) * 4, "headers of more",
                 id="endless headers"),
    pytest.param(frame(SETTINGS, b"12345", stream=0), "settings", id="settings of five bytes"),
    pytest.param(frame(SETTINGS, b"\0\4" + b"\xff" * 4, stream=0), "a window", id="window of settings"),
    pytest.param(frame(WINDOW, bytes(4)), "of nothing", id="credit of nothing"),
    pytest.param(frame(WINDOW, b"\x7f\xff\xff\xff"), "a window", id="credit too great"),
    pytest.param(frame(PING, b"x", stream=0), "a ping", id="short ping"),
    pytest.param(frame(PUSH, b"x"), "a push", id="push"),
]  # fmt: skip


@pytest.mark.parametrize(("stream", "words"), WRONG)
def test_what_is_no_http2_is_the_end_and_nothing_more_is_read(stream: bytes, words: str) -> None:
    made = call()
    made.feed(stream)
    assert made.end is not None
    assert made.end.status == "INTERNAL"
    assert words in made.end.detail
    made.feed(frame(DATA, prefixed(b"later")))
    assert made.messages == []


def test_message_that_is_too_long_is_refused_before_it_comes() -> None:
    made = call(message_max=1000)
    made.feed(frame(DATA, b"\0" + (1001).to_bytes(4)))
    assert made.end is not None
    assert made.end.status == "RESOURCE_EXHAUSTED"


def test_resets_and_farewells() -> None:
    for code, status in ((7, "UNAVAILABLE"), (8, "CANCELLED"), (11, "RESOURCE_EXHAUSTED"), (2, "INTERNAL")):
        made = call()
        made.feed(frame(RST, code.to_bytes(4)))
        assert made.end is not None
        assert made.end.status == status
    staying = call()
    staying.feed(frame(GOAWAY, (1).to_bytes(4) + bytes(4), stream=0) + frame(DATA, prefixed(b"still")))
    assert (staying.messages, staying.end) == ([b"still"], None)
    leaving = call()
    leaving.feed(frame(GOAWAY, bytes(8), stream=0))
    assert leaving.end is not None
    assert leaving.end.status == "UNAVAILABLE"
    ended = call()
    ended.feed(frame(DATA, prefixed(b"last"), END_STREAM))
    assert ended.messages == [b"last"]
    assert ended.end is not None
    lost = call()
    lost.eof()
    assert lost.end is not None


def test_peer_that_asks_and_does_not_read_is_ended() -> None:
    made = call()
    for _ in range(OUT_MAX // 17 + 2):
        made.feed(frame(PING, bytes(8), stream=0))
    assert made.end is not None
    assert "more to answer" in made.end.detail


@given(st.binary(max_size=400))
def test_no_bytes_raise(raw: bytes) -> None:
    made = call()
    made.feed(raw)
    made.feed(raw)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_no_changed_byte_raises(place: int, value: int) -> None:
    stream = bytearray(
        headers(*ANSWER) + frame(DATA, prefixed(b"one") + prefixed(b"two")) + headers(("grpc-status", "0"))
    )
    stream[place % len(stream)] = value
    made = call(answered=False)
    made.feed(bytes(stream))
    assert len(made.messages) <= 2


def test_headers_that_grow_when_they_are_unpacked_are_refused() -> None:
    made = call(answered=False)
    block = headers(*ANSWER, *[("x", "y" * 60)] * (HEADERS_MAX // 60))
    assert len(block) < FRAME_MAX
    made.feed(block)
    assert made.end is not None
    assert made.end.status == "INTERNAL"
