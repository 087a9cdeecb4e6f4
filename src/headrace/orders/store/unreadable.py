"""Orders in the database that can't be read. They are left out of reads of many orders, and logged for a person."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import structlog

T = TypeVar("T")

LOGGED_MAX: Final = 1_000
_GARBLED: Final = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)

_log = structlog.get_logger("store")


class Unreadable(NamedTuple):
    """Replacement for an order, or for an event of an order, that can't be read."""

    order_id: str
    reason: str


def read_each(read: Callable[[Any], T], found: Iterable[Any]) -> list[T | Unreadable]:
    """Apply `read` to each row, whose first column is the order's id. A row that can't be read becomes Unreadable."""
    return [_read(read, row) for row in found]


def _read(read: Callable[[Any], T], row: Any) -> T | Unreadable:
    try:
        return read(row)
    except _GARBLED as error:
        return Unreadable(str(row[0]), f"{type(error).__name__}: {error}")


class UnreadableOrders:
    """The orders that could not be read since the process started.

    Each is logged once, and `on_more` is called with their number. A row that a person has repaired is read again like
    any other, but its order stays in this set until the process restarts.
    """

    def __init__(self) -> None:
        self.order_ids: set[str] = set()
        self.on_more: Callable[[int], None] = lambda _: None

    def leave_out(self, found: Sequence[T | Unreadable]) -> list[T]:
        """Return the readable items, and remember the unreadable orders."""
        readable: list[T] = []
        for each in found:
            if isinstance(each, Unreadable):
                self.add(*each)
            else:
                readable.append(each)
        return readable

    def add(self, order_id: str, reason: str) -> None:
        """Remember the order, and log it the first time."""
        if order_id in self.order_ids or len(self.order_ids) >= LOGGED_MAX:
            return
        self.order_ids.add(order_id)
        _log.error("order_unreadable", order=order_id, error=reason, meaning="it is left alone; a person must look")
        self.on_more(len(self.order_ids))
