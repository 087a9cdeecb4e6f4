"""Reads of the SQLite store: plain functions that run inside the thread's transaction."""

import sqlite3
from typing import Any, Final, TypeAlias

from headrace.model.orders import U64_MAX, Attempt, Claimed, Order, OrderEvent, OrderStatus
from headrace.orders import verbs
from headrace.orders.store import Depth, FoundFills, SavedPortfolio, rows
from headrace.orders.store.rows import ATTEMPT_COLUMNS, EVENT_COLUMNS, ORDER_COLUMNS
from headrace.orders.store.unreadable import Unreadable, read_each

Db: TypeAlias = sqlite3.Connection

TAIL_MAX: Final = 2000
WHERE: Final = rows.conditions(no_lease="0")
"""Conditions on `orders`, where 0 means no lease."""


def tail(db: Db, mark: int) -> tuple[list[OrderEvent | Unreadable], int]:
    """Return the events after position `mark`, of any process, and the new mark.

    Mark 0, of a file that was just opened, gives no events.
    """
    if mark == 0:
        found = db.execute("select seq from sqlite_sequence where name = 'order_events'").fetchone()
        return [], found[0] if found is not None else -1
    sql = f"select position, {EVENT_COLUMNS} from order_events where position > ? order by position limit {TAIL_MAX}"
    found = db.execute(sql, (mark,)).fetchall()
    return read_each(rows.event, [row[1:] for row in found]), found[-1][0] if found else mark


def get(order_id: str, db: Db) -> Order | None:
    found = db.execute(f"select {ORDER_COLUMNS} from known_orders where id = ?", (order_id,)).fetchone()
    return None if found is None else rows.order(found)


def read(order_id: str, after_seq: int, limit: int, db: Db) -> tuple[Order, list[OrderEvent]] | None:
    order = get(order_id, db)
    return None if order is None else (order, events(order_id, after_seq, limit, db))


def resting(after_id: str, limit: int, db: Db) -> list[Order | Unreadable]:
    sql = f"select {ORDER_COLUMNS} from orders where {WHERE.resting} and id > ? order by id limit ?"
    return read_each(rows.order, db.execute(sql, (after_id, limit)).fetchall())


def unfinal(limit: int, db: Db) -> list[Claimed | Unreadable]:
    return claimed(db, f"where {WHERE.unfinal} order by lease_until limit ?", (limit,), attempted=True)


def page(
    user_id: str | None, status: OrderStatus | None, mint: str | None, cursor: str | None, limit: int, db: Db
) -> tuple[list[Order | Unreadable], str | None]:
    """Return a page's orders, and the cursor for the next page."""
    wanted: list[tuple[str, tuple[Any, ...]]] = []
    if user_id is not None:
        wanted.append(("user_id = ?", (user_id,)))
    if status is not None:
        wanted.append(("status = ?", (status.value,)))
    if mint is not None:
        wanted.append(("(mint_in = ? or mint_out = ?)", (mint, mint)))
    if cursor is not None:
        wanted.append(("id < ?", (cursor,)))
    where = "where " + " and ".join(condition for condition, _ in wanted) if wanted else ""
    values = [value for _, given in wanted for value in given]
    sql = f"select {ORDER_COLUMNS} from orders {where} order by id desc limit ?"
    return rows.page(db.execute(sql, (*values, limit + 1)).fetchall(), limit)


def events(order_id: str, after_seq: int, limit: int, db: Db) -> list[OrderEvent]:
    sql = f"select {EVENT_COLUMNS} from order_events where order_id = ? and seq > ? order by seq limit ?"
    found = [rows.event(row) for row in db.execute(sql, (order_id, after_seq, limit))]
    return found or _events_of_retired(order_id, after_seq, limit, db)


def _events_of_retired(order_id: str, after_seq: int, limit: int, db: Db) -> list[OrderEvent]:
    row = db.execute(f"select {ORDER_COLUMNS} from retired_orders where id = ?", (order_id,)).fetchone()
    return [] if row is None or not limit else verbs.log_of_retired(rows.order(row), after_seq)


def fills(user_id: str, after: int, limit: int, db: Db) -> FoundFills:
    sql = f"{rows.LANDED.format('?', '?')} order by position limit ?"
    found = db.execute(sql, (user_id, after, user_id, after, limit)).fetchall()
    return rows.fills(found, after, limit, U64_MAX)


def portfolio(user_id: str, db: Db) -> SavedPortfolio | None:
    found = db.execute("select position, state from portfolios where user_id = ?", (user_id,)).fetchone()
    return None if found is None else SavedPortfolio(*found)


def depth(db: Db) -> Depth:
    counted = (WHERE.ready, WHERE.resting, WHERE.begun)
    return Depth(*(db.execute(f"select count(*) from orders where {which}").fetchone()[0] for which in counted))


def claimed(db: Db, rest: str, values: tuple[Any, ...], *, attempted: bool) -> list[Claimed | Unreadable]:
    """Return orders, with their last attempts if `attempted`.

    An order whose attempt can't be read becomes Unreadable: without its attempt the order could be executed twice.
    """
    found = db.execute(f"select {ORDER_COLUMNS} from orders {rest}", values).fetchall()
    return read_each(
        lambda row: Claimed(order=rows.order(row), attempt=_last_attempt(db, row[0]) if attempted else None), found
    )


def _last_attempt(db: Db, order_id: str) -> Attempt | None:
    sql = f"select {ATTEMPT_COLUMNS} from attempts where order_id = ? order by number desc limit 1"
    found = db.execute(sql, (order_id,)).fetchone()
    return None if found is None else rows.attempt(found)
