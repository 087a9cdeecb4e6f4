"""Whether and when to ask again, from an HTTP status and its `Retry-After`."""

from typing import Final

_ABOUT_THE_MOMENT: Final = frozenset({408, 425, 429})


def is_final(status: int) -> bool:
    """Whether it would be the same next time: 4xx, but for those that are about the moment."""
    return 400 <= status < 500 and status not in _ABOUT_THE_MOMENT


def retry_after_s(asked: str, longest_s: float) -> float | None:
    """The seconds of a `Retry-After` header, at most `longest_s`; None where it gives none (a date is not read)."""
    return min(float(asked), longest_s) if asked.isascii() and asked.isdigit() else None
