"""Settings of authentication. Settings that contradict each other are refused at the start."""

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from headrace.config import Setting
from headrace.model.errors import ConfigError
from headrace.protocol.credential_state import Terms

SECRET_LENGTH_MIN: Final = 32
"""Minimum length of a secret in bytes: the length of HS256's hash (RFC 7518 §3.2)."""

PUBLIC_KEYS: Final = ("rs256", "es256")

_Seconds = msgspec.Meta(gt=0, le=86_400)
_Claim = msgspec.Meta(min_length=1, max_length=128)


class AuthSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `[auth]`. `mode` sets the only algorithm with which tokens are checked, whatever a token claims."""

    mode: Annotated[
        Literal["off", "hs256", "rs256", "es256"],
        Setting("how tokens are signed; off: every client may read everything", env=("AUTH_MODE",)),
    ] = "off"
    jwt_secret: Annotated[
        str | None,
        Setting("secret that HS256 tokens are signed with, 32 bytes or more", env=("JWT_SECRET",), secret=True),
    ] = None
    jwt_secret_previous: Annotated[
        str | None,
        Setting(
            "the previous secret, whose tokens are still accepted while the secret is replaced",
            env=("JWT_SECRET_PREVIOUS",),
            secret=True,
        ),
    ] = None
    jwks_url: Annotated[
        str | None,
        Setting(
            "where the issuer publishes its RS256 or ES256 keys (a JSON Web Key Set)",
            env=("JWKS_URL",),
            kind="http_url",
        ),
    ] = None
    jwks_file: Annotated[
        Path | None, Setting("the same keys from a file, read again on SIGHUP and when it changes", env=("JWKS_FILE",))
    ] = None
    jwt_audience: Annotated[
        str | None,
        Setting("`aud` that tokens must have; needed for rs256 and es256", env=("JWT_AUDIENCE",)),
    ] = None
    jwt_issuer: Annotated[str | None, Setting("`iss` that tokens must have", env=("JWT_ISSUER",))] = None
    topics_claim: Annotated[
        str, _Claim, Setting("claim with the list of topics that may be read", env=("AUTH_TOPICS_CLAIM",))
    ] = "topics"
    admin_claim: Annotated[
        str, _Claim, Setting("claim that is true for users who may publish", env=("AUTH_ADMIN_CLAIM",))
    ] = "admin"
    default_topics: Annotated[
        tuple[str, ...],
        Setting(
            "topics that a token without that claim may read; `*`: all but users' own", env=("AUTH_DEFAULT_TOPICS",)
        ),
    ] = ("*",)
    metrics_open: Annotated[
        bool, Setting("serve /metrics without a credential; off: to admins only", env=("AUTH_METRICS_OPEN",))
    ] = True
    leeway_s: Annotated[
        float,
        msgspec.Meta(ge=0, le=300),
        Setting("seconds by which the issuer's clock and ours may differ", env=("AUTH_LEEWAY_S",)),
    ] = 30
    token_bytes_max: Annotated[
        int, msgspec.Meta(ge=256, le=16_384), Setting("most bytes of a token", env=("AUTH_MAX_TOKEN_BYTES",))
    ] = 8192
    connect_s: Annotated[
        float, _Seconds, Setting("seconds a connection has to authenticate", env=("AUTH_TIMEOUT_S",))
    ] = 10
    notice_s: Annotated[
        float,
        _Seconds,
        Setting("seconds before a credential's expiry at which its client gets a notice", env=("AUTH_NOTICE_S",)),
    ] = 60
    grace_s: Annotated[
        float,
        _Seconds,
        Setting("seconds after a credential's expiry until its connection is closed", env=("AUTH_GRACE_S",)),
    ] = 25
    ticket_s: Annotated[float, _Seconds, Setting("seconds for which a ticket is valid", env=("AUTH_TICKET_S",))] = 30
    tickets_max: Annotated[
        int, msgspec.Meta(ge=1, le=1_000_000), Setting("most unused tickets", env=("AUTH_MAX_TICKETS",))
    ] = 10_000
    jwks_timeout_s: Annotated[
        float, _Seconds, Setting("longest wait for the issuer's keys, in seconds", env=("JWKS_TIMEOUT_S",))
    ] = 5
    jwks_refresh_s: Annotated[
        float, _Seconds, Setting("seconds between two readings of the keys", env=("JWKS_REFRESH_S",))
    ] = 600
    jwks_rest_s: Annotated[
        float,
        _Seconds,
        Setting(
            "pause in seconds after a reading of the keys, even if a token names an unknown key", env=("JWKS_REST_S",)
        ),
    ] = 10

    def __repr__(self) -> str:
        """Return a text without the secret."""
        return f"<AuthSettings {self.mode}>"

    def __post_init__(self) -> None:
        """Raise ConfigError naming a missing or superfluous setting."""
        if self.mode == "hs256":
            check_secret(self.jwt_secret)
            if self.jwt_secret_previous is not None:
                check_secret(self.jwt_secret_previous, "JWT_SECRET_PREVIOUS")
        if self.mode in PUBLIC_KEYS:
            if (self.jwks_url is None) == (self.jwks_file is None):
                given = "neither" if self.jwks_url is None else "both"
                raise ConfigError("JWKS_URL, JWKS_FILE", given, f"one of them, for AUTH_MODE={self.mode}")
            if not self.jwt_audience:
                reason = "the keys of an issuer sign tokens for other services too"
                raise ConfigError("JWT_AUDIENCE", "nothing", f"the `aud` of tokens meant for this service: {reason}")

    def paths(self) -> list[Path]:
        """Return the files to watch."""
        return [] if self.jwks_file is None else [self.jwks_file]

    def terms(self) -> Terms:
        """Return the times within which a connection must authenticate."""
        return Terms(self.connect_s, self.notice_s, self.grace_s)


def check_secret(secret: str | None, name: str = "JWT_SECRET") -> None:
    """Raise ConfigError if the secret is not safe for HS256."""
    expected = f"{SECRET_LENGTH_MIN} bytes or more (openssl rand -base64 48 makes some)"
    if secret is None:
        raise ConfigError(name, "nothing", expected)
    if len(secret.encode()) < SECRET_LENGTH_MIN:
        raise ConfigError(name, "a shorter one", expected)
    if "-----BEGIN" in secret or secret.startswith("ssh-"):
        raise ConfigError(name, "a key file", "a secret; for key pairs use AUTH_MODE=rs256 or es256")
