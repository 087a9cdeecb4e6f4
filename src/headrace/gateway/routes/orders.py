"""Orders over HTTP: execute, look, list, cancel."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath, QueryParameter
from litestar.types import ControllerRouterHandler

from headrace.execution.intake import Intake, as_accepted
from headrace.execution.requests import read_json
from headrace.gateway.problems import Refused
from headrace.model.orders import OrderRefused
from headrace.protocol.orders import event_frame, order_view

STREAMS: Final = ("/api/orders/{id}/stream", "/ws/{id}")
"""Paths of an order's stream; both are promised."""

JSON_TYPE: Final = "application/json"

_Text = Annotated[str | None, QueryParameter(max_length=128)]


def handlers(intake: Intake) -> Sequence[ControllerRouterHandler]:
    """The route handlers for this intake."""

    @post("/api/orders/execute", status_code=201)
    async def execute(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Take an order: 201 with its first state once it is on disk.

        With an `Idempotency-Key` (or a `clientOrderId`) asking again gives the same answer and
        `Idempotency-Replayed: true`; the same key with another order is refused with 422.
        """
        body = read_body(request.headers.get("content-type", ""), await request.body())
        accepted = await intake.execute(body, request.headers.get("idempotency-key"))
        headers = {"Location": f"/api/orders/{accepted.order.id}"}
        if accepted.replayed:
            headers["Idempotency-Replayed"] = "true"
        return _json(order_view(as_accepted(accepted.order)), 201, headers)

    @get("/api/orders/{order_id:str}")
    async def read(order_id: FromPath[str]) -> Response[bytes]:
        """The order as it is now."""
        return _json(order_view(await intake.get(order_id)))

    @get("/api/orders")
    async def find(
        status: _Text = None,
        mint: _Text = None,
        user: _Text = None,
        cursor: _Text = None,
        limit: Annotated[int, QueryParameter(ge=1, le=200)] = 50,
    ) -> Response[bytes]:
        """Orders, newest first. `cursor` is the `nextCursor` of the page before."""
        page = await intake.list(user_id=user, status=status, mint=mint, cursor=cursor, limit=limit)
        return _json({"orders": [order_view(order) for order in page.orders], "nextCursor": page.cursor})

    @get("/api/orders/{order_id:str}/events")
    async def events(
        order_id: FromPath[str],
        from_seq: Annotated[int, QueryParameter(ge=0, le=2**31, name="fromSeq")] = 0,
        limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 1000,
    ) -> Response[bytes]:
        """The order's log after `fromSeq`, as its stream tells it."""
        order = await intake.get(order_id)
        log = await intake.events(order_id, from_seq, limit)
        return _json({"orderId": order.id, "lastSeq": order.seq, "events": [msgspec.Raw(event_frame(e)) for e in log]})

    @post("/api/orders/{order_id:str}/cancel", status_code=200)
    async def cancel(order_id: FromPath[str]) -> Response[bytes]:
        """200: it is cancelled. 202: its transaction may be on its way; it ends CANCELLED or, too late, CONFIRMED."""
        order, requested = await intake.cancel(order_id)
        return _json(order_view(order), 202 if requested else 200)

    @get("/api/portfolio")
    async def portfolio(user: Annotated[str, QueryParameter(min_length=1, max_length=64)]) -> Response[bytes]:
        """What a user's executed orders have come to: balances, cost and profit, folded from the log of the orders."""
        return _json(await intake.portfolio(user))

    @get("/api/orders/{order_id:str}/stream", status_code=426, include_in_schema=False)
    async def needs_upgrade(order_id: FromPath[str]) -> None:
        """The stream is a WebSocket."""
        raise Refused(HTTPStatus.UPGRADE_REQUIRED, f"connect with a WebSocket client to follow {order_id[:64]}")

    return execute, read, find, events, cancel, portfolio, needs_upgrade


def read_body(content_type: str, body: bytes) -> Any:
    """The body's JSON with fractions as Decimal. Refuses other types, and objects that name a key twice."""
    if content_type.partition(";")[0].strip().lower() != JSON_TYPE:
        raise OrderRefused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", f"expected {JSON_TYPE}")
    return read_json(body)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    return Response(msgspec.json.encode(value), status_code=status, media_type=JSON_TYPE, headers=headers)
