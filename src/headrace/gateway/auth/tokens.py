"""Checks JSON Web Tokens (RFC 7519). An identity comes only from a valid token that a trusted issuer has signed."""

import math
from typing import Any, Final

import jwt

from headrace.gateway.auth.keys import KeyRing
from headrace.gateway.auth.settings import AuthSettings
from headrace.model.errors import BadInputError
from headrace.model.identity import Identity, Permissions, is_subject
from headrace.model.topics import TOPIC_LENGTH_MAX
from headrace.runtime.clock import Clock

TOPICS_MAX: Final = 1000
MOMENT_MAX: Final = 2**53

_OPTIONS: Final[Any] = {
    "require": ["exp", "sub"],
    "verify_exp": False,  # checked with the service's clock, below
    "verify_nbf": False,
    "verify_iat": False,
}


class NotYetValid(BadInputError):  # noqa: N818  (passes with time)
    """A valid token, but only from `wait_s` from now on, because its issuer's clock is ahead of the service's."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        super().__init__("not_yet_valid")


class Tokens:
    """Turns a token into an Identity. The algorithm is the configured one, whatever the token claims.

    A refusal is a BadInputError. Its `reason` is for metrics, and is never shown to the sender.
    """

    def __init__(self, settings: AuthSettings, keys: KeyRing, clock: Clock) -> None:
        self._settings, self._keys, self._clock = settings, keys, clock
        self._algorithm = settings.mode.upper()
        self._default = Permissions.of(settings.default_topics)

    async def verify(self, token: str) -> Identity:
        """Return the identity of the bearer.

        Raises BadInputError for a refused token (NotYetValid if the token becomes valid later), and TransientError
        while the keys can't be read.
        """
        if len(token) > self._settings.token_bytes_max:
            raise BadInputError("too_long")
        if not token.isascii():
            raise BadInputError("malformed")
        *others, last = await self._keys.find(self._kid(token))
        for key in others:
            try:
                return self._identity(self._claims(token, key))
            except BadInputError as error:
                if error.reason != "bad_signature":
                    raise
        return self._identity(self._claims(token, last))

    def _kid(self, token: str) -> str | None:
        """Return the `kid` that the token names. Nothing else is taken from the unverified header."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, RecursionError, ValueError):
            raise BadInputError("malformed") from None
        if header.get("alg") != self._algorithm:
            raise BadInputError("wrong_algorithm")
        kid = header.get("kid")
        if kid is not None and not isinstance(kid, str):
            raise BadInputError("malformed")
        return kid

    def _claims(self, token: str, key: Any) -> dict[str, Any]:
        settings = self._settings
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[self._algorithm],
                audience=settings.jwt_audience,
                issuer=settings.jwt_issuer,
                options=_OPTIONS,
            )
        except jwt.InvalidSignatureError:
            raise BadInputError("bad_signature") from None
        except jwt.InvalidAudienceError:
            raise BadInputError("wrong_audience") from None
        except jwt.InvalidIssuerError:
            raise BadInputError("wrong_issuer") from None
        except jwt.MissingRequiredClaimError:
            raise BadInputError("missing_claim") from None
        except (jwt.PyJWTError, RecursionError, ValueError, TypeError):
            raise BadInputError("malformed") from None
        return claims

    def _identity(self, claims: dict[str, Any]) -> Identity:
        now_s, leeway_s = self._clock.wall_ns() / 1e9, self._settings.leeway_s
        expires_s = _moment(claims["exp"]) + leeway_s
        if expires_s <= now_s:
            raise BadInputError("expired")
        begins_s = _moment(claims["nbf"]) - leeway_s if "nbf" in claims else 0
        if begins_s >= expires_s:
            raise BadInputError("malformed")  # never valid
        if not is_subject(claims["sub"]):
            raise BadInputError("bad_subject")
        admin = claims.get(self._settings.admin_claim) is True
        identity = Identity(claims["sub"], math.floor(expires_s * 1000), self._permissions(claims), admin)
        if begins_s > now_s:  # checked last, so that nothing else is wrong with the token
            raise NotYetValid(begins_s - now_s)
        return identity

    def _permissions(self, claims: dict[str, Any]) -> Permissions:
        name = self._settings.topics_claim
        if name not in claims:
            return self._default
        patterns = claims[name]
        if not isinstance(patterns, list) or len(patterns) > TOPICS_MAX:
            raise BadInputError("malformed")
        if not all(isinstance(pattern, str) and len(pattern) <= TOPIC_LENGTH_MAX for pattern in patterns):
            raise BadInputError("malformed")
        return Permissions.of(patterns)


def _moment(value: object) -> float:
    """Return seconds since 1970 (RFC 7519 §2). Raises BadInputError if the value is not a number in range."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MOMENT_MAX:
        raise BadInputError("malformed")
    return value
