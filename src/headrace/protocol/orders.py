"""Orders as clients see them: the JSON object in answers, and the frames of the order stream. Pure.

Money is text, never a float.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from headrace.model.amounts import decimal_string
from headrace.model.fills import audit
from headrace.model.orders import (
    TERMINAL,
    EventKind,
    Leg,
    Order,
    OrderEvent,
    OrderRequest,
    OrderStatus,
    Outcome,
    Quote,
    Trigger,
)

PRICE_DECIMALS: Final = 9

_NOTICES: Final = {
    EventKind.LANDED: ("Order executed", "Order %s was executed."),
    EventKind.FAILED: ("Order failed", "Order %s failed; nothing was executed."),
    EventKind.CANCELLED: ("Order cancelled", "Order %s was cancelled; nothing was executed."),
    EventKind.EXPIRED: ("Order expired", "Order %s expired; nothing was executed."),
    EventKind.LANDING_LOST: ("Order undone", "Order %s was executed on a fork that died; nothing of it remains."),
}
"""Kind of each event that ends an order, or undoes its end → title and message of the notification."""

_encode = msgspec.json.Encoder().encode


def price(request: OrderRequest, amount_in: int, amount_out: int) -> str | None:
    """Return the number of whole output coins for one whole input coin, truncated after nine decimals.

    `"150.25"`: 1 SOL gives 150.25 USDC. None if the decimals of a mint are unknown.
    """
    decimals_in, decimals_out = request.token_in.decimals, request.token_out.decimals
    if decimals_in is None or decimals_out is None or amount_in == 0:
        return None
    scaled = amount_out * 10 ** (decimals_in + PRICE_DECIMALS) // (amount_in * 10**decimals_out)
    return decimal_string(scaled, PRICE_DECIMALS)


def order_view(order: Order) -> dict[str, Any]:
    """Return the whole order, as `GET /api/orders/{id}` answers."""
    request, outcome = order.request, order.outcome
    return {
        "orderId": order.id,
        "status": order.status.value,
        **request_view(request),
        "trigger": _trigger(request, order.trigger),
        "dex": outcome.venue,
        "quotes": [_quote(request, quote) for quote in outcome.quotes],
        "leftOut": outcome.left_out,
        "minOut": _text(outcome.min_out),
        "amountOut": _text(outcome.amount_out),
        "executedPrice": _executed(request, outcome),
        "fill": fill_view(outcome),
        "txHash": outcome.tx_hash,
        "errorReason": outcome.error_reason,
        "fate": outcome.fate,
        "finality": outcome.finality,
        "attempts": outcome.failed_tries + (order.status is not OrderStatus.PENDING),
        "resting": order.status is OrderStatus.PENDING and order.awaits_trigger,
        "cancelRequested": order.cancel_requested,
        "seq": order.seq,
        "createdAt": order.created_at_ms,
        "updatedAt": order.updated_at_ms,
    }


def request_view(request: OrderRequest) -> dict[str, Any]:
    """Return the request with the coins as the client named them."""
    decimals = request.token_in.decimals
    return {
        "type": request.type,
        "tokenIn": request.said_in,
        "tokenOut": request.said_out,
        "mintIn": request.token_in.mint,
        "mintOut": request.token_out.mint,
        "amount": str(request.amount),
        "uiAmount": None if decimals is None else decimal_string(request.amount, decimals),
        "slippageBps": request.slippage_bps,
        "trigger": _trigger(request, request.trigger),
        "priority": request.priority,
        "expiresAt": request.expires_at_ms,
        "clientOrderId": request.client_order_id,
        "userId": request.user_id,
        "execution": {"mode": request.mode},
    }


def event_data(request: OrderRequest, status: OrderStatus, outcome: Outcome, *, before: Outcome) -> dict[str, Any]:
    """Return an event's content apart from its status: the parts of the outcome that changed with the event."""
    data: dict[str, Any] = {}
    if outcome.quotes and outcome.quotes != before.quotes:
        data["dex"] = outcome.venue
        data["quotes"] = [_quote(request, quote) for quote in outcome.quotes]
    if outcome.left_out != before.left_out:
        data["leftOut"] = outcome.left_out
    if outcome.tx_hash != before.tx_hash:
        data["txHash"] = outcome.tx_hash
    if outcome.amount_out != before.amount_out:
        data["dex"] = outcome.venue
        data["txHash"] = outcome.tx_hash
        data["amountOut"] = _text(outcome.amount_out)
        data["executedPrice"] = _executed(request, outcome)
        data["fill"] = fill_view(outcome)
    if outcome.error_reason != before.error_reason:
        data["errorReason"] = outcome.error_reason
    if outcome.finality != before.finality:
        data["finality"] = outcome.finality
    if status in TERMINAL:
        data["fate"] = outcome.fate
    return data


