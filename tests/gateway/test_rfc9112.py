"""HTTP requests from any bytes: every case of the corpus in every pieces, and bytes that nobody foresaw."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.gateway.transports.rfc9112 import Inbound, Interim, Malformed, Request
from tests.examples import examples
from tests.gateway.http_corpus import CASES, LONG, Case

HEADER_MAX, BODY_MAX = 16_384, 65_536


def read(pieces: Iterable[bytes]) -> list[Request | Interim | str]:
    """What comes out of these pieces: a fault as `status detail`, which ends it; what is left over last."""
    inbound, found = Inbound(HEADER_MAX, BODY_MAX), []  # type: tuple[Inbound, list[Request | Interim | str]]
    for piece in pieces:
        inbound.receive(piece)
        try:
            while (one := inbound.next()) is not None:
                found.append(one)
                if isinstance(one, Request) and one.wants(b"websocket") and one.target in (b"/echo", b"/ws"):
                    return found
        except Malformed as fault:
            return [*found, str(fault)]
        assert len(inbound) <= HEADER_MAX + BODY_MAX
    return found


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_in_two_pieces_is_the_case_in_one(case: Case) -> None:
    whole = read([case.data])
    for cut in range(1, len(case.data)):
        assert read([case.data[:cut], case.data[cut:]]) == whole, case.data[:cut]


@pytest.mark.parametrize("case", [*CASES, *LONG], ids=lambda case: case.name)
def test_a_case_byte_by_byte_is_the_case_in_one(case: Case) -> None:
    assert read(bytewise(case.data)) == read([case.data])


@given(st.sampled_from([*CASES, *LONG]), st.data())
def test_a_case_in_three_pieces_is_the_case_in_one(case: Case, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(case.data)), min_size=2, max_size=2)))
    bounds = itertools.pairwise([0, *cuts, len(case.data)])
    assert read(case.data[begin:end] for begin, end in bounds) == read([case.data])


SCRAPS = st.sampled_from(
    [
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b" ",
        b":",
        b";",
        b",",
        b"0",
        b"5",
        b"f",
        b"GET",
        b"POST",
        b" / ",
        b"HTTP/1.1",
        b"Host: x",
        b"Content-Length: 3",
        b"Transfer-Encoding: chunked",
        b"chunked",
        b"Upgrade: h2c",
        b"Connection: Upgrade",
        b"Expect: 100-continue",
        b"hello",
        b"\0",
        b"\xff",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n",
    ]
)


@settings(max_examples=examples(500))
@given(st.lists(st.one_of(SCRAPS, st.binary(max_size=4)), max_size=24).map(b"".join))
@example(b"GET / HTTP/1.1\r\n\rHost: x\r\n\r\n")
def test_any_bytes_read_the_same_in_one_piece_and_byte_by_byte(data: bytes) -> None:
    assert read(bytewise(data)) == read([data])


def only(data: bytes) -> Request:
    (request,) = read([data])
    assert isinstance(request, Request)
    return request


def test_trailers_are_no_fields() -> None:
    request = only(
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n"
        b"2;a=b\r\nhi\r\n0\r\nAuthorization: Bearer x\r\nIdempotency-Key: k\r\n\r\n"
    )
    assert request.body == b"hi"
    assert [name for name, _ in request.fields] == [b"host", b"transfer-encoding", b"trailer"]


def test_the_host_of_an_absolute_target_counts() -> None:
    request = only(b"GET http://a.example:80?x=1 HTTP/1.1\r\nHost: b.example\r\n\r\n")
    assert (request.target, request.fields) == (b"/?x=1", [(b"host", b"a.example:80")])


def test_fields_come_without_the_space_around_them_and_in_small_letters() -> None:
    request = only(b"GET / HTTP/1.1\r\nHOST:x\r\nX-A:\t b  c\t \r\nX-A:\r\n\r\n")
    assert request.fields == [(b"host", b"x"), (b"x-a", b"b  c"), (b"x-a", b"")]


@pytest.mark.parametrize(
    ("line", "connection", "keep_alive"),
    [
        (b"HTTP/1.1", b"", True), (b"HTTP/1.1", b"keep-alive", True), (b"HTTP/1.1", b"Close", False),
        (b"HTTP/1.1", b"foo, close ,bar", False), (b"HTTP/1.1", b"closed", True), (b"HTTP/1.0", b"", False),
        (b"HTTP/1.0", b"keep-alive", False), (b"HTTP/1.2", b"", True),
    ],
)  # fmt: skip
def test_which_connections_stay(line: bytes, connection: bytes, keep_alive: bool) -> None:
    assert only(b"GET / %b\r\nHost: x\r\nConnection: %b\r\n\r\n" % (line, connection)).keep_alive is keep_alive


def test_a_body_costs_as_many_bytes_as_it_has() -> None:
    """A piece of a body leaves the buffer once it is read: chunks are not kept twice."""
    inbound = Inbound(HEADER_MAX, BODY_MAX)
    inbound.receive(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(10):
        inbound.receive(b"400\r\n" + b"a" * 1024 + b"\r\n")
        assert inbound.next() is None
        assert len(inbound) == 0
    assert inbound.begun
