"""Shapes of orders in the OpenAPI document: requests and answers.

The tests compare real answers with these shapes: the values (by schemathesis) and the names of all fields.
"""

from typing import Annotated, Any, Final, Literal

import msgspec

from headrace.gateway.problems import PROBLEM_TYPE
from headrace.gateway.routes.schema_parts import Problem
from headrace.model.orders import BPS_WHOLE, Fate, Finality, Mode, OrderStatus
from headrace.order_types.register import fields_by_type

_REF: Final = "#/components/schemas/{name}"
_MINT: Final = "^(SOL|USDC|USDT|[1-9A-HJ-NP-Za-km-z]{32,44})$"
_Token = Annotated[str, msgspec.Meta(pattern=_MINT, description="a symbol, or a mint: base58 of 32 bytes")]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class _Shape(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A shape that is only described. No instance is ever built."""


class Execution(msgspec.Struct, frozen=True):
    mode: Mode = "mock"


class OrderOfAnyType(msgspec.Struct, rename="camel", kw_only=True):
    """A new order. Unknown fields are ignored."""

    token_in: _Token
    token_out: _Token
    type: Annotated[str, msgspec.Meta(max_length=32)] = "market"
    amount: str | int | float | None = None
    ui_amount: str | int | float | None = None
    slippage_bps: Annotated[int, msgspec.Meta(ge=0, le=10_000)] | None = None
    slippage: Annotated[float, msgspec.Meta(ge=0, le=0.5, description="a fraction: 0.01 is 1 %")] | None = None
    min_out: str | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] = 5
    expires_at: Annotated[int, msgspec.Meta(ge=0)] | None = None
    expires_in_ms: Annotated[int, msgspec.Meta(ge=1, le=2**45)] | None = None
    user_id: Annotated[str, msgspec.Meta(pattern="^[ -~]{1,128}$")] = "anonymous"
    client_order_id: _Text | None = None
    execution: Execution = Execution()


_OF_KIND: Final[dict[str, Any]] = {
    "price": str | int | float | None,
    "rate": str | None,
    "bps": Annotated[int, msgspec.Meta(ge=0, le=BPS_WHOLE)] | None,
}


def with_fields_of_types(name: str, base: type[OrderOfAnyType]) -> type[msgspec.Struct]:
    """Return the shape with the fields of all registered order types."""
    fields = [
        (field.name, Annotated[_OF_KIND[field.kind], msgspec.Meta(description=field.about)], None)
        for fields in fields_by_type().values()
        for field in fields
    ]
    return msgspec.defstruct(name, fields, bases=(base,), namespace={"__doc__": base.__doc__}, kw_only=True)


NewOrder: Final = with_fields_of_types("NewOrder", OrderOfAnyType)


class QuoteView(_Shape):
    dex: str
    amount_out: str
    fee_bps: int
    price: str | None


class TriggerView(_Shape):
    when: str
    out: str
    per: str
    price: str | None


class Asked(_Shape):
    """The order as the client placed it."""

    type: str
    token_in: str
    token_out: str
    mint_in: str
    mint_out: str
    amount: str
    ui_amount: str | None
    slippage_bps: int
    trigger: TriggerView | None
    priority: int
    expires_at: int | None
    client_order_id: str | None
    user_id: str
    execution: Execution


class FillView(_Shape):
    """Audit of a fill: `spot - fees - impact = quoted`, `quoted - slippage = received`, in base units of `mintOut`.

    `spot`, `fees` and `impact` are null where the venue does not give them.
    """

    spot: str | None
    fees: str | None
    impact: str | None
    quoted: str
    slippage: str
    received: str


class OrderView(Asked):
    """The current state of an order. Amounts are base units as text."""

    order_id: str
    status: OrderStatus
    dex: str | None
    quotes: list[QuoteView]
    left_out: dict[str, str]
    min_out: str | None
    amount_out: str | None
    executed_price: str | None
    fill: FillView | None
    tx_hash: str | None
    error_reason: str | None
    fate: Fate | None
    finality: Finality | None
    attempts: int
    resting: bool
    cancel_requested: bool
    seq: int
    created_at: int
    updated_at: int


class OrderPage(_Shape):
    """Orders, newest first. `nextCursor` asks for the next page.

    `unreadable` orders are missing: a person must look.
    """

    orders: list[OrderView]
    next_cursor: str | None
    unreadable: int


class Update(msgspec.Struct, rename="camel", kw_only=True):
    """One line of the order's log, with what changed."""

    type: str
    order_id: str
    seq: int
    status: OrderStatus
    event: str
    timestamp: int


class OrderSnapshot(_Shape, tag_field="type", tag="snapshot"):
    """The first frame of an order's stream: the order as of the update that the client knows."""

    order_id: str
    seq: int
    last_seq: int
    order: Asked
    status: OrderStatus | msgspec.UnsetType = msgspec.UNSET


class OrderHeartbeat(_Shape, tag_field="type", tag="heartbeat"):
    """Sent repeatedly, so that a client knows that the stream works. `lastSeq` is the order's newest update."""

    order_id: str
    last_seq: int


class Log(_Shape):
    order_id: str
    last_seq: int
    events: list[Update]


class Balance(_Shape):
    mint: str
    units: str
    amount: str | None


class HoldingView(_Shape):
    mint: str
    cost_mint: str
    units: str
    cost: str
    average_cost: str | None
    realised: str
    realised_amount: str | None
    uncovered: str


class PortfolioView(_Shape):
    """The portfolio of a user. The fills of `unreadable` orders are missing."""

    user_id: str
    fills: int
    unreadable: int
    balances: list[Balance]
    holdings: list[HoldingView]


class ChargeView(_Shape):
    to: str
    mint: str
    amount: str


class LegView(_Shape):
    pool: str
    input_mint: str
    output_mint: str
    amount_in: str | None
    amount_out: str | None


class OfferView(_Shape):
    """The best offer, and all offers in short.

    Amounts are base units as text; `impact` is in base units of `outputMint`. `maxIn` is null with `ExactIn`.
    """

    input_mint: str
    output_mint: str
    amount_in: str
    amount_out: str
    min_out: str
    max_in: str | None
    swap_mode: Literal["ExactIn", "ExactOut"]
    slippage_bps: int
    venue: str
    fee_bps: int
    fees: list[ChargeView]
    impact: str | None
    price: str | None
    route: list[LegView]
    slot: int | None
    quotes: list[QuoteView]
    left_out: dict[str, str]


class OrderProblem(Problem, frozen=True, rename="camel", kw_only=True):
    """Problem with an order: the fault, what to do about it, and what became of the order."""

    code: str | msgspec.UnsetType = msgspec.UNSET
    retryable: bool | msgspec.UnsetType = msgspec.UNSET
    retry_after_ms: int | msgspec.UnsetType | None = msgspec.UNSET
    fate: Fate | msgspec.UnsetType = msgspec.UNSET


_ANSWERS: Final[dict[tuple[str, str], dict[str, type]]] = {
    ("/api/orders/execute", "post"): {"201": OrderView},
    ("/execute", "post"): {"201": OrderView},
    ("/api/orders/{order_id}", "get"): {"200": OrderView},
    ("/api/orders", "get"): {"200": OrderPage},
    ("/api/orders/{order_id}/events", "get"): {"200": Log},
    ("/api/orders/{order_id}/cancel", "post"): {"200": OrderView, "202": OrderView},
    ("/api/portfolio", "get"): {"200": PortfolioView},
    ("/api/quote", "get"): {"200": OfferView},
}


_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": 'Asking again under it gives the same answer, never a second order; `abc` and `"abc"` are one key',
    "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[ -~]*$"},
    "required": False,
}


def describe(document: dict[str, Any]) -> dict[str, Any]:
    """Add the shapes of orders to the OpenAPI document, in place."""
    answers = [shape for shapes in _ANSWERS.values() for shape in shapes.values()]
    _, components = msgspec.json.schema_components([NewOrder, OrderProblem, *answers], ref_template=_REF)
    document.setdefault("components", {}).setdefault("schemas", {}).update(components)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            answers_here = _ANSWERS.get((path, method))
            if answers_here is not None:
                operation["responses"] = {
                    **{
                        status: _content("as it is now", "application/json", shape)
                        for status, shape in answers_here.items()
                    },
                    "default": _content("what is wrong", PROBLEM_TYPE, OrderProblem),
                }
    for path in ("/api/orders/execute", "/execute"):
        if (operations := document["paths"].get(path)) is not None:
            operations["post"]["requestBody"] = {"required": True, **_content("", "application/json", NewOrder)}
            operations["post"]["parameters"] = [dict(_KEY)]
    return document


def _content(description: str, media_type: str, shape: type) -> dict[str, Any]:
    return {
        "description": description,
        "content": {media_type: {"schema": {"$ref": _REF.format(name=shape.__name__)}}},
    }
