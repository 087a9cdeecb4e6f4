"""The opening handshake of a WebSocket: the content of an upgrade request, and the answer."""

import re
import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha1
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import parse_qs

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, NegotiationError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import ExtensionParameter, Subprotocol

from headrace.gateway.problems import PROBLEM_TYPE, Refused, problem
from headrace.model.credentials import Credential

SUBPROTOCOL: Final = "stream.v1"

IN_URL: Final = ("token", "access_token", "jwt")
"""Names under which a URL may contain a token. Refused, because URLs end up in logs, histories and Referer headers."""

_PARAMETERS_MAX: Final = 32
_OFFER_LENGTH_MAX: Final = 256

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")
_CONNECTION: Final = frozenset({"upgrade", "keep-alive, upgrade", "keep-alive,upgrade", "upgrade, keep-alive"})
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_LIST: Final = re.compile(rf"{_WORD}(?:[ \t]*,[ \t]*{_WORD})*")
_SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
_UPGRADE: Final = (("Upgrade", "websocket"),)
_OFFERED: Final = "jwt."


class Opening(NamedTuple):
    """The parts of a handshake that an endpoint needs.

    Limits apply to `address`. `parameter` is the text in place of `{id}` in the endpoint's path.
    """

    query: Mapping[str, list[str]]
    subprotocols: tuple[str, ...]
    address: str = ""
    parameter: str = ""


class UpgradeRequest(NamedTuple):
    """A request for a WebSocket. `target` is in origin form; `fields` has each header's values by lower-case name."""

    target: str
    fields: Mapping[str, Sequence[str]]

    def values(self, name: str) -> Sequence[str]:
        """Return the values of a header field; an empty sequence if the request lacks the field."""
        return self.fields.get(name, ())


class Handshake(NamedTuple):
    """The answer to an upgrade request.

    - `status`: 101, or the status of a refusal. The refusal's body must not be shown.
    - `answer`: the bytes of a 101 without its last empty line.
    - `offered`: header fields that are also sent if the upgrade is refused.
    - `deflate`: whether messages may be compressed from now on.
    """

    status: int
    answer: bytes
    offered: Sequence[tuple[str, str]]
    deflate: bool


def shake_hands(request: UpgradeRequest, *, compression: bool) -> Handshake:
    """Return the answer to an upgrade request.

    Requests of the usual form are answered by `straight`. `websockets` answers all others, which takes five times as
    long.
    """
    return straight(request, compression=compression) or judged(request, compression=compression)


def straight(request: UpgradeRequest, *, compression: bool) -> Handshake | None:
    """Return the answer to a request of the usual form; None for any other request, valid or not."""
    fields = request.fields
    try:
        (key,), (version,) = fields["sec-websocket-key"], fields["sec-websocket-version"]
        (upgrade,), (connection,) = fields["upgrade"], fields["connection"]
    except (KeyError, ValueError):
        return None
    usual = version == "13" and upgrade.lower() == "websocket" and connection.lower() in _CONNECTION
    if not (usual and _KEY.fullmatch(key)) or len(request.values("origin")) > 1:
        return None
    accept = b64encode(sha1(key.encode() + _GUID, usedforsecurity=False).digest())
    answer, deflate = b"%bSec-WebSocket-Accept: %b\r\n" % (_SWITCHING, accept), False
    offered = request.values("sec-websocket-extensions") if compression else ()
    if offered:
        if len(offered) > 1 or len(offered[0]) > _OFFER_LENGTH_MAX:
            return None
        extension = _agreed(offered[0])
        if extension is None:
            return None
        deflate = bool(extension)
        answer += b"Sec-WebSocket-Extensions: %b\r\n" % extension if extension else b""
    protocols = request.values("sec-websocket-protocol")
    if protocols:
        if len(protocols) > 1 or not _LIST.fullmatch(protocols[0]):
            return None
        if SUBPROTOCOL in [name.strip(" \t") for name in protocols[0].split(",")]:
            answer += b"Sec-WebSocket-Protocol: %b\r\n" % SUBPROTOCOL.encode()
    return Handshake(101, answer, _UPGRADE, deflate)


