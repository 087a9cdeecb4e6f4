"""Kinds of text that a setting may require: URLs by scheme, public keys."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from headrace.model.keys import is_key
from headrace.model.redact import HIDDEN, redact, redact_url

Kind: TypeAlias = Literal["text", "ws_url", "http_url", "redis_url", "database_url", "key", "file"]

URLS: Final[frozenset[Kind]] = frozenset({"ws_url", "http_url", "redis_url", "database_url"})
"""Kinds whose values may contain a password or an API key."""

_URL_LENGTH_MAX: Final = 2048
_HOST_AND_PORT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}:[0-9]{1,5}")


class Demand(NamedTuple):
    """Requirement of a kind: `expected` in words, `accepts` as a test, and how refused and valid values are shown.

    `scheme` is put before a value that is only a host and a port (`localhost:8899`), as earlier services wrote URLs.
    """

    expected: str
    accepts: Callable[[str], bool]
    refused: Callable[[str], str] = redact
    shown: Callable[[str], str] = redact
    scheme: str = ""

    def complete(self, text: str) -> str:
        """Return the value, with its scheme added if it is only a host and a port."""
        return f"{self.scheme}://{text}" if self.scheme and _HOST_AND_PORT.fullmatch(text) else text


def _url(schemes: tuple[str, ...], *, host: bool = True) -> Callable[[str], bool]:
    def accepts(text: str) -> bool:
        if len(text) > _URL_LENGTH_MAX or not text.isprintable() or re.search(r"\s", text):
            return False
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            return False
        return parts.scheme in schemes and (port is None or port > 0) and (bool(parts.hostname) or not host)

    return accepts


def _refused_url(text: str) -> str:
    """Return scheme and host of a malformed URL. The remainder is hidden, because any part of it could be secret."""
    if not text:
        return text
    start = re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,15}://[A-Za-z0-9.-]{0,253}(:[0-9]{0,6})?(?=[/?#]|$)", text)
    if start is None:
        return HIDDEN
    return start[0] if start.end() == len(text) else f"{start[0]}/{HIDDEN}"


def _database(text: str) -> bool:
    return text.startswith("sqlite:///") or _url(("postgresql", "postgres"), host=False)(text)


def _redis(text: str) -> bool:
    return text.startswith("unix:///") or _url(("redis", "rediss"))(text)


KINDS: Final[Mapping[Kind, Demand]] = MappingProxyType(
    {
        "text": Demand("text", lambda _: True),
        "ws_url": Demand("a ws:// or wss:// URL", _url(("ws", "wss")), _refused_url, redact_url, "ws"),
        "http_url": Demand("an http:// or https:// URL", _url(("http", "https")), _refused_url, redact_url, "http"),
        "redis_url": Demand("a redis://, rediss:// or unix:// URL", _redis, _refused_url, scheme="redis"),
        "database_url": Demand("a postgresql:// or sqlite:/// URL", _database, _refused_url),
        "key": Demand("a base58 public key of 32 bytes", is_key),
        "file": Demand("text", lambda _: True),
    }
)
