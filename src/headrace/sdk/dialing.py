"""The WebSocket handshake: sends the JSON Web Token, checks the server's certificate, and parses a refusal."""

import ssl
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, InvalidURI
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from headrace.model.credentials import is_token
from headrace.model.errors import ConfigError
from headrace.model.redact import redact
from headrace.protocol.codes import CloseCode
from headrace.runtime.http_answers import is_final
from headrace.sdk.values import Refused

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
CLOSE_S: Final = 2.0
DETAIL_LENGTH_MAX: Final = 200


class _Straight(connect):
    """A connection only to the given server.

    A redirect is treated as a refusal, so token and topics are sent to no other server.
    """

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Problem(msgspec.Struct, frozen=True):
    """The members read from a problem document (RFC 9457)."""

    detail: str = ""


_problem: Final = msgspec.json.Decoder(_Problem)


def dial(url: str, token: str | None, *, compression: bool, tls: ssl.SSLContext | None) -> connect:
    """Return a connection to use in `async with`. A `token` is sent as a subprotocol. Redirects are refused.

    Raises Refused for text that can't be a JSON Web Token, because the library's own error would contain the text.
    """
    shown: Sequence[Subprotocol] | None = None
    if token is not None:
        if not is_token(token):
            raise Refused(CloseCode.BAD_TOKEN, "bad token")
        shown = [Subprotocol("stream.v1"), Subprotocol(f"jwt.{token}")]
    trusted: dict[str, Any] = {} if tls is None else {"ssl": tls}
    return _Straight(
        url,
        subprotocols=shown,
        max_size=FRAME_BYTES_MAX,
        compression="deflate" if compression else None,
        ping_interval=None,
        close_timeout=CLOSE_S,
        **trusted,
    )


def refusal(error: InvalidStatus) -> Refused | None:
    """Return the HTTP answer as Refused if a retry would get the same answer (such as a redirect); otherwise None."""
    answer = error.response
    if not is_final(answer.status_code) and not 300 <= answer.status_code < 400:
        return None
    parts = [f"HTTP {answer.reason_phrase}".strip()]
    if answer.headers.get("Content-Type", "").startswith("application/problem+json"):
        try:
            parts.append(_problem.decode(answer.body or b"").detail[:DETAIL_LENGTH_MAX])
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            pass  # without a readable body, only the status is reported
    return Refused(answer.status_code, ": ".join(filter(None, parts)))


def checked(url: str, tls: ssl.SSLContext | None) -> str:
    """Return the URL with the query that lets the server put several objects in one frame.

    Raises ConfigError if the URL is not a WebSocket URL, or has no TLS although `tls` is given.
    """
    try:
        secure = parse_uri(url).secure
        parts = urlsplit(url)
    except (InvalidURI, ValueError) as error:
        raise ConfigError("url", redact(url), "a ws:// or wss:// URL") from error
    if tls is not None and not secure:
        raise ConfigError("url", redact(url), "a wss:// URL, as there are certificates to check")
    if "batch" in parse_qs(parts.query):
        return url
    return parts._replace(query=f"{parts.query}&batch=1" if parts.query else "batch=1").geturl()
