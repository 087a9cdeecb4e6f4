"""SQL texts that several statements of the PostgreSQL store use."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from headrace.orders.store import rows

CHANNEL: Final = "headrace_orders"
"""NOTIFY channel. A notification is a hint that the log has grown."""
IN_MS: Final = "clock_timestamp() + {} * interval '1 millisecond'"
OF_ORDER: Final = ", ".join(f"o.{column}" for column in rows.ORDER_COLUMNS.split(", "))
WHERE: Final = rows.conditions(no_lease="'-infinity'")
"""Conditions on `orders`, where `-infinity` means no lease."""


def columns(table: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Turn at least one row into columns, the form that `unnest` takes."""
    return list(map(list, zip(*table, strict=True)))
