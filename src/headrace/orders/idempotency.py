"""The names and the fingerprint by which a repeated request is recognised. Pure."""

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, Final

import msgspec

from headrace.model.orders import OrderRefused, OrderRequest, Token, Trigger

KEY_LENGTH_MAX: Final = 128

_SF_STRING: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_ESCAPED: Final = re.compile(r"\\(.)")
_ALWAYS_COUNTED: Final[Mapping[type, tuple[str, ...]]] = {
    OrderRequest: (
        "user_id",
        "said_in",
        "said_out",
        "token_in",
        "token_out",
        "amount",
        "slippage_bps",
        "type",
        "trigger",
        "min_out",
        "priority",
        "expires_at_ms",
        "mode",
        "client_order_id",
    ),
    Token: ("mint", "decimals"),
    Trigger: ("when", "out", "per"),
}


def names_of(request: OrderRequest, key: str | None) -> list[str]:
    """Return the names under which the order can be found again: those of its key, and its client order id.

    `abc` and `"abc"` are the same key: the IETF's draft writes keys with quotes (an RFC 8941 string). For a quoted key,
    the first name is the quoted one, under which an earlier version stored orders. Raises OrderRefused 400 for a text
    that can't be a key.
    """
    names: list[str] = []
    if key is not None:
        plain = _unquoted(key)
        if not (0 < len(plain) <= KEY_LENGTH_MAX and plain.isascii() and plain.isprintable()):
            message = f"the key is not 1 to {KEY_LENGTH_MAX} printable ASCII characters"
            raise OrderRefused(HTTPStatus.BAD_REQUEST, "invalid_idempotency_key", message)
        names += dict.fromkeys((f"key:{key}", f"key:{plain}"))
    if request.client_order_id is not None:
        names.append(f"client:{request.client_order_id}")
    return names


def fingerprint(request: OrderRequest) -> str:
    """Return the SHA-256, in hexadecimal, of everything that must be equal in two requests under the same key.

    Fingerprints that are stored must still match in later versions. So the fingerprint always includes the fields of
    version 0.1. A later field is included only if it differs from its default: a client that does not know the field
    still gets its order again.
    `expires_in_ms` is included as a duration, because the time of expiry differs from request to request.
    """
    asked = request if request.expires_in_ms is None else msgspec.structs.replace(request, expires_at_ms=None)
    return hashlib.sha256(msgspec.json.encode(_counted(asked))).hexdigest()


def _counted(value: Any) -> Any:
    """Return the fields that the fingerprint includes: those of version 0.1 in order, then later ones that are set."""
    kind: Any = type(value)
    always, later = _names_of(kind)
    if not always:
        return value
    given = [name for name, default in later if getattr(value, name) != default]
    return {name: _counted(getattr(value, name)) for name in (*always, *given)}


@cache
def _names_of(kind: Any) -> tuple[tuple[str, ...], tuple[tuple[str, Any], ...]]:
    """Return a type's fields that are always included, and its later fields with their defaults.

    Empty for other types.
    """
    always = next((names for shape, names in _ALWAYS_COUNTED.items() if issubclass(kind, shape)), ())
    later = msgspec.structs.fields(kind) if always else ()
    return always, tuple((field.name, field.default) for field in later if field.name not in always)


def _unquoted(key: str) -> str:
    """Return the content of an RFC 8941 string; return any other text unchanged."""
    inside = _SF_STRING.fullmatch(key)
    return key if inside is None else _ESCAPED.sub(r"\1", inside[1])
