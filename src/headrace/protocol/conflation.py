"""Conflation: of the events with the same value in a field only the latest, everything else untouched."""

from typing import Annotated, Final, Generic, NamedTuple, TypeVar

import msgspec

from headrace.model.errors import RequestError
from headrace.protocol.codes import ErrorCode
from headrace.protocol.filters import checked_key

EVERY_MS_MIN: Final = 10
EVERY_MS_MAX: Final = 60_000
KEYS_MAX: Final = 4096
"""Messages that may wait for the end of a window; one more, and it ends early. Nothing is lost by that."""

V = TypeVar("V")


class Conflate(NamedTuple):
    """The latest per value of `key`, at most each `every_ms`."""

    key: str
    every_ms: int


class _Wish(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    every_ms: Annotated[int, msgspec.Meta(ge=EVERY_MS_MIN, le=EVERY_MS_MAX)]


_wish = msgspec.json.Decoder(_Wish | None)


def parse_conflate(raw: bytes | msgspec.Raw) -> Conflate | None:
    """The `conflate` of a `subscribe`; None for `null`. Raises RequestError 107."""
    try:
        wish = _wish.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        expected = f"a key, and every_ms from {EVERY_MS_MIN} to {EVERY_MS_MAX}"
        raise RequestError(ErrorCode.BAD_REQUEST, f"conflate: expected {expected}") from error
    if wish is None:
        return None
    key = checked_key(wish.key)
    if key is None:
        raise RequestError(ErrorCode.BAD_REQUEST, "conflate: key is no field's name")
    return Conflate(key, wish.every_ms)


class Latest(Generic[V]):
    """Keeps the newest value of each key, and all that have none, in the order in which the kept ones came."""

    __slots__ = ("_kept", "_without_key")

    def __init__(self) -> None:
        self._kept: dict[str | int, V] = {}
        self._without_key = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: str | None, value: V) -> None:
        if key is None:
            self._without_key += 1
            self._kept[self._without_key] = value
        else:
            self._kept.pop(key, None)
            self._kept[key] = value

    def oldest(self) -> V:
        """Of those that are kept; there must be one."""
        return next(iter(self._kept.values()))

    def take(self) -> list[V]:
        """All that is kept; it is empty then."""
        kept, self._kept = list(self._kept.values()), {}
        return kept
