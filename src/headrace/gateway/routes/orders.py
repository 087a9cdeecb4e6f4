"""Orders over HTTP: place, read, list, cancel."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from litestar import Request, Response, get, post, route
from litestar.params import PathParameter, QueryParameter
from litestar.types import ControllerRouterHandler, Scope

from headrace.gateway.order_commands import of_user
from headrace.gateway.problems import Answer, Refused
from headrace.gateway.routes import guards
from headrace.gateway.routes.middleware import values
from headrace.gateway.transports.websocket import Endpoint
from headrace.model.orders import OrderRefused
from headrace.orders.intake import Intake, as_accepted
from headrace.orders.requests import read_json
from headrace.protocol.orders import event_frame, offer_view, order_view

STREAMS: Final = ("/api/orders/{id}/stream", "/ws/{id}")
"""Paths of an order's stream. Both are part of the API."""

PLACING: Final = ("/api/orders/execute", "/execute")
"""Paths that accept orders. Both are part of the API."""

JSON_TYPE: Final = "application/json"

_TEXT_MAX: Final = 128

_OrderId: TypeAlias = Annotated[str, PathParameter(description="As the answer to its placing has it")]


def handlers(intake: Intake) -> Sequence[ControllerRouterHandler]:
    """Return the route handlers for this intake."""

    @post("/api/orders/execute", operation_id="placeOrder", summary="Place an order", tags=["orders"], status_code=201)
    async def execute(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Take an order: 201 with its first state once it is on disk.

        With an `Idempotency-Key` (or a `clientOrderId`), a repeated request gets the same answer and
        `Idempotency-Replayed: true`; the same key with another order is refused with 422.
        """
        return respond(await place(intake, request.scope, await request.body()))

    @post("/execute", operation_id="placeOrderAsBefore", summary="Place an order", tags=["orders"], status_code=201)
    async def execute_as_before(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Take an order as `POST /api/orders/execute` does; the path of an earlier service."""
        return respond(await place(intake, request.scope, await request.body()))

    @get("/api/orders/{order_id:str}", operation_id="readOrder", summary="Look at an order", tags=["orders"])
    async def read(request: Request[Any, Any, Any], order_id: _OrderId) -> Response[bytes]:
        """Get the order as it is now."""
        return _json(order_view(await intake.get(order_id, user_id=guards.acting_user(request))))

    @get("/api/orders", operation_id="listOrders", summary="List orders", tags=["orders"])
    async def find(
        request: Request[Any, Any, Any],
        status: Annotated[
            str | None, QueryParameter(max_length=_TEXT_MAX, description="Only those of this status")
        ] = None,
        mint: Annotated[
            str | None, QueryParameter(max_length=_TEXT_MAX, description="Only those that take or give this mint")
        ] = None,
        user: Annotated[str | None, QueryParameter(max_length=_TEXT_MAX, description="Only this user's")] = None,
        cursor: Annotated[
            str | None, QueryParameter(max_length=_TEXT_MAX, description="The `nextCursor` of the page before")
        ] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=200, description="How many at most")] = 50,
    ) -> Response[bytes]:
        """Get orders, newest first. `cursor` is the `nextCursor` of the page before."""
        user = guards.acting_user(request, user)
        page = await intake.list(user_id=user, status=status, mint=mint, cursor=cursor, limit=limit)
        orders = [order_view(order) for order in page.orders]
        return _json({"orders": orders, "nextCursor": page.cursor, "unreadable": page.unreadable})

    @get(
        "/api/orders/{order_id:str}/events", operation_id="readOrderLog", summary="Read an order's log", tags=["orders"]
    )
    async def events(
        request: Request[Any, Any, Any],
        order_id: _OrderId,
        from_seq: Annotated[
            int, QueryParameter(ge=0, le=2**31, name="fromSeq", description="Only updates after this one")
        ] = 0,
        limit: Annotated[int, QueryParameter(ge=1, le=1000, description="How many at most")] = 1000,
    ) -> Response[bytes]:
        """Get the order's log after `fromSeq`, in the form of the order's stream."""
        order, log = await intake.read(order_id, from_seq, limit, user_id=guards.acting_user(request))
        return _json({"orderId": order.id, "lastSeq": order.seq, "events": [msgspec.Raw(event_frame(e)) for e in log]})

    @post(
        "/api/orders/{order_id:str}/cancel",
        operation_id="cancelOrder",
        summary="Cancel an order",
        tags=["orders"],
        status_code=200,
    )
    async def cancel(request: Request[Any, Any, Any], order_id: _OrderId) -> Response[bytes]:
        """Cancel the order: 200 if it is cancelled.

        202 while its transaction may be on its way: the order then ends CANCELLED or, if too late, CONFIRMED.
        """
        order, requested = await intake.cancel(order_id, user_id=guards.acting_user(request))
        return _json(order_view(order), 202 if requested else 200)

    @get("/api/portfolio", operation_id="readPortfolio", summary="Balances and holdings", tags=["orders"])
    async def portfolio(
        request: Request[Any, Any, Any],
        user: Annotated[
            str | None, QueryParameter(min_length=1, max_length=_TEXT_MAX, description="Whose; by default the caller's")
        ] = None,
    ) -> Response[bytes]:
        """Get the sum of a user's executed orders: balances, cost and profit."""
        owner = guards.acting_user(request, user)
        if owner is None:  # if authentication is off, the caller is unknown
            fields = {"user": "is missing"}
            raise OrderRefused(HTTPStatus.BAD_REQUEST, "invalid_query", "whose portfolio is not said", fields=fields)
        return _json(await intake.portfolio(owner))

    @get("/api/quote", operation_id="quote", summary="Ask for a quote", tags=["orders"])
    async def quote(
        input_mint: Annotated[
            str,
            QueryParameter(
                min_length=1, max_length=_TEXT_MAX, name="inputMint", description="What is given: a symbol or a mint"
            ),
        ],
        output_mint: Annotated[
            str,
            QueryParameter(
                min_length=1, max_length=_TEXT_MAX, name="outputMint", description="What is wanted: a symbol or a mint"
            ),
        ],
        amount: Annotated[
            str,
            QueryParameter(
                min_length=1,
                max_length=_TEXT_MAX,
                description="Base units of what is given; with `ExactOut`, of what is wanted",
            ),
        ],
        slippage_bps: Annotated[
            int | None, QueryParameter(ge=0, le=10_000, name="slippageBps", description="By default as for an order")
        ] = None,
        swap_mode: Annotated[
            str, QueryParameter(max_length=_TEXT_MAX, name="swapMode", description="`ExactIn` or `ExactOut`")
        ] = "ExactIn",
    ) -> Response[bytes]:
        """Get the best offer of all venues for an amount, as an order would take it. Nothing is ordered."""
        asked = {
            "inputMint": input_mint,
            "outputMint": output_mint,
            "amount": amount,
            "slippageBps": slippage_bps,
            "swapMode": swap_mode,
        }
        return _json(offer_view(*await intake.offer(asked)))

    @get("/api/orders/{order_id:str}/stream", status_code=426, opt=guards.OPEN, include_in_schema=False)
    async def needs_upgrade(order_id: _OrderId) -> None:
        """Refuse a request for the stream that does not upgrade to a WebSocket."""
        raise Refused(HTTPStatus.UPGRADE_REQUIRED, f"connect with a WebSocket client to follow {order_id[:64]}")

    return execute, execute_as_before, read, find, events, cancel, portfolio, quote, needs_upgrade


