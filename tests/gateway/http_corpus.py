"""Requests as clients, attackers and the examples of RFC 9110 and RFC 9112 write them, and the answers due to each."""

from typing import Final, NamedTuple


class Case(NamedTuple):
    """Bytes of one connection, and the statuses of all answers to them, in order. `100` stands for an interim one."""

    name: str
    data: bytes
    statuses: tuple[int, ...]


def _request(line: str, *fields: str, body: bytes = b"", host: bool = True) -> bytes:
    head = [line, *(("Host: x",) if host else ()), *fields, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def _post(*fields: str, body: bytes = b"") -> bytes:
    return _request("POST /mirror HTTP/1.1", *fields, body=body)


LIVE: Final = _request("GET /health/live HTTP/1.1")
_CHUNKED: Final = "Transfer-Encoding: chunked"
_H2C: Final = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA",
)
_KEY: Final = ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13")
_WEBSOCKET: Final = ("Connection: Upgrade", "Upgrade: websocket")
_LENGTH: Final = f"Content-Length: {len(LIVE)}"
_TRAILERS: Final = (
    b"5\r\nhello\r\n0\r\nAuthorization: Bearer x\r\nIdempotency-Key: k\r\nX-Forwarded-For: 1.1.1.1\r\n"
    b"Content-Length: 3\r\nHost: y\r\n\r\n"
)
_MASKED: Final = b"\x81\x85\x01\x02\x03\x04" + bytes(
    a ^ b for a, b in zip(b"early", b"\x01\x02\x03\x04\x01", strict=True)
)

