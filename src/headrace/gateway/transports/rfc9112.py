"""Parses what a client may send by RFC 9112 (HTTP/1.1): bytes go in, whole requests come out, one at a time. Pure.

The requests depend only on the bytes, never on how TCP split them. Where the RFC lets a recipient repair or refuse a
request, this parser refuses it, because a proxy in front of this server may have repaired it in another way.
"""

import re
from enum import Enum
from http import HTTPStatus
from typing import Final, NamedTuple, TypeAlias

METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE"})

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE_BAD: Final = re.compile(rb"[^ -~\r\n]")
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([!-\"$-~]+) HTTP/(\d)\.(\d)")
_HEAD: Final = re.compile(
    rb"(" + _TOKEN + rb") ([!-\"$-~]+) HTTP/1\.(\d)\r\n((?:" + _TOKEN + rb":[\t -~\x80-\xff]*\r\n)*)"
)
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([\t -~\x80-\xff]*)")
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})((?:[ \t]*;[\t -~\x80-\xff]*)?)")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_HOST: Final = re.compile(rb"(?:[0-9A-Za-z._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.vV~!$&'()*+,;=_-]+\])(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]+)(.*)", re.IGNORECASE)

Fields: TypeAlias = list[tuple[bytes, bytes]]
"""Names in lower case, values without surrounding space, in the order of the request."""


class Malformed(Exception):  # noqa: N818  (the client's fault)
    """The bytes are not a valid request. The connection ends with this status."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        self.status, self.detail = status, detail
        super().__init__(f"{int(status)} {detail}")


class Request(NamedTuple):
    """A whole request. `target` is in origin form (or `*`), `body` has no framing, and trailers are dropped."""

    method: str
    target: bytes
    minor: int
    fields: Fields
    body: bytes
    keep_alive: bool

    def wants(self, protocol: bytes) -> bool:
        """Return whether the client asks to switch to `protocol`, and RFC 9110 §7.8 allows the switch."""
        if self.minor == 0 or b"upgrade" not in _listed(self.fields, b"connection"):
            return False
        return protocol in _listed(self.fields, b"upgrade")


class Interim(Enum):
    """An answer that a client waits for before it sends its body."""

    CONTINUE = 100


class _Head(NamedTuple):
    method: bytes
    target: bytes
    minor: int
    fields: Fields
    names: set[bytes]


class _At(Enum):
    """The part of a request to which the next byte belongs."""

    REQUEST_LINE = 0
    FIELDS = 1
    LENGTH = 2
    CHUNK_LINE = 3
    CHUNK = 4
    CHUNK_END = 5
    TRAILERS = 6


class Inbound:
    """Parses the requests of one connection. After Malformed, nothing more is parsed.

    `header_bytes_max` limits the request line with the header and, separately, the overhead of a body: sizes and
    extensions of chunks, and trailers. `body_bytes_max` limits the body.
    """

    __slots__ = (
        "_at",
        "_body",
        "_body_bytes_max",
        "_continue",
        "_extra",
        "_fields",
        "_headed",
        "_header_bytes_max",
        "_left",
        "_line",
        "_rest",
        "_scanned",
        "_start",
    )

    def __init__(self, header_bytes_max: int, body_bytes_max: int) -> None:
        self._header_bytes_max, self._body_bytes_max = header_bytes_max, body_bytes_max
        self._rest = bytearray()
        self._begin()

    def _begin(self) -> None:
        self._at = _At.REQUEST_LINE
        self._start = self._scanned = 0  # start of the current line, and how far its end was searched for
        self._line: tuple[bytes, bytes, int] | None = None
        self._fields: Fields = []
        self._headed: _Head | None = None
        self._left = self._extra = 0
        self._continue = False
        self._body = bytearray()

    def __len__(self) -> int:
        """Return the number of buffered bytes."""
        return len(self._rest)

    @property
    def begun(self) -> bool:
        """Return whether a part of the next request has arrived."""
        return bool(self._rest) or self._at is not _At.REQUEST_LINE

    def receive(self, data: bytes) -> None:
        self._rest += data

    def take_rest(self) -> bytes:
        """Return and remove the bytes after the last request, which are no longer HTTP."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest

    def next(self) -> Request | Interim | None:
        """Return the next whole request, or the answer that its client waits for; None if bytes are missing.

        Raises Malformed.
        """
        if self._at is _At.REQUEST_LINE and not (self._read_head() or self._read_request_line()):
            return None
        if self._at is _At.FIELDS and not self._read_fields():
            return None
        if self._continue:
            self._continue = False
            return Interim.CONTINUE
        if self._at is _At.LENGTH:
            return self._whole()
        while (step := self._step()) is not None:
            if step:
                return self._whole()
        return None

    def _read_head(self) -> bool:
        """Parse a valid and complete header block at once.

        Any other block is parsed line by line, to find its fault.
        """
        rest = self._rest
        end = rest.find(b"\r\n\r\n", 0, self._header_bytes_max)
        parts = None if end < 0 else _HEAD.fullmatch(rest, 0, end + 2)
        if parts is None or parts[1] not in METHODS:
            return False
        lines = [line.partition(b":") for line in parts[4].split(b"\r\n")]
        lines.pop()
        fields = [(name.lower(), value.strip(b" \t")) for name, _, value in lines]
        self._start = end + 4
        self._judge(parts[1], parts[2], int(parts[3]), fields)
        return True

    def _read_request_line(self) -> bool:
        rest, limit = self._rest, self._header_bytes_max
        while rest.startswith(b"\r\n"):  # RFC 9112 §2.2: some clients send CRLF after a body
            del rest[:2]
            self._scanned = 0
        if _LINE_BAD.search(rest, self._scanned, min(self._line_end(rest), limit)):
            raise Malformed(HTTPStatus.BAD_REQUEST, "not HTTP/1.1")
        line = self._next_line(limit, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if line is None:
            return False
        parts = _REQUEST_LINE.fullmatch(line)
        if parts is None:
            raise Malformed(HTTPStatus.BAD_REQUEST, "not HTTP/1.1")
        method, target, major, minor = parts.groups()
        if major != b"1":
            raise Malformed(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.1 is spoken here")
        if method not in METHODS:
            raise Malformed(HTTPStatus.NOT_IMPLEMENTED, "no such method here")
        self._line = method, target, int(minor)
        self._at = _At.FIELDS
        return True

    def _line_end(self, rest: bytearray) -> int:
        end = rest.find(b"\n", self._scanned)
        return len(rest) if end < 0 else end

    def _next_line(self, limit: int, too_long: HTTPStatus) -> bytes | None:
        """Return the line at `_start`, without its end; None while bytes are missing. `limit` counts from 0.

        Raises Malformed for a line that ends beyond `limit`, or with only LF.
        """
        rest = self._rest
        end = rest.find(b"\n", self._scanned)
        self._scanned = end + 1 if end >= 0 else len(rest)
        if self._scanned > limit:
            raise Malformed(too_long, "")
        if end < 0:
            return None
        line = bytes(rest[self._start : end])
        self._start = end + 1
        if not line.endswith(b"\r"):
            raise Malformed(HTTPStatus.BAD_REQUEST, "a line ends with LF alone")
        return line[:-1]

    def _read_fields(self) -> bool:
        """Parse the remaining header fields. Return whether the header is complete."""
        fields = self._fields
        while line := self._next_line(self._header_bytes_max, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE):
            fields.append(_field(line))
        if line is None:
            return False
        assert self._line is not None
        self._judge(*self._line, fields)
        return True

    def _judge(self, method: bytes, target: bytes, minor: int, fields: Fields) -> None:
        """Check the header, and decide how the body will be read."""
        head = self._headed = _judged(method, target, minor, fields)
        self._forget_line()
        self._left, chunked = _body_of(head)
        if self._left > self._body_bytes_max:
            raise Malformed(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "")
        self._at = _At.CHUNK_LINE if chunked else _At.LENGTH
        if (chunked or self._left) and minor > 0 and b"expect" in head.names:
            self._continue = b"100-continue" in _listed(fields, b"expect")

    def _whole(self) -> Request | None:
        """Return the request once the bytes of its Content-Length have arrived."""
        rest, count, head = self._rest, self._left, self._headed
        assert head is not None
        if self._at is _At.LENGTH:
            if len(rest) < count:
                return None
            self._body += rest[:count]
            del rest[:count]
        connection = _listed(head.fields, b"connection") if b"connection" in head.names else ()
        request = Request(
            head.method.decode("ascii"),
            head.target,
            head.minor,
            head.fields,
            bytes(self._body),
            keep_alive=head.minor > 0 and b"close" not in connection,
        )
        self._begin()
        return request

    def _step(self) -> bool | None:
        """Parse one piece of a chunked body.

        Return True at its end, False before the end, and None if bytes are missing.
        """
        if self._at is _At.CHUNK_LINE:
            return self._read_chunk_line()
        if self._at is _At.CHUNK:
            return self._read_chunk()
        if self._at is _At.CHUNK_END:
            return self._read_chunk_end()
        return self._read_trailer()

    def _read_chunk_line(self) -> bool | None:
        line = self._next_line(self._header_bytes_max, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if line is None:
            return None
        parts = _CHUNK_LINE.fullmatch(line)
        if parts is None:
            raise Malformed(HTTPStatus.BAD_REQUEST, "not a chunk of a body")
        self._count_extra(len(line))
        self._forget_line()
        self._left = int(parts[1], 16)
        if len(self._body) + self._left > self._body_bytes_max:
            raise Malformed(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "")
        self._at = _At.CHUNK if self._left else _At.TRAILERS
        return False

    def _read_chunk(self) -> bool | None:
        rest = self._rest
        if not rest:
            return None
        piece = rest[: self._left]
        del rest[: len(piece)]
        self._body += piece
        self._left -= len(piece)
        if not self._left:
            self._at = _At.CHUNK_END
        return False

    def _read_chunk_end(self) -> bool | None:
        rest = self._rest
        if len(rest) < 2:
            return None
        if not rest.startswith(b"\r\n"):
            raise Malformed(HTTPStatus.BAD_REQUEST, "a chunk is longer than it says")
        del rest[:2]
        self._at = _At.CHUNK_LINE
        return False

    def _read_trailer(self) -> bool | None:
        """Parse and drop a trailer: RFC 9110 §6.5.1 forbids merging a field that is not defined for trailers."""
        line = self._next_line(self._header_bytes_max, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if line is None:
            return None
        self._forget_line()
        if not line:
            return True
        _field(line)
        self._count_extra(len(line))
        return False

    def _forget_line(self) -> None:
        del self._rest[: self._start]
        self._start = self._scanned = 0

    def _count_extra(self, size: int) -> None:
        """Limit the overhead of a body: a chunk of one byte costs as much as a long chunk."""
        self._extra += size
        if self._extra > self._header_bytes_max:
            raise Malformed(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "")


def _field(line: bytes) -> tuple[bytes, bytes]:
    """Parse a field line. Raises Malformed, even for a line that starts with space and continues the previous one."""
    parts = _FIELD.fullmatch(line)
    if parts is None:
        raise Malformed(HTTPStatus.BAD_REQUEST, "not a header field")
    return parts[1].lower(), parts[2].rstrip(b" \t")


def _listed(fields: Fields, name: bytes) -> list[bytes]:
    """Return the members of a field that is a list of words, in lower case."""
    return [word.strip(b" \t").lower() for key, value in fields if key == name for word in value.split(b",")]


def _judged(method: bytes, target: bytes, minor: int, fields: Fields) -> _Head:
    """Return the request line and header, with the target in origin form. Raises Malformed for a bad host or target."""
    names = {name for name, _ in fields}
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1:
        raise Malformed(HTTPStatus.BAD_REQUEST, "more than one Host")
    if not hosts and minor > 0:
        raise Malformed(HTTPStatus.BAD_REQUEST, "no Host")
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        raise Malformed(HTTPStatus.BAD_REQUEST, "the Host is none")
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return _Head(method, target, minor, fields, names)
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not absolute[1] or _HOST.fullmatch(absolute[1]) is None:
        raise Malformed(HTTPStatus.BAD_REQUEST, "the target is no path")
    # The host of the target is used, whatever the Host field says (RFC 9112 §3.2.2).
    others = [field for field in fields if field[0] != b"host"]
    path = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
    return _Head(method, path, minor, [(b"host", absolute[1]), *others], names)


def _body_of(head: _Head) -> tuple[int, bool]:
    """Return the body's length, and whether it arrives in chunks (RFC 9112 §6.3). Raises Malformed if ambiguous."""
    if b"content-length" not in head.names and b"transfer-encoding" not in head.names:
        return 0, False
    lengths = [value for name, value in head.fields if name == b"content-length"]
    codings = [value for name, value in head.fields if name == b"transfer-encoding"]
    if codings:
        if lengths:
            raise Malformed(HTTPStatus.BAD_REQUEST, "both Content-Length and Transfer-Encoding")
        if head.minor == 0:
            raise Malformed(HTTPStatus.BAD_REQUEST, "Transfer-Encoding in HTTP/1.0")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            others = _listed(head.fields, b"transfer-encoding")
            known = others[-1] == b"chunked" and b"chunked" not in others[:-1] and all(others)
            status = HTTPStatus.NOT_IMPLEMENTED if known else HTTPStatus.BAD_REQUEST
            raise Malformed(status, "a Transfer-Encoding that is not chunked")
        return 0, True
    if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
        raise Malformed(HTTPStatus.BAD_REQUEST, "the Content-Length is none")
    return int(lengths[0]), False
