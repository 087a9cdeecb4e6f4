"""Between rows and nouns: the columns that both databases have, in one order."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from headrace.model.amounts import BaseUnits
from headrace.model.orders import (
    Attempt,
    AttemptStatus,
    Fill,
    Order,
    OrderEvent,
    OrderRefused,
    OrderRequest,
    OrderStatus,
    Outcome,
    Quote,
)
from headrace.orders.store import FOREVER_MS, FoundFills, Room
from headrace.orders.store.unreadable import Unreadable, read_each
from headrace.protocol.orders import told

ORDER_COLUMNS: Final = "id, request, outcome, status, seq, epoch, cancel_requested, created_at, updated_at"
EVENT_COLUMNS: Final = "order_id, user_id, seq, kind, status, at, data"
ATTEMPT_COLUMNS: Final = "order_id, number, status, signature, raw, last_valid_height, quote, min_out"

RETIRED_COLUMNS: Final = f"{ORDER_COLUMNS}, user_id, landed_position, landed_at"
LANDED: Final = """select o.id as id, e.position as position, e.at as at, o.request as request, o.outcome as outcome
        from order_events e join orders o on o.id = e.order_id
        where e.user_id = {0} and e.kind = 'landed' and e.position > {1}
    union all select id, landed_position, landed_at, request, outcome
        from retired_orders where user_id = {0} and landed_position > {1}"""
"""A user's landings beyond a position, of orders and of what is left of retired ones; with both parameters' names."""

SAVE_PORTFOLIO: Final = """insert into portfolios as p (user_id, position, state) values ({}, {}, {})
    on conflict (user_id) do update set position = excluded.position, state = excluded.state
    where excluded.position > p.position"""

_requests = msgspec.json.Decoder(OrderRequest)
_outcomes = msgspec.json.Decoder(Outcome)
_quotes = msgspec.json.Decoder(Quote)
_encoder = msgspec.json.Encoder()


def encode(value: Any) -> str:
    """JSON text, as stored."""
    return _encoder.encode(value).decode()


def order(row: Any) -> Order:
    """An order of `ORDER_COLUMNS`."""
    return Order(
        id=row[0],
        request=_requests.decode(row[1]),
        outcome=_outcomes.decode(row[2]),
        status=OrderStatus(row[3]),
        seq=row[4],
        epoch=row[5],
        cancel_requested=bool(row[6]),
        created_at_ms=row[7],
        updated_at_ms=row[8],
    )


def of_order(it: Order) -> tuple[Any, ...]:
    """`ORDER_COLUMNS` of an order."""
    return (
        it.id,
        encode(it.request),
        encode(it.outcome),
        it.status.value,
        it.seq,
        it.epoch,
        int(it.cancel_requested),
        it.created_at_ms,
        it.updated_at_ms,
    )


def of_request(it: OrderRequest) -> tuple[Any, ...]:
    """user_id, priority, mint_in, mint_out."""
    return it.user_id, it.priority, it.token_in.mint, it.token_out.mint


def rests_until(it: Order) -> int:
    """`lease_until` of a new order: 0 unless it awaits a trigger."""
    if not it.awaits_trigger:
        return 0
    return FOREVER_MS if it.request.expires_at_ms is None else it.request.expires_at_ms


def begun(it: Order, now_ms: int) -> Order:
    """A PENDING order as its first claim leaves it."""
    return replace(it, status=OrderStatus.ROUTING, seq=it.seq + 1, epoch=it.epoch + 1, updated_at_ms=now_ms)


def taken_in(it: Order, now_ms: int, *, claimed: bool) -> tuple[Order, list[OrderEvent]]:
    """A new order, with its first events; `claimed` at once or not."""
    events = [event_of(it, "accepted", it.created_at_ms, {"resting": True} if it.awaits_trigger else None)]
    if claimed:
        it = begun(it, now_ms)
        events.append(event_of(it, "claimed", now_ms))
    return it, events


def check_keys(known: Iterable[str], fingerprint: str) -> None:
    """Raises OrderRefused where a key is `known` with the fingerprint of another request."""
    if any(other != fingerprint for other in known):
        message = "this key was used for another request"
        raise OrderRefused(HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency_key_reused", message)


def check_room(taken: Room, room: Room) -> None:
    """Raises OrderRefused where the orders that await their trigger leave no room for one more."""
    if room.of_user and taken.of_user >= room.of_user:
        message = f"{taken.of_user} orders of this user wait for their price already"
        raise OrderRefused(HTTPStatus.CONFLICT, "too_many_resting", message)
    if room.in_all and taken.in_all >= room.in_all:
        message = "so many orders wait for their price already that this server takes no more of them for now"
        raise OrderRefused(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_resting_in_all", message, retry_after_ms=60_000)


def event(row: Any) -> OrderEvent:
    """An event of `EVENT_COLUMNS`."""
    return OrderEvent(
        order_id=row[0],
        user_id=row[1],
        seq=row[2],
        kind=row[3],
        status=OrderStatus(row[4]),
        at_ms=row[5],
        data=msgspec.Raw(row[6].encode()),
    )


def of_event(it: OrderEvent) -> tuple[Any, ...]:
    """`EVENT_COLUMNS` of an event."""
    return it.order_id, it.user_id, it.seq, it.kind, it.status.value, it.at_ms, bytes(it.data).decode()


def event_of(it: Order, kind: str, at_ms: int, data: dict[str, Any] | None = None) -> OrderEvent:
    """What happened to bring the order to where it is."""
    return OrderEvent(
        order_id=it.id,
        user_id=it.request.user_id,
        seq=it.seq,
        kind=kind,
        status=it.status,
        at_ms=at_ms,
        data=msgspec.Raw(_encoder.encode(data or {})),
    )


def fill(row: Any) -> Fill:
    """Of a row of `LANDED`."""
    request, outcome = _requests.decode(row[3]), _outcomes.decode(row[4])
    return Fill(
        position=row[1],
        order_id=row[0],
        mint_in=request.token_in.mint,
        mint_out=request.token_out.mint,
        amount_in=request.amount,
        amount_out=outcome.amount_out or BaseUnits(0),
        at_ms=row[2],
        finality=outcome.finality or "confirmed",
    )


def page(found: Sequence[Any], limit: int) -> tuple[list[Order | Unreadable], str | None]:
    """Of `limit` + 1 rows of ORDER_COLUMNS, or fewer: the orders, and the cursor for those that follow."""
    return read_each(order, found[:limit]), found[limit - 1][0] if len(found) > limit else None


def fills(found: Sequence[Any], after: int, limit: int, decided: int) -> FoundFills:
    """Of up to `limit` rows of `LANDED` beyond `after`: the fills, the position to go on from, and how far nothing
    changes any more; at positions up to `decided` no other row will appear."""
    read = read_each(fill, found)
    settled = after
    for row, each in zip(found, read, strict=True):
        if isinstance(each, Unreadable) or each.finality == "confirmed" or row[1] > decided:
            break
        settled = row[1]
    return FoundFills(read, found[-1][1] if len(found) == limit else None, settled)


def of_retired(it: Order, landed_position: int | None, landed_at_ms: int | None) -> tuple[Any, ...]:
    """`RETIRED_COLUMNS` of an order: the quotes are no longer of use."""
    outcome = replace(it.outcome, quotes=(), left_out={})
    return (*of_order(replace(it, outcome=outcome)), it.request.user_id, landed_position, landed_at_ms)


def log_of_retired(it: Order, after_seq: int) -> list[OrderEvent]:
    """All that is left of the log of an order that was retired: one event in place of the newest."""
    if after_seq >= it.seq:
        return []
    data = told(it.request, it.status, it.outcome, before=Outcome())
    return [event_of(it, "retired", it.updated_at_ms, data)]


def attempt(row: Any) -> Attempt:
    """An attempt of `ATTEMPT_COLUMNS`."""
    return Attempt(
        order_id=row[0],
        number=row[1],
        status=AttemptStatus(row[2]),
        signature=row[3],
        raw=bytes(row[4]),
        last_valid_height=row[5],
        quote=_quotes.decode(row[6]),
        min_out=BaseUnits(int(row[7])),
    )


def of_attempt(it: Attempt) -> tuple[Any, ...]:
    """`ATTEMPT_COLUMNS` of an attempt."""
    return (
        it.order_id,
        it.number,
        it.status.value,
        it.signature,
        it.raw,
        it.last_valid_height,
        encode(it.quote),
        str(it.min_out),
    )