CASES: Final = (
    # Sound requests.
    Case("a get", LIVE, (200,)),
    Case("three in a row", LIVE * 3, (200, 200, 200)),
    Case("empty lines before", b"\r\n\r\n" + LIVE + b"\r\n" + LIVE, (200, 200)),
    Case("a body", _post("Content-Length: 5", body=b"hello") + LIVE, (201, 200)),
    Case("an empty body", _post("Content-Length: 0") + LIVE, (201, 200)),
    Case(
        "chunks", _post(_CHUNKED, body=b'5\r\nhello\r\n0C;a=b;c="d"\r\n hello again\r\n000\r\n\r\n') + LIVE, (201, 200)
    ),
    Case("trailers", _post(_CHUNKED, body=_TRAILERS) + LIVE, (201, 200)),
    Case("a body where none is read", _request("DELETE /health/live HTTP/1.1", _LENGTH, body=LIVE) + LIVE, (405, 200)),
    Case("a body that is a request", _post(_LENGTH, body=LIVE) + LIVE, (201, 200)),
    Case("a head", _request("HEAD /health/live HTTP/1.1") + LIVE, (200, 200)),
    Case("a closing client", _request("GET /health/live HTTP/1.1", "Connection: close") + LIVE, (200,)),
    Case("an older client", b"GET /health/live HTTP/1.0\r\n\r\n" + LIVE, (200,)),
    Case("an absolute target", _request("GET http://y/health/live HTTP/1.1") + LIVE, (200, 200)),
    Case(
        "space around a value", _request("GET /health/live HTTP/1.1", "X: \t a b \t ", "Y:", "Z:b") + LIVE, (200, 200)
    ),
    Case("options of the server", _request("OPTIONS * HTTP/1.1") + LIVE, (404, 200)),
    Case("continue", _post("Expect: 100-continue", "Content-Length: 5", body=b"hello") + LIVE, (100, 201, 200)),
    Case("continue with chunks", _post("Expect: 100-Continue", _CHUNKED, body=_TRAILERS) + LIVE, (100, 201, 200)),
    Case("continue of nothing", _post("Expect: 100-continue", "Content-Length: 0") + LIVE, (201, 200)),
    Case(
        "continue from an older client",
        b"POST /mirror HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
        (201,),
    ),
    Case("an unknown expectation", _post("Expect: tea", "Content-Length: 2", body=b"hi") + LIVE, (201, 200)),
    # An Upgrade that nobody heeds changes nothing (RFC 9110 §7.8).
    Case("h2c", _post(*_H2C, _LENGTH, body=LIVE) + LIVE, (201, 200)),
    Case("h2c without a body", _request("GET /health/live HTTP/1.1", *_H2C) + LIVE, (200, 200)),
    Case(
        "h2c with chunks", _post(*_H2C, _CHUNKED, body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(LIVE), LIVE)) + LIVE, (201, 200)
    ),
    Case("h2c and continue", _post(*_H2C, _LENGTH, "Expect: 100-continue", body=LIVE) + LIVE, (100, 201, 200)),
    Case(
        "an upgrade to anything",
        _post("Connection: upgrade", "Upgrade: foo/1, bar", _LENGTH, body=LIVE) + LIVE,
        (201, 200),
    ),
    Case("an upgrade that is not asked for", _post("Upgrade: websocket", _LENGTH, body=LIVE) + LIVE, (201, 200)),
    Case("websocket by post", _post(*_WEBSOCKET, *_KEY, _LENGTH, body=LIVE) + LIVE, (201, 200)),
    Case("websocket by post without a key", _post(*_WEBSOCKET, _LENGTH, body=LIVE) + LIVE, (201, 200)),
    Case(
        "websocket with a body", _request("GET /ws HTTP/1.1", *_WEBSOCKET, *_KEY, _LENGTH, body=LIVE) + LIVE, (426, 200)
    ),
    Case("websocket where none is", _request("GET /health/live HTTP/1.1", *_WEBSOCKET, *_KEY) + LIVE, (200, 200)),
    Case(
        "websocket of an older client",
        b"GET /ws HTTP/1.0\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n" + LIVE,
        (426,),
    ),
    Case("connect", _request("CONNECT x:80 HTTP/1.1") + LIVE, (501,)),
    # One that is heeded: what follows is no HTTP.
    Case("a websocket", LIVE + _request("GET /echo HTTP/1.1", *_WEBSOCKET, *_KEY) + _MASKED, (200, 101)),
    Case("a websocket without a key", _request("GET /ws HTTP/1.1", *_WEBSOCKET) + LIVE, (400,)),
    Case("a websocket of an old version", _request("GET /ws HTTP/1.1", *_WEBSOCKET, _KEY[0]) + LIVE, (400,)),
    # Faults, each behind a sound request: that is answered first.
    *(
        Case(name, LIVE + data + LIVE, (200, status))
        for name, data, status in (
            ("no host", b"GET /health/live HTTP/1.1\r\n\r\n", 400),
            ("two hosts", _request("GET /health/live HTTP/1.1", "Host: x"), 400),
            ("a host that is none", b"GET /health/live HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("a host with a user", b"GET /health/live HTTP/1.1\r\nHost: u@x\r\n\r\n", 400),
            ("both framings", _post(_CHUNKED, "Content-Length: 5", body=_TRAILERS), 400),
            ("both framings, length first", _post("Content-Length: 5", _CHUNKED, body=_TRAILERS), 400),
            (
                "chunks from an older client",
                b"POST /mirror HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                400,
            ),
            ("two lengths", _post("Content-Length: 5", "Content-Length: 6", body=b"hello"), 400),
            ("a length twice", _post("Content-Length: 5", "Content-Length: 5", body=b"hello"), 400),
            ("a list of lengths", _post("Content-Length: 5, 5", body=b"hello"), 400),
            ("a length with a sign", _post("Content-Length: +5", body=b"hello"), 400),
            ("a hexadecimal length", _post("Content-Length: 0x5", body=b"hello"), 400),
            ("no length", _post("Content-Length: "), 400),
            ("a length of many digits", _post("Content-Length: " + "9" * 30), 400),
            ("a length beyond the limit", _post("Content-Length: 70000"), 413),
            ("a length beyond the limit and continue", _post("Content-Length: 70000", "Expect: 100-continue"), 413),
            ("an unknown coding", _post("Transfer-Encoding: cow", body=_TRAILERS), 400),
            ("chunked twice", _post("Transfer-Encoding: chunked, chunked", body=_TRAILERS), 400),
            ("chunked on two lines", _post(_CHUNKED, _CHUNKED, body=_TRAILERS), 400),
            ("chunked and then compressed", _post("Transfer-Encoding: chunked, gzip", body=_TRAILERS), 400),
            ("compressed and then chunked", _post("Transfer-Encoding: gzip, chunked", body=_TRAILERS), 501),
            ("nearly chunked", _post("Transfer-Encoding: xchunked", body=_TRAILERS), 400),
            ("chunked in quotes", _post('Transfer-Encoding: "chunked"', body=_TRAILERS), 400),
            ("chunked with an odd space", _post("Transfer-Encoding: \x0bchunked", body=_TRAILERS), 400),
            ("space before the colon", _post("Transfer-Encoding : chunked", body=_TRAILERS), 400),
            ("space before the name", _request("GET /health/live HTTP/1.1", " X: y"), 400),
            ("a folded field", _request("GET /health/live HTTP/1.1", "X: y", "\tz"), 400),
            ("no name", _request("GET /health/live HTTP/1.1", ": y"), 400),
            ("no colon", _request("GET /health/live HTTP/1.1", "X"), 400),
            ("zero in a value", _request("GET /health/live HTTP/1.1", "X: a\0b"), 400),
            ("cr in a value", _request("GET /health/live HTTP/1.1", "X: a\rY: b"), 400),
            ("lf alone behind a field", b"GET /health/live HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", 400),
            ("lf alone behind the request line", b"GET /health/live HTTP/1.1\nHost: x\r\n\r\n", 400),
            ("lf alone at the end", b"GET /health/live HTTP/1.1\r\nHost: x\r\n\n", 400),
            ("cr alone behind the request line", b"GET /health/live HTTP/1.1\rHost: x\r\n\r\n", 400),
            ("two spaces in the request line", b"GET  /health/live HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("a tab in the request line", b"GET\t/health/live HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("space behind the version", b"GET /health/live HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
            ("a fragment", _request("GET /health/live#x HTTP/1.1"), 400),
            ("a target that is no path", _request("GET health/live HTTP/1.1"), 400),
            ("a target with a user", _request("GET http://u@y/health/live HTTP/1.1"), 400),
            ("bytes beyond ascii in the target", _request("GET /h\xe9 HTTP/1.1"), 400),
            ("an unknown method", _request("BREW /health/live HTTP/1.1"), 501),
            ("a method in small letters", _request("get /health/live HTTP/1.1"), 501),
            ("http/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            ("http/0.9 with a version", _request("GET /health/live HTTP/0.9"), 505),
            ("http/0.9", b"GET /health/live\r\n", 400),
            ("a version that is none", _request("GET /health/live HTTP/1.1.1"), 400),
            ("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
            ("a chunk with a sign", _post(_CHUNKED, body=b"+5\r\nhello\r\n0\r\n\r\n"), 400),
            ("a chunk with a prefix", _post(_CHUNKED, body=b"0x5\r\nhello\r\n0\r\n\r\n"), 400),
            ("a chunk with space behind its size", _post(_CHUNKED, body=b"5 \r\nhello\r\n0\r\n\r\n"), 400),
            ("a chunk without a size", _post(_CHUNKED, body=b"\r\nhello\r\n0\r\n\r\n"), 400),
            ("a chunk of many digits", _post(_CHUNKED, body=b"0" * 17 + b"5\r\nhello\r\n0\r\n\r\n"), 400),
            ("a chunk beyond the limit", _post(_CHUNKED, body=b"fffffffffffffff1\r\nhello\r\n0\r\n\r\n"), 413),
            ("a chunk that is longer", _post(_CHUNKED, body=b"4\r\nhello\r\n0\r\n\r\n"), 400),
            ("a chunk that is shorter", _post(_CHUNKED, body=b"6\r\nhello\r\n0\r\n\r\n"), 400),
            ("lf alone behind a size", _post(_CHUNKED, body=b"5\nhello\r\n0\r\n\r\n"), 400),
            ("lf alone behind a chunk", _post(_CHUNKED, body=b"5\r\nhello\n0\r\n\r\n"), 400),
            ("cr in a chunk's extension", _post(_CHUNKED, body=b"5;a\rb\r\nhello\r\n0\r\n\r\n"), 400),
            ("a trailer that is none", _post(_CHUNKED, body=b"0\r\nX y\r\n\r\n"), 400),
            ("lf alone behind a trailer", _post(_CHUNKED, body=b"0\r\nX: y\n\r\n"), 400),
        )
    ),
)

LONG: Final = (
    Case("an endless target", b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", (431,)),
    Case("an endless name", _request("GET / HTTP/1.1", "a" * 20_000 + ": y"), (431,)),
    Case("an endless value", _request("GET / HTTP/1.1", "X: " + "a" * 20_000), (431,)),
    Case("endless fields", _request("GET / HTTP/1.1", *["X: y"] * 4_000), (431,)),
    Case("an endless extension", _post(_CHUNKED, body=b"5;" + b"a" * 20_000 + b"\r\nhello\r\n0\r\n\r\n"), (431,)),
    Case("endless extensions", _post(_CHUNKED, body=b"1;aaaaaaaaaaaaaa\r\nh\r\n" * 2_000), (431,)),
    Case("endless trailers", _post(_CHUNKED, body=b"0\r\n" + b"X: y\r\n" * 6_000), (431,)),
    Case("an endless body", _post(_CHUNKED, body=b"800\r\n%b\r\n" % (b"a" * 2048) * 33), (413,)),
)
"""Requests beyond a limit; the limits are the defaults."""