async def place(intake: Intake, scope: Scope, body: bytes) -> Answer:
    """Accept an order and return the answer. Raises OrderRefused."""
    given = read_body(next(iter(values(scope, b"content-type")), ""), body)
    if isinstance(given, dict):
        given = of_user(given, guards.user_of(scope))
    accepted = await intake.execute(given, _key(values(scope, b"idempotency-key")))
    headers = {"Location": f"/api/orders/{accepted.order.id}"}
    if accepted.replayed:
        headers["Idempotency-Replayed"] = "true"
    return Answer(201, msgspec.json.encode(order_view(as_accepted(accepted.order))), headers, JSON_TYPE)


def respond(answer: Answer) -> Response[bytes]:
    return Response(answer.body, status_code=answer.status, media_type=answer.kind, headers=dict(answer.headers))


def off() -> Sequence[ControllerRouterHandler]:
    """Return handlers for a server without orders. Their answer can't be mistaken for "no such order"."""

    @route(
        ["/api/orders", "/api/orders/{rest:path}", "/api/portfolio", "/api/quote", "/execute"],
        http_method=["GET", "POST"],
        include_in_schema=False,
    )
    async def orders_off(request: Request[Any, Any, Any]) -> None:
        raise OrderRefused(HTTPStatus.NOT_IMPLEMENTED, "orders_off", "this server takes no orders", fate="unknown")

    return (orders_off,)


def refuse_stream(_connection: object, _opening: object) -> Endpoint:
    """Raise Refused 501, because this server accepts no orders."""
    raise Refused(HTTPStatus.NOT_IMPLEMENTED, "this server takes no orders")


def read_body(content_type: str, body: bytes) -> Any:
    """Parse the body's JSON, with fractions as Decimal. Raises OrderRefused for other types, and for a repeated key."""
    if content_type.partition(";")[0].strip().lower() != JSON_TYPE:
        raise OrderRefused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", f"expected {JSON_TYPE}")
    return read_json(body)


def _key(given: Sequence[str]) -> str | None:
    """Return the idempotency key, if any. Raises OrderRefused for more than one."""
    if len(given) > 1:
        message = "more than one Idempotency-Key is given"
        raise OrderRefused(HTTPStatus.BAD_REQUEST, "invalid_idempotency_key", message)
    return given[0] if given else None


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    return Response(msgspec.json.encode(value), status_code=status, media_type=JSON_TYPE, headers=headers)
