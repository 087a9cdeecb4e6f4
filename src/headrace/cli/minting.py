"""`headrace token`: makes tokens with the server's own secret, to try things out before an issuer is there."""

import argparse
import re
import sys
from typing import Any, Final

import jwt

from headrace.config import Config
from headrace.gateway.auth.settings import AuthSettings, check_secret
from headrace.model.errors import ConfigError
from headrace.model.identity import SUBJECT_LENGTH_MAX, is_subject
from headrace.runtime.clock import SystemClock

UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
TTL_S_MAX: Final = 366 * 86_400


def add_options(parser: argparse.ArgumentParser) -> None:
    """What a token can say."""
    parser.add_argument("--sub", type=_subject, required=True, metavar="USER", help="whose token it is")
    parser.add_argument(
        "--topics",
        type=_topics,
        metavar="TOPIC,…",
        help="what it may read, such as 'trades:*,slots' (default: no claim)",
    )
    parser.add_argument("--admin", action="store_true", help="it may also publish and look at all connections")
    parser.add_argument(
        "--ttl", type=_ttl_s, default="1h", metavar="TIME", help="90s, 30m, 12h, 7d (default %(default)s)"
    )


def mint(config: Config, arguments: argparse.Namespace) -> int:
    """Print one token, and nothing else, to standard output."""
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


def _subject(text: str) -> str:
    if not is_subject(text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected 1 to {SUBJECT_LENGTH_MAX} printable ASCII characters")
    return text


def _topics(text: str) -> list[str]:
    return [topic.strip() for topic in text.split(",") if topic.strip()]


def _ttl_s(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    ttl_s = int(found[1]) * UNITS_S[found[2]] if found else 0
    if not 0 < ttl_s <= TTL_S_MAX:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a time such as 90s, 30m, 12h or 7d, at most 366d")
    return ttl_s
