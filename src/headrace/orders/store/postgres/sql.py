"""Texts that the statements of the PostgreSQL store share."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from headrace.orders.store import rows

CHANNEL: Final = "headrace_orders"
"""Channel of NOTIFY: a hint that the log has grown."""
IN_MS: Final = "clock_timestamp() + {} * interval '1 millisecond'"
OF_ORDER: Final = ", ".join(f"o.{column}" for column in rows.ORDER_COLUMNS.split(", "))
WHERE: Final = rows.conditions(no_lease="'-infinity'")
"""Conditions on `orders`; `-infinity` stands for no lease."""


def columns(table: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Turn rows, at least one, into columns, the form that `unnest` takes."""
    return list(map(list, zip(*table, strict=True)))
