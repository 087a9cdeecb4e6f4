"""The JSON Web Token that `headrace` sends to a server, and the certificates with which it trusts the server."""

import argparse
import asyncio
import os
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

from headrace.cli.arguments import TOKEN_ENV
from headrace.model.credentials import is_token
from headrace.model.errors import ConfigError
from headrace.protocol.codes import CloseCode, ErrorCode

TOKEN_BYTES_MAX: Final = 16_384

_BAD: Final = "it does not take this token: it was made for another server, or cut off"
_HINTS: Final[Mapping[int, str]] = {
    401: _BAD,
    403: "this token does not allow it",
    ErrorCode.UNAUTHORIZED: _BAD,
    ErrorCode.DENIED: "this token does not allow it",
    ErrorCode.TOKEN_EXPIRED: "get a newer token",
    CloseCode.EXPIRED: "get a newer token",
    CloseCode.BAD_TOKEN: _BAD,
    CloseCode.DENIED: "it is not for the user of this token",
}


class Access(NamedTuple):
    """Place of the JSON Web Token, if there is one, and the certificates to trust."""

    token_file: Path | None = None
    text: str | None = None
    ca_file: Path | None = None

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Self:
        """Return the access given by options and environment.

        Raises ConfigError for text that can't be a JSON Web Token.
        """
        file: Path | None = arguments.token_file
        text = os.environ.get(TOKEN_ENV, "").strip() if file is None else ""
        access = cls(file, _checked(text, TOKEN_ENV) if text else None, arguments.ca_file)
        access.read()
        return access

    def read(self) -> str | None:
        """Return the current JSON Web Token. Raises ConfigError for a file that has none."""
        if self.token_file is None:
            return self.text
        try:
            with self.token_file.open("rb") as file:
                given = file.read(TOKEN_BYTES_MAX + 1)
        except OSError as error:
            raise ConfigError("--token-file", str(self.token_file), f"a file to read ({error.strerror})") from None
        return _checked(given.decode("latin-1").strip(), "--token-file")

    def token(self) -> str | Callable[[], Awaitable[str]] | None:
        """Return the SDK's `token`: a fixed text, or a function that reads the file again for each connection."""
        return self.text if self.token_file is None else self._again

    def headers(self) -> dict[str, str]:
        """Return the headers of HTTP requests."""
        token = self.read()
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    def tls(self, url: str) -> ssl.SSLContext | None:
        """Return the TLS context for a URL; None without TLS. Raises ConfigError for a file without certificates."""
        if urlsplit(url).scheme not in ("https", "wss"):
            if self.ca_file is not None:
                raise ConfigError("--ca-file", str(self.ca_file), "an https:// or wss:// --url to go with it")
            return None
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            wanted = f"a PEM file with certificates ({error.strerror or error})"
            raise ConfigError("--ca-file", str(self.ca_file), wanted) from None

    def warn(self, url: str) -> None:
        """Print a warning if the JSON Web Token would be sent unencrypted to another machine."""
        parts = urlsplit(url)
        if parts.scheme in ("http", "ws") and not _is_here(parts.hostname or "") and self.read() is not None:
            print(f"headrace: the token goes to {parts.hostname} unencrypted, as the URL is no TLS", file=sys.stderr)

    def hint(self, code: int) -> str:
        """Return advice on a refusal with this HTTP status, error code or close code; empty if there is none."""
        if self.token_file is None and self.text is None:
            wanted = code in (401, ErrorCode.UNAUTHORIZED, CloseCode.AUTH_TIMEOUT)
            return f"; it wants a token: --token-file FILE, or {TOKEN_ENV}" if wanted else ""
        return f"; {_HINTS[code]}" if code in _HINTS else ""

    async def _again(self) -> str:
        return await asyncio.to_thread(self.read) or ""


def is_untrusted(why: str) -> bool:
    """Return whether a connection failed because the server's certificate is not trusted."""
    return "CERTIFICATE_VERIFY_FAILED" in why


def remedy(why: str) -> str:
    """Return advice on a connection that failed; empty if there is none."""
    if is_untrusted(why):
        return "; --ca-file FILE names whom to trust"
    return "; does a server run there?" if "Connection refused" in why else ""


def _checked(text: str, origin: str) -> str:
    """Return the text.

    Raises ConfigError, without the text, if it fits neither into a header nor into a subprotocol.
    """
    if not text:
        raise ConfigError(origin, "nothing", "a token")
    if len(text) > TOKEN_BYTES_MAX or not is_token(text):
        raise ConfigError(origin, "what is no token", "three parts of letters, digits, - and _, with dots between")
    return text


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
