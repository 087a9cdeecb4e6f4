"""The opening handshake of a WebSocket: what an upgrade request asks for, and the answer."""

import zlib
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import parse_qs

from websockets.datastructures import Headers
from websockets.exceptions import NegotiationError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import ExtensionParameter, Subprotocol

from headrace.gateway.problems import PROBLEM_TYPE, Refused, problem
from headrace.model.credentials import Credential

SUBPROTOCOL: Final = "stream.v1"

IN_URL: Final = ("token", "access_token", "jwt")
"""Names under which a URL may carry a token. Refused, because URLs end up in logs, histories and Referer headers."""

_PARAMETERS_MAX: Final = 32
_OFFERED: Final = "jwt."


class Opening(NamedTuple):
    """The parts of a handshake that an endpoint needs.

    Limits apply to `address`. `parameter` is the text in place of `{id}` in the endpoint's path.
    """

    query: Mapping[str, list[str]]
    subprotocols: tuple[str, ...]
    address: str = ""
    parameter: str = ""


class Handshake(NamedTuple):
    """The answer, and whether messages may be compressed from now on."""

    response: Response
    deflate: bool


def shake_hands(request: Request, *, compression: bool) -> Handshake:
    """Return the answer to an upgrade request. Any status but 101 is a refusal, whose body must not be shown."""
    extensions = [_DeflateEachAlone()] if compression else None
    server = _Server(extensions=extensions)
    response = server.accept(request)
    server.parser.close()  # breaks a cycle: the parser is a generator that refers to the server
    return Handshake(response, deflate=bool(server.extensions))


class _DeflateEachAlone(ServerPerMessageDeflateFactory):
    """permessage-deflate without memory of earlier messages, so that one compressed frame serves every client."""

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

    Its method chooses the subprotocol, because a function given to it would be a cycle.
    """

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        """Return `stream.v1` if the client offers it, else None; the protocol is the same in both cases."""
        return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in subprotocols else None


def opening(request: Request, address: str, parameter: str) -> Opening:
    """Read the handshake. Raises Refused for a malformed query."""
    query = request.path.partition("?")[2]
    try:
        fields = parse_qs(query, keep_blank_values=True, errors="strict", max_num_fields=_PARAMETERS_MAX)
    except ValueError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, "bad query") from error
    offered = [name.strip() for line in request.headers.get_all("Sec-WebSocket-Protocol") for name in line.split(",")]
    return Opening(fields, tuple(offered), address, parameter)


def credential_of(opening: Opening, *, wanted: bool) -> Credential | None:
    """Return the credential of a handshake: a token as a subprotocol, or a ticket in the URL; None without either.

    Raises Refused for a token in the URL, and for more than one credential. With authentication off (not `wanted`),
    raises Refused for any credential, because no credential is ignored silently.
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


def refusal(refused: Refused, offered: Headers) -> Response:
    """Return the answer instead of 101: a problem document, with those of the `offered` headers that are useful."""
    body = problem(refused.status, refused.detail)
    headers = Headers([("Content-Type", PROBLEM_TYPE), ("Content-Length", str(len(body))), ("Connection", "close")])
    for name in ("Date", "Allow", "Upgrade"):
        if name in offered:
            headers[name] = offered[name]
    for name, value in refused.headers.items():
        headers[name] = value
    return Response(int(refused.status), HTTPStatus(refused.status).phrase, headers, body)
