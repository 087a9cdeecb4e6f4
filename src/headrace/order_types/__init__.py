"""Types of orders: what each waits for, and the least that each must bring. Port and register; all are pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Protocol, runtime_checkable

from headrace.model.amounts import BaseUnits
from headrace.model.orders import Token, Trigger, Watch


class Field(NamedTuple):
    """One field of an order's body that belongs to a type; schema, command line and documentation follow from it.

    `kind` `price`: whole tokens out for one in, decimal text or a number; `rate`: base units, text `"out/in"`; `bps`:
    an integer from 0 to 10,000. With an `option` the command line takes the field as `--OPTION`.
    """

    name: str
    kind: Literal["price", "rate", "bps"]
    about: str
    option: str | None = None


class OrderBody(NamedTuple):
    """The client's body, and what has been read of it so far. Numbers with a fraction are Decimal."""

    body: Mapping[str, Any]
    token_in: Token
    token_out: Token
    amount: BaseUnits


class Terms(NamedTuple):
    """Terms of an order, which waits for: a `trigger`, or the first `watch` of a type with state; neither: nothing.

    `least_out` None: the accepted quote and the slippage decide.
    """

    trigger: Trigger | None = None
    least_out: BaseUnits | None = None
    watch: Watch | None = None


class WrongTerms(Exception):  # noqa: N818  (a finding)
    """The fault of one field of the body."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


class OrderType(Protocol):
    """`fields` belong to this type; an order of any other type with one of them is refused."""

    fields: tuple[Field, ...]

    def terms(self, asked: OrderBody) -> Terms:
        """Read the type's fields. Raises WrongTerms."""


@runtime_checkable
class StatefulType(OrderType, Protocol):
    """A type whose orders wait for something that moves with the market, such as a trailing stop.

    The state is in the watch. Watches of one order form a join semilattice: `join` is commutative, associative and
    idempotent, and `observe` only ever joins. So processes that have seen different trades come to the same watch.
    """

    def observe(self, watch: Watch, out: BaseUnits, per: BaseUnits) -> Watch:
        """Return the watch after a trade that gave `out` for `per`, both more than 0."""

    def join(self, one: Watch, other: Watch) -> Watch:
        """Return the watch of an order of which one process has seen `one`, and another `other`."""


ORDER_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "market": "headrace.order_types.market:Market",
        "limit": "headrace.order_types.limit:Limit",
        "stop": "headrace.order_types.stop:Stop",
    }
)
"""Name → "module:Class", imported when first used."""
