"""Error codes and close codes of the client wire protocol, and how a client must react to them. Pure."""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from headrace.model.errors import RequestError


class ErrorCode(IntEnum):
    """Code of an `error` frame. The connection stays open."""

    INTERNAL = 100
    UNAUTHORIZED = 101
    UNKNOWN_TOPIC = 102
    DENIED = 103
    ALREADY_SUBSCRIBED = 105
    LIMIT = 106
    BAD_REQUEST = 107
    UNAVAILABLE = 108
    TOKEN_EXPIRED = 109
    RATE_LIMITED = 111
    UNRECOVERABLE = 112
    BAD_FILTER = 120
    DECODER_UNAVAILABLE = 121


class CloseCode(IntEnum):
    """Reason for closing a connection.

    1xxx are RFC 6455's; after 4000 to 4499 a client may reconnect; 4500 and above are final.
    """

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    INVALID_DATA = 1007
    TOO_BIG = 1009
    INTERNAL = 1011
    SHUTDOWN = 4001
    AUTH_TIMEOUT = 4002
    EXPIRED = 4005
    SLOW = 4008
    INSUFFICIENT_STATE = 4010
    NO_PONG = 4012
    RATE = 4013
    BAD_TOKEN = 4500
    MALFORMED = 4501
    CONNECTION_LIMIT = 4504
    DENIED = 4507


CLOSE_REASONS: Final[Mapping[int, str]] = MappingProxyType(
    {
        CloseCode.NORMAL: "idle",
        CloseCode.INTERNAL: "internal error",
        CloseCode.SHUTDOWN: "shutdown",
        CloseCode.AUTH_TIMEOUT: "authentication timed out",
        CloseCode.EXPIRED: "token expired",
        CloseCode.SLOW: "too slow",
        CloseCode.INSUFFICIENT_STATE: "insufficient state",
        CloseCode.NO_PONG: "no pong",
        CloseCode.RATE: "too many commands",
        CloseCode.BAD_TOKEN: "bad token",
        CloseCode.MALFORMED: "malformed",
        CloseCode.CONNECTION_LIMIT: "connection limit",
        CloseCode.DENIED: "denied",
    }
)
"""Close code → reason text sent with it, at most 123 bytes (RFC 6455 §5.5)."""

INTERNAL: Final = RequestError(ErrorCode.INTERNAL, "internal error")
UNAVAILABLE: Final = RequestError(ErrorCode.UNAVAILABLE, "temporarily unavailable", temporary=True)

_FINAL: Final = frozenset({CloseCode.NORMAL, CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA, CloseCode.TOO_BIG})


def may_reconnect(code: int) -> bool:
    """Return whether a client should reconnect, with jitter, after a close with `code`.

    1002, 1007 and 1009 mean that the client sent a wrong frame, and a reconnected client would only send it again.
    """
    return code < 4500 and code not in _FINAL
