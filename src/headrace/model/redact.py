"""Removes secrets from text for people: passwords, JSON Web Tokens, and the API keys in the URLs of RPC providers."""

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from headrace.model.keys import is_key

HIDDEN: Final = "***"

_TEXT_LENGTH_MAX: Final = 16_384
_DEPTH_MAX: Final = 6
_ITEMS_MAX: Final = 256

# Up to the last `@`, because people put unescaped `@` and `/` into passwords. Never beyond the next URL.
_USERINFO: Final = re.compile(r"(?<=://)(?:(?!://)[^\s\"'<>])*@")
_REST_OF_URL: Final = re.compile(r"(?<=://)(?:(?!,\w{1,16}://)[^\s\"'<>])+")
_MARK: Final = re.compile(r"[?#]")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_~+=%.-]+")
_NUMBERED: Final = re.compile(r"v[0-9]{1,3}")
_HARMLESS_VALUE: Final = re.compile(r"true|false|null|[0-9]{1,9}", re.IGNORECASE)
_HARMLESS_QUERY: Final = frozenset(
    (
        "subscriptions",
        "batch",
        "limit",
        "commitment",
        "encoding",
        "fromSeq",
        "epoch",
        "offset",
        "after",
        "prefix",
        "reverse",
        "lang",
        "cluster",
    )
)
_PLAIN_SEGMENTS: Final = frozenset(
    (
        "ws",
        "wss",
        "rpc",
        "api",
        "http",
        "https",
        "json",
        "jsonrpc",
        "json-rpc",
        "websocket",
        "solana",
        "mainnet",
        "mainnet-beta",
        "devnet",
        "testnet",
        "localnet",
        ".well-known",
        "jwks",
        "jwks.json",
        "keys",
        "certs",
        "oauth2",
        "oauth",
        "discovery",
        "realms",
        "protocol",
        "openid-connect",
        "auth",
        "health",
    )
)
"""Path segments of nodes' and issuers' URLs that are never a key. Any other segment may be a key, however short."""
_KEY_LIKE: Final = re.compile(r"[A-Za-z0-9_-]{16,}")
_QUERY: Final = re.compile(r"([?&;#])([^=&;#?\s\"'<>]{1,128})(?:=([^&\s\"'<>]*))?")
_QUERY_NAME: Final = re.compile(r"key|token|secret|auth|pass|pwd|credential|jwt|session|sig|%", re.IGNORECASE)

_NAMES: Final = (
    r"passw(?:or)?d|pwd|secret|credential|authorization|api[-_]?key|private[-_]?key|seed[-_]?phrase|mnemonic|keypair"
    r"|(?:access|auth|refresh|bearer|session|id|api|x)[-_]?token"
)
_NAME: Final = re.compile(rf"{_NAMES}|(?:^|[-_])(?:jwt|ticket|cookie|bearer)s?(?:$|[-_])", re.IGNORECASE)
_ASSIGNED: Final = re.compile(
    rf"((?:{_NAMES})\w{{0,16}}(?:[\"']?\s{{0,4}}=|[\"']\s{{0,4}}:)\s{{0,4}})(\"[^\"]*\"|'[^']*'|[^\s\"',;&)}}\]]+)",
    re.IGNORECASE,
)
_HEADER: Final = re.compile(r"((?:authorization|x-token|x-api-key|cookie)[\"']?\s{0,4}[:=])[^\r\n]+", re.IGNORECASE)
_BEARER: Final = re.compile(r"\b(bearer\s{1,4})[^\s\"',;]+", re.IGNORECASE)
_JWT: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


