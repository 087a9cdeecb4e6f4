"""Parses a JSON Web Key Set (RFC 7517) from an untrusted source. Only valid public keys of one algorithm pass. Pure."""

from typing import Any, Final, Literal, TypeAlias

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from headrace.model.errors import BadInputError

BYTES_MAX: Final = 262_144
KEYS_MAX: Final = 256
MODULUS_BITS: Final = range(2048, 8193)
EXPONENT_MAX: Final = 2**32
"""Largest RSA exponent. With a larger one, each signature would be expensive to check."""

PublicKeyAlgorithm: TypeAlias = Literal["RS256", "ES256"]
Keys: TypeAlias = dict[str | None, Any]
"""Public keys by their `kid`; None for a key without a `kid`."""


class _Entry(msgspec.Struct, frozen=True):
    """The members of an entry that are used. `d` and `k` are parts of secret keys, which should never be published."""

    kty: str
    kid: str | None = None
    use: str | None = None
    alg: str | None = None
    crv: str = ""
    n: str = ""
    e: str = ""
    x: str = ""
    y: str = ""
    d: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    k: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Set(msgspec.Struct, frozen=True):
    keys: list[msgspec.Raw]


_set = msgspec.json.Decoder(_Set)
_entry = msgspec.json.Decoder(_Entry)


def read_keys(text: bytes, algorithm: PublicKeyAlgorithm) -> Keys:
    """Return the usable keys. Other entries are skipped, and so are all keys whose `kid` occurs twice.

    Raises BadInputError if the text is not a key set, or has no usable key.
    """
    if len(text) > BYTES_MAX:
        raise BadInputError("too_large", f"more than {BYTES_MAX} bytes")
    try:
        entries = _set.decode(text).keys
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise BadInputError("malformed", "not a JSON Web Key Set") from None
    found: Keys = {}
    ambiguous: set[str | None] = set()
    for raw in entries[:KEYS_MAX]:
        named = _read(raw, algorithm)
        if named is not None:
            kid, key = named
            if kid in found:
                ambiguous.add(kid)
            found[kid] = key
    keys = {kid: key for kid, key in found.items() if kid not in ambiguous}
    if not keys:
        raise BadInputError("no_key", f"no key for {algorithm} in the set")
    return keys


def _read(raw: msgspec.Raw, algorithm: PublicKeyAlgorithm) -> tuple[str | None, Any] | None:
    try:
        entry = _entry.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    secret = entry.d is not msgspec.UNSET or entry.k is not msgspec.UNSET
    if secret or entry.use not in (None, "sig") or entry.alg not in (None, algorithm):
        return None
    if algorithm == "RS256":
        public = {"kty": "RSA", "n": entry.n, "e": entry.e}
        fits = entry.kty == "RSA" and len(entry.n) <= MODULUS_BITS.stop // 6 + 8 and len(entry.e) <= 8
    else:
        public = {"kty": "EC", "crv": "P-256", "x": entry.x, "y": entry.y}
        fits = entry.kty == "EC" and entry.crv == "P-256" and len(entry.x) <= 64 and len(entry.y) <= 64
    if not fits:
        return None
    try:
        key = jwt.PyJWK(public, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return (entry.kid, key) if _is_sound(key) else None


def _is_sound(key: Any) -> bool:
    if isinstance(key, RSAPublicKey):
        return key.key_size in MODULUS_BITS and key.public_numbers().e <= EXPONENT_MAX
    return isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