def event_frame(event: OrderEvent) -> bytes:
    """Return one update of the order stream as JSON."""
    data = bytes(event.data)[1:-1]
    head = b'{"type":"update","orderId":%b,"seq":%d,"status":"%b","event":%b,"timestamp":%d' % (
        _encode(event.order_id),
        event.seq,
        event.status.value.encode(),
        _encode(event.kind),
        event.at_ms,
    )
    return head + b"," + data + b"}" if data else head + b"}"


def transaction_update(event: OrderEvent) -> bytes:
    """Return the order's new status as the JSON of a `TransactionUpdate`.

    `transaction_id` is the order's id, which the owner knows from the start. The transaction's signature, once known,
    is `txHash` in the update that comes with this message.
    """
    update = {
        "type": "TransactionUpdate",
        "transaction_id": event.order_id,
        "status": event.status.value,
        "user_id": event.user_id,
    }
    return _encode(update)


def notification(event: OrderEvent) -> bytes | None:
    """Return the JSON of a `Notification` for people if the order has ended or its landing was lost.

    Otherwise return None.
    """
    if event.kind not in _NOTICES:
        return None
    title, message = _NOTICES[event.kind]
    notice = {
        "type": "Notification",
        "user_id": event.user_id,
        "title": title,
        "message": message % event.order_id,
        "notification_type": (
            "order_undone" if event.kind is EventKind.LANDING_LOST else f"order_{event.status.value.lower()}"
        ),
    }
    return _encode(notice)


def snapshot_frame(order_id: str, request: OrderRequest, last_seq: int, as_of: OrderEvent | None) -> bytes:
    """Return the stream's first frame: the request, and the order's status as of the event that the client knows.

    Updates after `seq` follow. A client that applies them in turn never sees an older status after a newer one.
    `lastSeq` is the number of the order's newest event.
    """
    frame: dict[str, Any] = {"type": "snapshot", "orderId": order_id, "seq": as_of.seq if as_of else 0}
    if as_of is not None:
        frame["status"] = as_of.status.value
    return _encode({**frame, "lastSeq": last_seq, "order": request_view(request)})


def heartbeat_frame(order_id: str, last_seq: int) -> bytes:
    """Return a heartbeat. It shows a client that the stream is alive, and whether the client missed an update."""
    return _encode({"type": "heartbeat", "orderId": order_id, "lastSeq": last_seq})


def offer_view(
    request: OrderRequest,
    quote: Quote,
    min_out: int,
    quotes: Sequence[Quote],
    left_out: dict[str, str],
    max_in: int | None = None,
) -> dict[str, Any]:
    """Return the answer to a request for a quote: the best quote in detail, and all quotes in short."""
    return {
        "inputMint": request.token_in.mint,
        "outputMint": request.token_out.mint,
        "amountIn": str(quote.amount_in),
        "amountOut": str(quote.amount_out),
        "minOut": str(min_out),
        "maxIn": None if max_in is None else str(max_in),
        "swapMode": "ExactIn" if max_in is None else "ExactOut",
        "slippageBps": request.slippage_bps,
        "venue": quote.venue,
        "feeBps": quote.fee_bps,
        "fees": [{"to": fee.to, "mint": fee.mint, "amount": str(fee.amount)} for fee in quote.fees],
        "impact": None if quote.impact is None else str(quote.impact),
        "price": price(request, quote.amount_in, quote.amount_out),
        "route": [_leg(leg) for leg in quote.route],
        "slot": quote.slot,
        "quotes": [_quote(request, each) for each in quotes],
        "leftOut": left_out,
    }


def _leg(leg: Leg) -> dict[str, str | None]:
    return {
        "pool": leg.pool,
        "inputMint": leg.mint_in,
        "outputMint": leg.mint_out,
        "amountIn": _text(leg.amount_in),
        "amountOut": _text(leg.amount_out),
    }


def fill_view(outcome: Outcome) -> dict[str, str | None] | None:
    """Return the audit of a fill, amounts as text; None while nothing was executed."""
    found = audit(outcome)
    return None if found is None else {name: _text(amount) for name, amount in found._asdict().items()}


def _executed(request: OrderRequest, outcome: Outcome) -> str | None:
    return None if outcome.amount_out is None else price(request, request.amount, outcome.amount_out)


def _quote(request: OrderRequest, quote: Quote) -> dict[str, Any]:
    return {
        "dex": quote.venue,
        "amountOut": str(quote.amount_out),
        "feeBps": quote.fee_bps,
        "price": price(request, quote.amount_in, quote.amount_out),
    }


def _trigger(request: OrderRequest, trigger: Trigger | None) -> dict[str, Any] | None:
    return None if trigger is None else {"when": trigger.when, **rate_view(request, trigger.out, trigger.per)}


def rate_view(request: OrderRequest, out: int, per: int) -> dict[str, Any]:
    """Return a rate in exact base units, and as a price for people if the decimals of both mints are known."""
    return {"out": str(out), "per": str(per), "price": price(request, per, out)}


def _text(amount: int | None) -> str | None:
    return None if amount is None else str(amount)
