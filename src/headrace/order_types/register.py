"""The registered order types, each created once, and functions for orders of any type."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module

from headrace.model.amounts import BaseUnits
from headrace.model.errors import InvariantError
from headrace.model.orders import Order, Watch
from headrace.order_types import ORDER_TYPES, Field, OrderType, StatefulType


@cache
def order_type(name: str) -> OrderType:
    """Return the type called `name`. Raises InvariantError for a name that is not registered."""
    if name not in ORDER_TYPES:
        raise InvariantError(f"an order of type {name}, known are {', '.join(ORDER_TYPES)}")
    module, _, class_name = ORDER_TYPES[name].partition(":")
    made: OrderType = getattr(import_module(module), class_name)()
    return made


@cache
def fields_by_type() -> Mapping[str, tuple[Field, ...]]:
    """Return the fields of each type, by the type's name."""
    return {name: order_type(name).fields for name in ORDER_TYPES}


def observed(order: Order, out: BaseUnits, per: BaseUnits) -> Watch:
    """Return the watch of an order after a trade. Raises InvariantError for an order whose type has no state."""
    watch, kind = _stateful(order)
    return kind.observe(watch, out, per)


def joined(order: Order, watch: Watch) -> Watch:
    """Return the order's watch joined with `watch`. Raises InvariantError for an order whose type has no state."""
    known, kind = _stateful(order)
    return kind.join(known, watch)


def _stateful(order: Order) -> tuple[Watch, StatefulType]:
    kind = order_type(order.request.type)
    if order.watch is None or not isinstance(kind, StatefulType):
        raise InvariantError(f"order {order.id} of type {order.request.type} has no watch")
    return order.watch, kind
