"""Kinds of orders: what each waits for, and what it must bring at least. Port and register; all are pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from headrace.model.amounts import BaseUnits
from headrace.model.orders import Token, Trigger


class Asked(NamedTuple):
    """What the client sent, and what was understood of it so far. Numbers with a fraction are Decimal."""

    body: Mapping[str, Any]
    token_in: Token
    token_out: Token
    amount: BaseUnits


class Terms(NamedTuple):
    """`trigger` None: it is executed at once. `least_out` None: the accepted quote and the slippage say."""

    trigger: Trigger | None = None
    least_out: BaseUnits | None = None


class WrongTerms(Exception):  # noqa: N818  (a finding)
    """What is wrong with one field of the body."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


class OrderType(Protocol):
    """`fields` are those of the body that belong to this type; with any other type they are refused."""

    fields: tuple[str, ...]

    def terms(self, asked: Asked) -> Terms:
        """What the body says in those fields. Raises WrongTerms."""


ORDER_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "market": "headrace.order_types.market:Market",
        "limit": "headrace.order_types.limit:Limit",
        "stop": "headrace.order_types.stop:Stop",
    }
)
"""Name → "module:Class", imported when first used."""