def judged(request: UpgradeRequest, *, compression: bool) -> Handshake:
    """Return the answer that `websockets` gives."""
    server = _Server(extensions=[_DeflateEachAlone()] if compression else None)
    headers = Headers([(name, value) for name, values in request.fields.items() for value in values])
    response = server.accept(Request(request.target, headers))
    server.parser.close()  # breaks a cycle: the parser is a generator that refers to the server
    offered = tuple([(name, response.headers[name]) for name in ("Allow", "Upgrade") if name in response.headers])
    del response.headers["Date"]
    return Handshake(response.status_code, response.serialize()[:-2], offered, deflate=bool(server.extensions))


@lru_cache(maxsize=64)
def _agreed(offers: str) -> bytes | None:
    """Return the header value of the accepted extension, b"" if none is accepted, or None for a malformed offer."""
    server = _Server(extensions=[_DeflateEachAlone()])
    try:
        agreed, _ = server.process_extensions(Headers([("Sec-WebSocket-Extensions", offers)]))
    except InvalidHandshake:
        return None
    finally:
        server.parser.close()
    return (agreed or "").encode()


class _DeflateEachAlone(ServerPerMessageDeflateFactory):
    """permessage-deflate without context takeover, so that one compressed frame can be sent to every client."""

    def __init__(self) -> None:
        super().__init__(server_no_context_takeover=True, client_no_context_takeover=True)

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        answer, extension = super().process_request_params(params, accepted_extensions)
        if extension.local_max_window_bits != zlib.MAX_WBITS:
            raise NegotiationError("a smaller window would need frames of its own")
        return answer, extension


class _Server(ServerProtocol):
    """A server for one handshake.

    It chooses the subprotocol in a method, because a function passed to it would create a reference cycle.
    """

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        """Return `stream.v1` if the client offers it, otherwise None. The protocol is the same in both cases."""
        return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in subprotocols else None


def opening(request: UpgradeRequest, address: str, parameter: str) -> Opening:
    """Parse the handshake. Raises Refused for a malformed query."""
    query = request.target.partition("?")[2]
    fields: Mapping[str, list[str]] = {}
    if query:
        try:
            fields = parse_qs(query, keep_blank_values=True, errors="strict", max_num_fields=_PARAMETERS_MAX)
        except ValueError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "bad query") from error
    offered = [name.strip() for line in request.values("sec-websocket-protocol") for name in line.split(",")]
    return Opening(fields, tuple(offered), address, parameter)


def credential_of(opening: Opening, *, wanted: bool) -> Credential | None:
    """Return the credential of a handshake: a token as a subprotocol, or a ticket in the URL; None without either.

    Raises Refused for a token in the URL, and for more than one credential. If authentication is off (not `wanted`),
    raises Refused for any credential, because no credential is silently ignored.
    """
    if any(name in opening.query for name in IN_URL):
        raise Refused(HTTPStatus.UNAUTHORIZED, "credentials in the URL are refused")
    tokens = [name.removeprefix(_OFFERED) for name in opening.subprotocols if name.startswith(_OFFERED)]
    shown = [Credential("token", token) for token in tokens]
    shown += [Credential("ticket", ticket) for ticket in opening.query.get("ticket", ())]
    if shown and not wanted:
        raise Refused(HTTPStatus.UNAUTHORIZED, "authentication is off on this server")
    if len(shown) > 1:
        raise Refused(HTTPStatus.BAD_REQUEST, "more than one credential")
    return shown[0] if shown else None


def refusal(refused: Refused, offered: Sequence[tuple[str, str]], date: bytes) -> bytes:
    """Return the answer instead of 101: a problem document with the `offered` headers."""
    body = problem(refused.status, refused.detail)
    headers = Headers([("Content-Type", PROBLEM_TYPE), ("Content-Length", str(len(body))), ("Connection", "close")])
    for name, value in (*offered, *refused.headers.items()):
        headers[name] = value
    status = HTTPStatus(refused.status)
    line = b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode())
    return line + date + headers.serialize() + body
