"""Reads of the PostgreSQL store."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from headrace.database.postgres_group_commit import Db
from headrace.model.orders import Claimed, Order, OrderEvent, OrderStatus
from headrace.orders import verbs
from headrace.orders.store import Depth, FoundFills, SavedPortfolio, rows
from headrace.orders.store.postgres.sql import OF_ORDER, WHERE, columns
from headrace.orders.store.rows import ATTEMPT_COLUMNS, EVENT_COLUMNS, ORDER_COLUMNS
from headrace.orders.store.unreadable import Unreadable, read_each

_OF_EVENT: Final = ", ".join(f"e.{column}" for column in EVENT_COLUMNS.split(", "))
_ORDER_WIDTH: Final = ORDER_COLUMNS.count(",") + 1

_LAST_ATTEMPTS: Final = f"""select distinct on (order_id) {ATTEMPT_COLUMNS} from attempts
    where order_id = any($1::text[]) order by order_id, number desc"""
_DEPTH: Final = f"""select
    (select count(*) from orders where {WHERE.ready}),
    (select count(*) from orders where {WHERE.resting}),
    (select count(*) from orders where {WHERE.begun})"""
_LOOK: Final = f"""select number, {OF_ORDER}, {_OF_EVENT}
    from unnest($1::text[], $2::bigint[], $3::bigint[]) with ordinality as asked (id, after_seq, most, number)
    left join known_orders o on o.id = asked.id
    left join lateral (select * from order_events where order_id = asked.id and seq > asked.after_seq
        order by seq limit asked.most) e on true
    order by number, e.seq"""


async def unfinal(db: Db, limit: int) -> list[Claimed | Unreadable]:
    sql = f"select {ORDER_COLUMNS} from orders where {WHERE.unfinal} order by lease_until limit $1"
    found = await db.fetch(sql, limit)
    return await with_attempts(db, read_each(rows.order, found), [row[0] for row in found])


async def with_attempts(
    db: Db, orders: Sequence[Order | Unreadable], order_ids: Sequence[str]
) -> list[Claimed | Unreadable]:
    """Return the orders, and with each order in `order_ids` its last attempt.

    An order whose attempt can't be read becomes Unreadable: without its attempt the order could be executed twice.
    """
    found = await db.fetch(_LAST_ATTEMPTS, order_ids) if order_ids else []
    last = dict(zip([row[0] for row in found], read_each(rows.attempt, found), strict=True))
    claimed: list[Claimed | Unreadable] = []
    for order in orders:
        attempt = None if isinstance(order, Unreadable) else last.get(order.id)
        if isinstance(order, Unreadable):
            claimed.append(order)
        elif isinstance(attempt, Unreadable):
            claimed.append(attempt)
        else:
            claimed.append(Claimed(order=order, attempt=attempt))
    return claimed


async def resting(db: Db, after_id: str, limit: int) -> list[Order | Unreadable]:
    sql = f"select {ORDER_COLUMNS} from orders where {WHERE.resting} and id > $1 order by id limit $2"
    return read_each(rows.order, await db.fetch(sql, after_id, limit))


async def fills(db: Db, user_id: str, after: int, limit: int) -> FoundFills:
    """Read a page of fills.

    A fill that becomes visible on this page during the read has a position that is not settled.
    """
    decided = await db.fetchval("select position from settled") or 0
    found = await db.fetch(f"{rows.LANDED.format('$1', '$2')} order by position limit $3", user_id, after, limit)
    return rows.fills(found, after, limit, decided)


async def depth(db: Db) -> Depth:
    found = await db.fetchrow(_DEPTH)
    return Depth(*found)


async def portfolio(db: Db, user_id: str) -> SavedPortfolio | None:
    found = await db.fetchrow("select position, state from portfolios where user_id = $1", user_id)
    return None if found is None else SavedPortfolio(*found)


async def save_portfolio(db: Db, user_id: str, saved: SavedPortfolio) -> None:
    await db.execute(rows.SAVE_PORTFOLIO.format("$1", "$2", "$3"), user_id, *saved)


class Look(NamedTuple):
    """Order that a caller wants to read, with the part of its log after `after_seq`."""

    order_id: str
    after_seq: int
    limit: int


async def look(db: Db, asked: Sequence[Look]) -> list[tuple[Order | None, list[OrderEvent]]]:
    """Answer all requests with one query. Its rows repeat the order beside each of the order's events."""
    different = list(dict.fromkeys(asked))
    orders: dict[Look, Order] = {}
    events: dict[Look, list[OrderEvent]] = {it: [] for it in different}
    for number, *row in await db.fetch(_LOOK, *columns(different)):
        it, of_event = different[number - 1], row[_ORDER_WIDTH:]
        if row[0] is not None and it not in orders:
            orders[it] = rows.order(row)
        if of_event[0] is not None:
            events[it].append(rows.event(of_event))
    for it, order in orders.items():
        if it.limit and not events[it] and it.after_seq < order.seq:
            events[it] = verbs.log_of_retired(order, it.after_seq)
    return [(orders.get(it), events[it]) for it in asked]


async def page(
    db: Db, user_id: str | None, status: OrderStatus | None, mint: str | None, cursor: str | None, limit: int
) -> tuple[list[Order | Unreadable], str | None]:
    """Return a page's orders, and the cursor for the next page."""
    wanted = [("user_id = ${}", user_id), ("status = ${}", status and status.value)]
    wanted += [("${0} in (mint_in, mint_out)", mint), ("id < ${}", cursor)]
    given = [(condition, value) for condition, value in wanted if value is not None]
    where = " and ".join(condition.format(number) for number, (condition, _) in enumerate(given, start=1)) or "true"
    sql = f"select {ORDER_COLUMNS} from orders where {where} order by id desc limit {limit + 1:d}"
    return rows.page(await db.fetch(sql, *[value for _, value in given]), limit)
