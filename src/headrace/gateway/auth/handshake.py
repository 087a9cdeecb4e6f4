"""The credential that came with a WebSocket handshake: a token as a subprotocol, or a ticket in the URL."""

from http import HTTPStatus
from typing import Final

from headrace.gateway.problems import Refused
from headrace.gateway.transports.handshake import Opening
from headrace.model.credentials import Credential

IN_URL: Final = ("token", "access_token", "jwt")
"""URLs end up in logs, in histories and in the Referer of others: a token there is refused, whatever it is worth."""

_PREFIX: Final = "jwt."


def credential_of(opening: Opening, *, wanted: bool) -> Credential | None:
    """The one that was shown, if any. Raises Refused for a token in the URL, for more than one, and, with
    authentication off (not `wanted`), for any: nothing here could check it, and it is not passed over in silence.
    """
    if any(name in opening.query for name in IN_URL):
        raise Refused(HTTPStatus.UNAUTHORIZED, "credentials in the URL are refused")
    tokens = [name.removeprefix(_PREFIX) for name in opening.subprotocols if name.startswith(_PREFIX)]
    shown = [Credential("token", token) for token in tokens]
    shown += [Credential("ticket", ticket) for ticket in opening.query.get("ticket", ())]
    if shown and not wanted:
        raise Refused(HTTPStatus.UNAUTHORIZED, "authentication is off on this server")
    if len(shown) > 1:
        raise Refused(HTTPStatus.BAD_REQUEST, "more than one credential")
    return shown[0] if shown else None
