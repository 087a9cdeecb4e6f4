"""The one tree of errors. The class of an error says who must act.

HeadraceError
├── ConfigError        fix the configuration; the process does not start (or keeps its old settings)
├── RequestError       the caller's fault; answered with a code, never retried by us
├── BadInputError      malformed bytes from outside; counted and skipped
├── FencedError        another process does this work now; stop here, and repeat nothing
├── TransientError     may work if tried again (network, node, rate limit)
│   └── ElsewhereError another server does this now; ask that server
└── InvariantError     cannot happen; stop this piece of work and call a person
"""


class HeadraceError(Exception):
    """Base class of every error that Headrace raises on purpose."""


class ConfigError(HeadraceError):
    """A setting is wrong. The message names the key, the value given (never a secret) and the values expected."""

    def __init__(self, key: str, given: str, expected: str, *, origin: str = "") -> None:
        self.key, self.given, self.expected, self.origin = key, given, expected, origin
        where = f" (from {origin})" if origin else ""
        super().__init__(f"{key}: got {given}{where}, expected {expected}")


class RequestError(HeadraceError):
    """The caller's request cannot be executed as it is.

    `code` is a code of the wire protocol (protocol/codes.py). `message` is generic and safe to send.
    """

    def __init__(self, code: int, message: str, *, temporary: bool = False, retry_after_ms: int | None = None) -> None:
        self.code, self.message, self.temporary, self.retry_after_ms = code, message, temporary, retry_after_ms
        super().__init__(f"{code} {message}")


class BadInputError(HeadraceError):
    """Bytes from outside are malformed. `reason` is a short constant for metrics, `detail` is for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


class TransientError(HeadraceError):
    """The same call may succeed later: the network, a node or a rate limit stopped it this time."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class ElsewhereError(TransientError):
    """Another server does this now. This server may do so later."""


class FencedError(HeadraceError):
    """Another process has taken over this work. Stop the work in this process, and do not repeat the refused call."""


class InvariantError(HeadraceError):
    """A state that cannot happen has happened. The work is parked until a person looks at it."""
