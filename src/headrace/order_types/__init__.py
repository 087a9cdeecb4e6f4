"""Order types: the trigger for which an order of each type waits, and its minimum output. Port and register. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Protocol, runtime_checkable

from headrace.model.amounts import BaseUnits
from headrace.model.orders import Token, Trigger, Watch


class Field(NamedTuple):
    """One field of an order's body that belongs to a type.

    Schema, command line and documentation are generated from it.
    `kind` is one of:
    - `price`: whole coins out for one coin in, as decimal text or a number.
    - `rate`: base units, as text `"out/in"`.
    - `bps`: an integer from 0 to 10,000.

    With an `option`, the command line accepts the field as `--OPTION`.
    """

    name: str
    kind: Literal["price", "rate", "bps"]
    about: str
    option: str | None = None


class OrderBody(NamedTuple):
    """The client's body, and the fields that were read from it so far. Numbers with a fraction are Decimal."""

    body: Mapping[str, Any]
    token_in: Token
    token_out: Token
    amount: BaseUnits


class Terms(NamedTuple):
    """Terms of an order.

    The order waits for its `trigger`, or starts with the first `watch` of a type that has a state. Without either, it
    is executed at once. If `least_out` is None, the accepted quote and the slippage set the minimum output.
    """

    trigger: Trigger | None = None
    least_out: BaseUnits | None = None
    watch: Watch | None = None


class WrongTerms(Exception):  # noqa: N818  (a report about the client's input)
    """The fault of one field of the body."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


class OrderType(Protocol):
    """Order type. `fields` belong only to this type. An order of another type that has one of them is refused."""

    fields: tuple[Field, ...]

    def terms(self, asked: OrderBody) -> Terms:
        """Return the terms that the type's fields set. Raises WrongTerms."""


@runtime_checkable
class StatefulType(OrderType, Protocol):
    """A type whose orders wait for a rate that moves with the market, such as a trailing stop.

    The state is in the watch. The watches of one order form a join semilattice: `join` is commutative, associative and
    idempotent, and `observe` only joins. Processes that have seen different trades therefore arrive at the same watch.
    """

    def observe(self, watch: Watch, out: BaseUnits, per: BaseUnits) -> Watch:
        """Return the watch after a trade that gave `out` for `per`, both more than 0."""

    def join(self, one: Watch, other: Watch) -> Watch:
        """Return the watch that results from the watches `one` and `other`, which two processes have computed."""


ORDER_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "market": "headrace.order_types.market:Market",
        "limit": "headrace.order_types.limit:Limit",
        "stop": "headrace.order_types.stop:Stop",
    }
)
"""Name → "module:Class", imported at the first use."""
