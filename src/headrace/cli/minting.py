"""`headrace token`: creates JSON Web Tokens with the server's own secret, for use before there is an issuer."""

import argparse
import sys
from typing import Any, Final

import jwt

from headrace.config import Config
from headrace.gateway.auth.settings import AuthSettings, check_secret
from headrace.model.errors import ConfigError
from headrace.runtime.clock import SystemClock

UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
TTL_S_MAX: Final = 366 * 86_400


def mint(config: Config, arguments: argparse.Namespace) -> int:
    """Print one JSON Web Token to standard output, and nothing else."""
    settings = config.section(AuthSettings)
    if settings.mode in ("rs256", "es256"):
        raise ConfigError("AUTH_MODE", settings.mode, "hs256: this server has no key to sign with, its issuer has")
    check_secret(settings.jwt_secret)
    if settings.mode == "off":
        print("headrace: AUTH_MODE is off: a server with these settings takes no tokens", file=sys.stderr)
    now_s = SystemClock().wall_ns() // 1_000_000_000
    claims: dict[str, Any] = {"sub": arguments.sub, "iat": now_s, "exp": now_s + arguments.ttl}
    if arguments.topics is not None:
        claims[settings.topics_claim] = arguments.topics
    if arguments.admin:
        claims[settings.admin_claim] = True
    if settings.jwt_audience:
        claims["aud"] = settings.jwt_audience
    if settings.jwt_issuer:
        claims["iss"] = settings.jwt_issuer
    print(jwt.encode(claims, settings.jwt_secret or "", algorithm="HS256"))
    return 0
