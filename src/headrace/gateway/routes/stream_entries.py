"""Entries of the AsyncAPI document: one for every command, frame and code of the streams.

tests/gateway/test_asyncapi.py fails if an entry is missing.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, get_args

import msgspec

from headrace.gateway.routes.order_shapes import (
    OfferView,
    OrderHeartbeat,
    OrderOfAnyType,
    OrderSnapshot,
    OrderView,
    Update,
    with_fields_of_types,
)
from headrace.protocol import shapes
from headrace.protocol.codes import CloseCode, ErrorCode
from headrace.protocol.shapes import Command


class _OrderWithKey(OrderOfAnyType, kw_only=True, rename="camel"):
    """The body of `POST /api/orders/execute`, and the key that HTTP has in a header."""

    idempotency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None


PlaceOrder: Final = with_fields_of_types("PlaceOrder", _OrderWithKey)


class OneOrder(msgspec.Struct, rename="camel"):
    """Names an order."""

    order_id: str


class Order(msgspec.Struct, tag_field="type", tag="order", forbid_unknown_fields=True):
    """The answer to an order command: the order as HTTP shows it, and `replayed` or `requested`."""

    data: OrderView
    id: shapes.Id = msgspec.UNSET
    replayed: bool | msgspec.UnsetType = msgspec.UNSET
    requested: bool | msgspec.UnsetType = msgspec.UNSET


class AskQuote(msgspec.Struct, rename="camel"):
    """The parameters of `GET /api/quote`; `amount` is in base units, as text."""

    input_mint: str
    output_mint: str
    amount: str
    slippage_bps: Annotated[int, msgspec.Meta(ge=0, le=10_000)] | None = None
    swap_mode: Literal["ExactIn", "ExactOut"] | None = None


class Quote(msgspec.Struct, tag_field="type", tag="quote", forbid_unknown_fields=True):
    """The answer to `quote`: the offer as HTTP shows it."""

    data: OfferView
    id: shapes.Id = msgspec.UNSET


COMMANDS: Final[Mapping[str, Command]] = {
    **shapes.COMMANDS,
    "order.execute": Command("Place an order", PlaceOrder, (Order, shapes.Error)),
    "order.get": Command("Look at an order", OneOrder, (Order, shapes.Error)),
    "order.cancel": Command("Cancel an order", OneOrder, (Order, shapes.Error)),
    "quote": Command("Ask for a quote", AskQuote, (Quote, shapes.Error)),
}
"""All commands. Commands on orders are defined in this module, because their data has the shapes of the HTTP routes."""

ERRORS: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.INTERNAL: "a defect of the server",
    ErrorCode.UNAUTHORIZED: "no credential, or not a good one",
    ErrorCode.UNKNOWN_TOPIC: "no topic can have this name",
    ErrorCode.DENIED: "not for this user",
    ErrorCode.ALREADY_SUBSCRIBED: "this connection has the topic already",
    ErrorCode.LIMIT: "too many topics or filters on this connection, filters on this topic, or topics of quotes",
    ErrorCode.BAD_REQUEST: "unknown or malformed command, or one that this server has switched off",
    ErrorCode.UNAVAILABLE: (
        "the history, the state, the inbox or the keys of tokens can't be had just now, or a token is not valid yet"
    ),
    ErrorCode.TOKEN_EXPIRED: "the credential is too old",
    ErrorCode.RATE_LIMITED: "too many commands; wait retry_after_ms",
    ErrorCode.UNRECOVERABLE: "the position of a history is gone",
    ErrorCode.BAD_FILTER: "the filter is none, or beyond a limit",
    ErrorCode.DECODER_UNAVAILABLE: "reserved; not sent",
}

CLOSES: Final[Mapping[CloseCode, str]] = {
    CloseCode.NORMAL: "the client closed",
    CloseCode.GOING_AWAY: "going away",
    CloseCode.PROTOCOL_ERROR: "WebSocket protocol error",
    CloseCode.INVALID_DATA: "a text frame that is not UTF-8",
    CloseCode.TOO_BIG: "a message above limits.frame",
    CloseCode.INTERNAL: "a defect of the server",
    CloseCode.SHUTDOWN: "the server shuts down",
    CloseCode.AUTH_TIMEOUT: "no credential in time",
    CloseCode.EXPIRED: "the credential expired",
    CloseCode.SLOW: "too slow; a lag said what was lost",
    CloseCode.INSUFFICIENT_STATE: "the server can't tell any more what this client has",
    CloseCode.NO_PONG: "no answer to a heartbeat",
    CloseCode.RATE: "far too many commands or frames",
    CloseCode.BAD_TOKEN: "the credential is no good",
    CloseCode.MALFORMED: "too many frames that were no command at all",
    CloseCode.CONNECTION_LIMIT: "too many connections",
    CloseCode.DENIED: "not allowed",
}

STREAM: Final = (*get_args(shapes.SENT), Order, Quote)
"""Frames that a server sends on `/ws`."""

OVER_HTTP: Final = (shapes.Subscribed, *get_args(shapes.Logged), shapes.Ping, shapes.Lag, shapes.Close)
ORDER: Final = (OrderSnapshot, Update, OrderHeartbeat)
