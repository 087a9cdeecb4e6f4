"""Orders that the database has and nobody can read: left out wherever many are read, and told to a person."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import structlog

T = TypeVar("T")

TOLD_MAX: Final = 1_000
_GARBLED: Final = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)

_log = structlog.get_logger("store")


class Unreadable(NamedTuple):
    """Stands where an order, or an event of it, should be."""

    order_id: str
    why: str


def read_each(read: Callable[[Any], T], found: Iterable[Any]) -> list[T | Unreadable]:
    """What `read` makes of each row, whose first column is the order's id."""
    return [_read(read, row) for row in found]


def _read(read: Callable[[Any], T], row: Any) -> T | Unreadable:
    try:
        return read(row)
    except _GARBLED as error:
        return Unreadable(str(row[0]), f"{type(error).__name__}: {error}")


class UnreadableOrders:
    """The orders that could not be read since the start: each is logged once, and `heard` is called with their number.

    A row that a person repaired is read again like any other; it is counted here until the next start.
    """

    def __init__(self) -> None:
        self.order_ids: set[str] = set()
        self.heard: Callable[[int], None] = lambda _: None

    def sift(self, found: Sequence[T | Unreadable]) -> list[T]:
        """Those that can be read."""
        readable: list[T] = []
        for each in found:
            if isinstance(each, Unreadable):
                self.park(*each)
            else:
                readable.append(each)
        return readable

    def park(self, order_id: str, why: str) -> None:
        """Say it loudly, once."""
        if order_id in self.order_ids or len(self.order_ids) >= TOLD_MAX:
            return
        self.order_ids.add(order_id)
        _log.error("order_unreadable", order=order_id, error=why, meaning="it is left alone; a person must look")
        self.heard(len(self.order_ids))
