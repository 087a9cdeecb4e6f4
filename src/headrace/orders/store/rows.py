"""Conversion between rows and objects: the columns that both databases share, and conditions on an order's status."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from headrace.model.amounts import BaseUnits
from headrace.model.orders import (
    TERMINAL,
    WORKED_ON,
    Attempt,
    AttemptStatus,
    EventKind,
    Fill,
    Order,
    OrderEvent,
    OrderRequest,
    OrderStatus,
    Outcome,
    Quote,
)
from headrace.orders import verbs
from headrace.orders.store import FoundFills
from headrace.orders.store.unreadable import Unreadable, read_each

ORDER_COLUMNS: Final = "id, request, outcome, status, seq, epoch, cancel_requested, created_at, updated_at"
EVENT_COLUMNS: Final = "order_id, user_id, seq, kind, status, at, data"
ATTEMPT_COLUMNS: Final = "order_id, number, status, signature, raw, last_valid_height, quote, min_out"

RETIRED_COLUMNS: Final = f"{ORDER_COLUMNS}, user_id, landed_position, landed_at"
IS_LANDED: Final = f"kind = '{EventKind.LANDED}'"
LANDED: Final = f"""select o.id as id, e.position as position, e.at as at, o.request as request, o.outcome as outcome
        from order_events e join orders o on o.id = e.order_id
        where e.user_id = {{0}} and e.{IS_LANDED} and e.position > {{1}}
    union all select id, landed_position, landed_at, request, outcome
        from retired_orders where user_id = {{0}} and landed_position > {{1}}"""
"""A user's landings after a position, of orders and of retired orders. Must be formatted with both parameters."""

SAVE_PORTFOLIO: Final = """insert into portfolios as p (user_id, position, state) values ({}, {}, {})
    on conflict (user_id) do update set position = excluded.position, state = excluded.state
    where excluded.position > p.position"""


class Conditions(NamedTuple):
    """Conditions on rows of `orders`, as SQL. Each is the condition of the index with the same name in the migrations.

    - `ready`: may be claimed.
    - `resting`: await their trigger.
    - `begun`: a worker executes them, or did.
    - `unfinal`: have landed, but the landing is not final.
    - `over`: will never change again.
    """

    ready: str
    resting: str
    begun: str
    unfinal: str
    over: str


def conditions(no_lease: str) -> Conditions:
    """Return the conditions for a database where the SQL `no_lease` means no lease."""
    pending, landed = status_in({OrderStatus.PENDING}), status_in({OrderStatus.CONFIRMED})
    unfinal = f"{landed} and lease_until > {no_lease}"
    return Conditions(
        ready=f"{pending} and lease_until = {no_lease}",
        resting=f"{pending} and lease_until > {no_lease}",
        begun=status_in(WORKED_ON),
        unfinal=unfinal,
        over=f"{status_in(TERMINAL)} and not ({unfinal})",
    )


def status_in(statuses: Iterable[OrderStatus]) -> str:
    """Return the condition in the form that the indexes use, with the statuses in the order of the enum."""
    ordered = [f"'{status}'" for status in OrderStatus if status in set(statuses)]
    return f"status = {ordered[0]}" if len(ordered) == 1 else f"status in ({', '.join(ordered)})"


_requests = msgspec.json.Decoder(OrderRequest)
_outcomes = msgspec.json.Decoder(Outcome)
_quotes = msgspec.json.Decoder(Quote)
_encoder = msgspec.json.Encoder()


def encode(value: Any) -> str:
    """Return the JSON text to store."""
    return _encoder.encode(value).decode()


def order(row: Any) -> Order:
    """Read an order from `ORDER_COLUMNS`."""
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
    """Return the order as `ORDER_COLUMNS`."""
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
    """Return user_id, priority, mint_in, mint_out."""
    return it.user_id, it.priority, it.token_in.mint, it.token_out.mint


def event(row: Any) -> OrderEvent:
    """Read an event from `EVENT_COLUMNS`."""
    return OrderEvent(
        order_id=row[0],
        user_id=row[1],
        seq=row[2],
        kind=EventKind(row[3]),
        status=OrderStatus(row[4]),
        at_ms=row[5],
        data=msgspec.Raw(row[6].encode()),
    )


def of_event(it: OrderEvent) -> tuple[Any, ...]:
    """Return the event as `EVENT_COLUMNS`."""
    return it.order_id, it.user_id, it.seq, it.kind.value, it.status.value, it.at_ms, bytes(it.data).decode()


def fill(row: Any) -> Fill:
    """Read a fill from a row of `LANDED`."""
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
    """Parse up to `limit` + 1 rows of `ORDER_COLUMNS`. Return `limit` orders, and the cursor for the next page."""
    return read_each(order, found[:limit]), found[limit - 1][0] if len(found) > limit else None


def fills(found: Sequence[Any], after: int, limit: int, decided: int) -> FoundFills:
    """Parse up to `limit` rows of `LANDED` after `after`.

    No other row will ever appear at positions up to `decided`.
    """
    read = read_each(fill, found)
    settled = after
    for row, each in zip(found, read, strict=True):
        if isinstance(each, Unreadable) or each.finality == "confirmed" or row[1] > decided:
            break
        settled = row[1]
    return FoundFills(read, found[-1][1] if len(found) == limit else None, settled)


def of_retired(it: Order, landed_position: int | None, landed_at_ms: int | None) -> tuple[Any, ...]:
    """Return the columns that are kept of a retired order, as `RETIRED_COLUMNS`."""
    return (*of_order(verbs.retire(it)), it.request.user_id, landed_position, landed_at_ms)


def attempt(row: Any) -> Attempt:
    """Read an attempt from `ATTEMPT_COLUMNS`."""
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
    """Return the attempt as `ATTEMPT_COLUMNS`."""
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
