"""Derives from an HTTP status and its `Retry-After` header whether a request may be repeated, and when."""

from typing import Final

_ABOUT_THE_MOMENT: Final = frozenset({408, 425, 429})


def is_final(status: int) -> bool:
    """Return whether a repeated request would be refused again: any 4xx, except statuses that may pass (429)."""
    return 400 <= status < 500 and status not in _ABOUT_THE_MOMENT


def retry_after_s(asked: str, longest_s: float) -> float | None:
    """Return the seconds of a `Retry-After` header, at most `longest_s`.

    None if it has no seconds (dates are ignored).
    """
    return min(float(asked), longest_s) if asked.isascii() and asked.isdigit() else None