def redact(text: str) -> str:
    """Return `text` with `***` in place of everything that looks like a secret. Other text stays, even base58 keys.

    Hidden in URLs: user and password, path segments that have a digit or mixed case, and query values, except numbers,
    truth values and the values of Headrace's own parameters. Hidden in any text: `password=…`, `Authorization: …`,
    bearer tokens and JSON Web Tokens. For text that is known to be a URL, use `redact_url`, which hides more.
    """
    if "://" in text:
        text = _USERINFO.sub(f"{HIDDEN}@", text)
        text = _REST_OF_URL.sub(_without_keys, text)
    if "?" in text or "&" in text or "#" in text:
        text = _QUERY.sub(_without_query_key, text)
    if "=" in text or ":" in text:
        text = _HEADER.sub(rf"\1 {HIDDEN}", text)
        text = _ASSIGNED.sub(rf"\1{HIDDEN}", text)
    if "eyJ" in text:
        text = _JWT.sub(HIDDEN, text)
    if "earer " in text or "EARER " in text:
        text = _BEARER.sub(rf"\1{HIDDEN}", text)
    return text


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Return whether a field of this name contains a secret, whatever its value."""
    return _NAME.search(name) is not None


def redact_value(value: Any, name: str = "", depth: int = 0) -> Any:
    """Return a log field's value without secrets. Depth, length and number of items are limited.

    Numbers stay. Text is redacted, and its control characters are escaped. Containers are redacted item by item. Any
    other value becomes its redacted `repr`.
    A field called `token` is hidden unless its value is a base58 key: such a field more often names a mint than a
    password.
    """
    if value is None or isinstance(value, bool):
        return value
    if is_secret_name(name) or (name in ("token", "tokens") and not _is_public_key(value)):
        return HIDDEN
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return _safe_text(value)
    if isinstance(value, dict | list | tuple | set | frozenset):
        if depth >= _DEPTH_MAX:
            return "…"
        if isinstance(value, dict):
            some = islice(value.items(), _ITEMS_MAX)
            return {_safe_text(str(key)): redact_value(item, str(key), depth + 1) for key, item in some}
        return [redact_value(item, name, depth + 1) for item in islice(value, _ITEMS_MAX)]
    return _safe_text(repr(value))


def _safe_text(text: str) -> str:
    if len(text) > _TEXT_LENGTH_MAX:
        text = f"{text[:_TEXT_LENGTH_MAX]}… ({len(text)} characters)"
    text = redact(text)
    return text if text.isprintable() else text.translate(_CONTROLS)


def _is_public_key(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_public_key(item) for item in value)
    return isinstance(value, str) and is_key(value)


def _looks_like_key(text: str) -> bool:
    """Return whether the text has a digit or mixed case, like random text. `token-metadata-service` has neither."""
    return any(c.isdigit() for c in text) or not (text.islower() or text.isupper())


def _without_keys(url: re.Match[str]) -> str:
    before, mark, query = _cut_query(url[0])
    host, slash, path = before.partition("/")
    path = _SEGMENT.sub(lambda part: HIDDEN if _may_be_key(part[0]) else part[0], path)
    return host + slash + path + mark + _without_values(mark, query, _is_harmless)


def _may_be_key(segment: str) -> bool:
    if _is_plain(segment) or (segment.isdigit() and len(segment) <= 2):  # a Redis database number
        return False
    return _looks_like_key(segment)


def _is_harmless(name: str, value: str) -> bool:
    if _QUERY_NAME.search(name):
        return False
    return name in _HARMLESS_QUERY or _HARMLESS_VALUE.fullmatch(value) is not None


def _cut_query(text: str) -> tuple[str, str, str]:
    """Return the text before the query or fragment, the mark that begins it, and the text after the mark."""
    mark = _MARK.search(text)
    return (text, "", "") if mark is None else (text[: mark.start()], mark[0], text[mark.end() :])


def _without_values(mark: str, query: str, harmless: Callable[[str, str], bool] | None = None) -> str:
    """Return a query or a fragment without its values. A fragment without a `=` names a place in a page and stays."""
    parts = re.split(r"([&;#?])", query)
    for at in range(0, len(parts), 2):
        name, equals, value = parts[at].partition("=")
        before = mark if at == 0 else parts[at - 1]
        if equals:
            parts[at] = parts[at] if harmless is not None and harmless(name, value) else f"{name}={HIDDEN}"
        elif name and (harmless is None or before != "#" or _KEY_LIKE.fullmatch(name)):
            parts[at] = HIDDEN
    return "".join(parts)


def redact_url(url: str) -> str:
    """Return the URL of a node, an issuer or another service without anything that could be a key, however short.

    Scheme, host, port and parameter names stay. So do path segments that are never a key (`v2`, `solana`).
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return redact(url)
    before, mark, query = _cut_query(rest)
    _, at, location = before.rpartition("@")
    host, slash, path = location.partition("/")
    path = _SEGMENT.sub(lambda part: part[0] if _is_plain(part[0]) else HIDDEN, path)
    return f"{scheme}://{HIDDEN + at if at else ''}{host}{slash}{path}{mark}{_without_values(mark, query)}"


def _is_plain(segment: str) -> bool:
    return segment in _PLAIN_SEGMENTS or _NUMBERED.fullmatch(segment) is not None


def _without_query_key(part: re.Match[str]) -> str:
    mark, name, value = part[1], part[2], part[3]
    if value is None:
        return mark + (HIDDEN if _KEY_LIKE.fullmatch(name) and _looks_like_key(name) else name)
    return f"{mark}{name}={HIDDEN}" if _QUERY_NAME.search(name) else part[0]
