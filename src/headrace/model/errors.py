"""The one tree of errors: the class says who must act.

HeadraceError
├── ConfigError        fix the configuration; the process does not start (or keeps its old settings)
├── RequestError       the caller's fault; answered with a code, never retried by us
├── BadInputError      bytes from outside that are not what they claim; counted and skipped
├── FencedError        another process does this work now; stop here, and repeat nothing
├── TransientError     may work if tried again (network, node, rate limit)
└── InvariantError     cannot happen; stop this piece of work and call a person
"""


class HeadraceError(Exception):
    """Root of everything that Headrace raises on purpose."""


class ConfigError(HeadraceError):
    """A setting is wrong. Names the key, what was given (never a secret) and what is expected."""

    def __init__(self, key: str, given: str, expected: str, *, origin: str = "") -> None:
        self.key, self.given, self.expected, self.origin = key, given, expected, origin
        where = f" (from {origin})" if origin else ""
        super().__init__(f"{key}: got {given}{where}, expected {expected}")


class RequestError(HeadraceError):
    """The caller asked for something that cannot be done as asked.

    `code` is a code of the wire protocol (protocol/codes.py); `message` is generic and safe to send.
    """

    def __init__(self, code: int, message: str, *, temporary: bool = False, retry_after_ms: int | None = None) -> None:
        self.code, self.message, self.temporary, self.retry_after_ms = code, message, temporary, retry_after_ms
        super().__init__(f"{code} {message}")


class BadInputError(HeadraceError):
    """Bytes from outside are not what they claim. `reason` is a short constant for metrics, `detail` for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


class TransientError(HeadraceError):
    """May work if tried again: the network, a node or a rate limit said no for now."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class FencedError(HeadraceError):
    """Another process has taken this work over. Stop the work here; what was refused must not be repeated."""


class InvariantError(HeadraceError):
    """Something that cannot happen did. The work is parked; a person must look."""
