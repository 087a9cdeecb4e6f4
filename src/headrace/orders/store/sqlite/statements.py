"""The statements of the SQLite store: plain functions that run inside its thread's transaction."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from headrace.model.errors import InvariantError
from headrace.model.orders import (
    TERMINAL,
    U64_MAX,
    Attempt,
    AttemptStatus,
    Change,
    Claimed,
    LeaseLost,
    Order,
    OrderEvent,
    OrderRefused,
    OrderStatus,
    Outcome,
)
from headrace.orders.store import (
    FOREVER_MS,
    Accepted,
    Cancelled,
    Depth,
    FoundFills,
    Rate,
    Renewal,
    Room,
    SavedPortfolio,
    rows,
)
from headrace.orders.store.rows import ATTEMPT_COLUMNS, EVENT_COLUMNS, ORDER_COLUMNS
from headrace.orders.store.unreadable import Unreadable, read_each

TAIL_MAX: Final = 2000
FAR_MS: Final = 600_000
"""No lease, and no rest of what was begun, is as long: one that is was given before the clock was set back."""

_Db = sqlite3.Connection


def tail(db: _Db, mark: int) -> tuple[list[OrderEvent | Unreadable], int]:
    """Events beyond position `mark`, whoever committed them; with mark 0 (just opened) only where the end is."""
    if mark == 0:
        found = db.execute("select seq from sqlite_sequence where name = 'order_events'").fetchone()
        return [], found[0] if found is not None else -1
    sql = f"select position, {EVENT_COLUMNS} from order_events where position > ? order by position limit {TAIL_MAX}"
    found = db.execute(sql, (mark,)).fetchall()
    return read_each(rows.event, [row[1:] for row in found]), found[-1][0] if found else mark


def accept(
    order: Order,
    keys: Sequence[str],
    fingerprint: str,
    room: Room,
    lease_ms: int,
    refusal: OrderRefused | None,
    now_ms: int,
    db: _Db,
) -> Accepted:
    user_id = order.request.user_id
    sql = "select fingerprint, order_id from idempotency_keys where user_id = ? and key = ?"
    found = {key: known for key in keys if (known := db.execute(sql, (user_id, key)).fetchone()) is not None}
    rows.check_keys((known[0] for known in found.values()), fingerprint)
    for _, order_id in found.values():
        before = _must_get(order_id, db)
        _name(db, before, [key for key in keys if key not in found], fingerprint, order.created_at_ms)
        return Accepted(before, replayed=True)
    if refusal is not None:
        raise refusal
    if order.awaits_trigger and any(room):
        sql = "select count(*) from orders where status = 'PENDING' and lease_until > 0"
        of_user = db.execute(f"{sql} and user_id = ?", (user_id,)).fetchone()[0]
        rows.check_room(Room(of_user, db.execute(sql).fetchone()[0]), room)
    claimed = lease_ms > 0 and not order.awaits_trigger
    order, events = rows.taken_in(order, now_ms, claimed=claimed)
    columns = f"{ORDER_COLUMNS}, user_id, priority, mint_in, mint_out, lease_until"
    lease_until = now_ms + lease_ms if claimed else rows.rests_until(order)
    db.execute(
        f"insert into orders ({columns}) values ({_marks(14)})",
        (*rows.of_order(order), *rows.of_request(order.request), lease_until),
    )
    _name(db, order, keys, fingerprint, order.created_at_ms)
    _log(db, events)
    return Accepted(order, replayed=False, claimed=claimed)


def _name(db: _Db, order: Order, keys: Iterable[str], fingerprint: str, at_ms: int) -> None:
    """From now on the order is found under these keys."""
    db.executemany(
        f"insert into idempotency_keys (user_id, key, fingerprint, order_id, created_at) values ({_marks(5)})",
        [(order.request.user_id, key, fingerprint, order.id, at_ms) for key in keys],
    )


def claim(limit: int, lease_ms: int, rate: Rate, now_ms: int, db: _Db) -> list[Claimed | Unreadable]:
    """What can't be read is out of the way for a lease, as if somebody worked on it."""
    parked: list[Unreadable] = []

    def take(rest: str, values: tuple[Any, ...], *, attempted: bool = False) -> list[Claimed]:
        claimed: list[Claimed] = []
        for each in _select_claimed(db, rest, values, attempted=attempted):
            if isinstance(each, Claimed):
                claimed.append(each)
            else:
                parked.append(each)
        return claimed

    leased = "where status in ('ROUTING', 'BUILDING', 'SUBMITTED') and lease_until {} ? order by lease_until limit ?"
    unfinished = take(leased.format("<="), (now_ms, limit), attempted=True)
    far_ms = now_ms + max(FAR_MS, lease_ms)
    unfinished += take(leased.format(">"), (far_ms, limit - len(unfinished)), attempted=True)
    tokens = _tokens(db, rate, now_ms) if rate.per_minute else float(limit)
    rested = "where status = 'PENDING' and lease_until > 0 and lease_until <= ? order by lease_until limit ?"
    expired = take(rested, (now_ms, limit - len(unfinished)))
    allowed = max(0, min(limit - len(unfinished) - len(expired), int(tokens)))
    ready = "where status = 'PENDING' and lease_until = 0 order by priority, id limit ?"
    waiting = take(ready, (allowed,)) if allowed else []
    if rate.per_minute and waiting:
        _spend(db, tokens, len(waiting), now_ms)
    begun = [rows.begun(each.order, now_ms) for each in (*expired, *waiting)]
    claimed = [replace(each.order, epoch=each.order.epoch + 1) for each in unfinished] + begun
    db.executemany(
        "update orders set epoch = ?, lease_until = ?, status = ?, seq = ?, updated_at = ? where id = ?",
        [(o.epoch, now_ms + lease_ms, o.status.value, o.seq, o.updated_at_ms, o.id) for o in claimed],
    )
    _log(db, [rows.event_of(order, "claimed", now_ms) for order in begun])
    db.executemany(
        "update orders set lease_until = ? where id = ?", [(now_ms + lease_ms, it.order_id) for it in parked]
    )
    attempts = {each.order.id: each.attempt for each in unfinished}
    return [*(Claimed(order=order, attempt=attempts.get(order.id)) for order in claimed), *parked]


def resting(after_id: str, limit: int, db: _Db) -> list[Order | Unreadable]:
    sql = "where status = 'PENDING' and lease_until > 0 and id > ? order by id limit ?"
    return read_each(rows.order, db.execute(f"select {ORDER_COLUMNS} from orders {sql}", (after_id, limit)).fetchall())


def trigger(order_id: str, data: Mapping[str, Any], now_ms: int, db: _Db) -> bool:
    found = _select(db, "where id = ? and status = 'PENDING' and lease_until > 0", (order_id,))
    if not found:
        return False
    [before] = found
    outcome = replace(before.outcome, triggered=True)
    order = replace(before, seq=before.seq + 1, outcome=outcome, updated_at_ms=now_ms)
    db.execute(
        "update orders set lease_until = 0, seq = ?, outcome = ?, updated_at = ? where id = ?",
        (order.seq, rows.encode(outcome), now_ms, order_id),
    )
    _log(db, [rows.event_of(order, "triggered", now_ms, dict(data))])
    return True


def apply(order: Order, change: Change, now_ms: int, db: _Db) -> Order:
    found = db.execute(
        f"""update orders
            set status = ?, seq = seq + 1, outcome = ?, updated_at = ?, lease_until = coalesce(?, lease_until)
            where id = ? and epoch = ? and status in ({_marks(len(change.leaves))}) returning seq""",
        (
            change.to.value,
            rows.encode(change.outcome),
            now_ms,
            None if change.rest_ms is None else now_ms + change.rest_ms,
            order.id,
            order.epoch,
            *[status.value for status in change.leaves],
        ),
    ).fetchone()
    if found is None:
        raise LeaseLost(order.id)
    if change.attempt is not None and change.attempt_leaves:
        _move_attempt(db, change.attempt, change.attempt_leaves)
    elif change.attempt is not None:
        columns = f"insert into attempts ({ATTEMPT_COLUMNS}) values ({_marks(8)})"
        db.execute(columns, rows.of_attempt(change.attempt))
    after = changed(order, change, found[0], now_ms)
    _log(db, [rows.event_of(after, change.kind, now_ms, change.data)])
    return after


def note(order: Order, attempt: Attempt, leaves: Sequence[AttemptStatus], db: _Db) -> None:
    if db.execute("select 1 from orders where id = ? and epoch = ?", (order.id, order.epoch)).fetchone():
        _move_attempt(db, attempt, leaves)


def unfinal(limit: int, db: _Db) -> list[Claimed | Unreadable]:
    sql = "where status = 'CONFIRMED' and lease_until > 0 order by lease_until limit ?"
    return _select_claimed(db, sql, (limit,), attempted=True)


def finalize(order: Order, outcome: Outcome, data: Mapping[str, Any], now_ms: int, db: _Db) -> bool:
    found = db.execute(
        """update orders set lease_until = 0, seq = seq + 1, outcome = ?, updated_at = ?
            where id = ? and status = 'CONFIRMED' and lease_until > 0 returning seq""",
        (rows.encode(outcome), now_ms, order.id),
    ).fetchone()
    if found is None:
        return False
    after = replace(order, outcome=outcome, seq=found[0], updated_at_ms=now_ms)
    kind = "finalized" if outcome.finality == "finalized" else "landing_lost"
    _log(db, [rows.event_of(after, kind, now_ms, dict(data))])
    return True


def _move_attempt(db: _Db, attempt: Attempt, leaves: Sequence[AttemptStatus]) -> None:
    moved = db.execute(
        f"update attempts set status = ? where order_id = ? and number = ? and status in ({_marks(len(leaves))})",
        (attempt.status.value, attempt.order_id, attempt.number, *[status.value for status in leaves]),
    )
    if moved.rowcount != 1:
        raise LeaseLost(attempt.order_id)


def renew(held: Sequence[Order], until_ms: int, db: _Db) -> Renewal:
    kept: set[str] = set()
    wishes: set[str] = set()
    for order in held:
        sql = """update orders set lease_until = ?
            where id = ? and epoch = ? and status in ('ROUTING', 'BUILDING', 'SUBMITTED') returning cancel_requested"""
        found = db.execute(sql, (until_ms, order.id, order.epoch)).fetchone()
        if found is not None:
            kept.add(order.id)
            if found[0]:
                wishes.add(order.id)
    return Renewal(frozenset(kept), frozenset(wishes))


def cancel(order_id: str, user_id: str | None, now_ms: int, db: _Db) -> Cancelled | None:
    order = get(order_id, db)
    if order is None or user_id not in (None, order.request.user_id):
        return None
    if order.status in TERMINAL:
        raise OrderRefused(
            409, "order_over", f"the order is already {order.status}", fate=order.outcome.fate or "unknown"
        )
    requested = order.status is OrderStatus.SUBMITTED
    if requested and order.cancel_requested:
        return Cancelled(order, requested=True)
    after = replace(
        order,
        seq=order.seq + 1,
        updated_at_ms=now_ms,
        status=order.status if requested else OrderStatus.CANCELLED,
        epoch=order.epoch if requested else order.epoch + 1,
        cancel_requested=True,
        outcome=order.outcome if requested else replace(order.outcome, fate="not_executed"),
    )
    db.execute(
        """update orders set status = ?, seq = ?, epoch = ?, cancel_requested = 1, updated_at = ?, outcome = ?
           where id = ?""",
        (after.status.value, after.seq, after.epoch, now_ms, rows.encode(after.outcome), order_id),
    )
    kind, data = ("cancel_requested", {"cancelRequested": True}) if requested else ("cancelled", {})
    _log(db, [rows.event_of(after, kind, now_ms, data)])
    return Cancelled(after, requested)


def get(order_id: str, db: _Db) -> Order | None:
    found = db.execute(f"select {ORDER_COLUMNS} from known_orders where id = ?", (order_id,)).fetchone()
    return None if found is None else rows.order(found)


def read(order_id: str, after_seq: int, limit: int, db: _Db) -> tuple[Order, list[OrderEvent]] | None:
    order = get(order_id, db)
    return None if order is None else (order, events(order_id, after_seq, limit, db))


def _must_get(order_id: str, db: _Db) -> Order:
    order = get(order_id, db)
    if order is None:
        raise InvariantError(f"order {order_id} is named by a key but is not there")
    return order


def page(
    user_id: str | None, status: OrderStatus | None, mint: str | None, cursor: str | None, limit: int, db: _Db
) -> tuple[list[Order | Unreadable], str | None]:
    """A page's orders, and the cursor for the next."""
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


def events(order_id: str, after_seq: int, limit: int, db: _Db) -> list[OrderEvent]:
    sql = f"select {EVENT_COLUMNS} from order_events where order_id = ? and seq > ? order by seq limit ?"
    found = [rows.event(row) for row in db.execute(sql, (order_id, after_seq, limit))]
    return found or _events_of_retired(order_id, after_seq, limit, db)


def _events_of_retired(order_id: str, after_seq: int, limit: int, db: _Db) -> list[OrderEvent]:
    row = db.execute(f"select {ORDER_COLUMNS} from retired_orders where id = ?", (order_id,)).fetchone()
    return [] if row is None or not limit else rows.log_of_retired(rows.order(row), after_seq)


def fills(user_id: str, after: int, limit: int, db: _Db) -> FoundFills:
    sql = f"{rows.LANDED.format('?', '?')} order by position limit ?"
    found = db.execute(sql, (user_id, after, user_id, after, limit)).fetchall()
    return rows.fills(found, after, limit, U64_MAX)


def portfolio(user_id: str, db: _Db) -> SavedPortfolio | None:
    found = db.execute("select position, state from portfolios where user_id = ?", (user_id,)).fetchone()
    return None if found is None else SavedPortfolio(*found)


def save_portfolio(user_id: str, saved: SavedPortfolio, db: _Db) -> None:
    db.execute(rows.SAVE_PORTFOLIO.format("?", "?", "?"), (user_id, *saved))


def depth(db: _Db) -> Depth:
    count = "select count(*) from orders where"
    ready, resting, begun = (
        db.execute(f"{count} {which}").fetchone()[0]
        for which in (
            "status = 'PENDING' and lease_until = 0",
            "status = 'PENDING' and lease_until > 0",
            "status in ('ROUTING', 'BUILDING', 'SUBMITTED')",
        )
    )
    return Depth(ready, resting, begun)


def retire(seen_ms: int, kept_ms: int, limit: int, db: _Db) -> tuple[list[Unreadable], int]:
    """Those that can't be read and so are never retired; and how many orders were."""
    db.execute(
        """update orders set ended_ms = ? where id in (select id from orders
            where ended_ms is null and status in ('CONFIRMED', 'FAILED', 'CANCELLED', 'EXPIRED')
                and not (status = 'CONFIRMED' and lease_until > 0) limit ?)""",
        (seen_ms, limit),
    )
    due = "select id from orders where ended_ms <= ? order by ended_ms limit ?"
    order_ids = [row[0] for row in db.execute(due, (seen_ms - kept_ms, limit))]
    parked: list[Unreadable] = []
    for order_id in order_ids:
        [found] = read_each(rows.order, db.execute(f"select {ORDER_COLUMNS} from orders where id = ?", (order_id,)))
        if isinstance(found, Unreadable):
            db.execute("update orders set ended_ms = ? where id = ?", (FOREVER_MS, order_id))
            parked.append(found)
            continue
        landed = "select position, at from order_events where order_id = ? and kind = 'landed'"
        position, at_ms = db.execute(landed, (order_id,)).fetchone() or (None, None)
        db.execute(
            f"insert into retired_orders ({rows.RETIRED_COLUMNS}) values ({_marks(12)})",
            rows.of_retired(found, position, at_ms),
        )
        for table, column in (("orders", "id"), ("order_events", "order_id"), ("attempts", "order_id")):
            db.execute(f"delete from {table} where {column} = ?", (order_id,))
    return parked, len(order_ids) - len(parked)


def _last_attempt(db: _Db, order_id: str) -> Any:
    sql = f"select {ATTEMPT_COLUMNS} from attempts where order_id = ? order by number desc limit 1"
    found = db.execute(sql, (order_id,)).fetchone()
    return None if found is None else rows.attempt(found)


def _tokens(db: _Db, rate: Rate, now_ms: int) -> float:
    """What is in the bucket now: `per_minute` at most, refilled evenly. Nothing is taken."""
    found = db.execute("select tokens, at from rate where name = 'orders'").fetchone()
    tokens, at_ms = found or (float(rate.per_minute), now_ms)
    if at_ms > now_ms:  # the clock was set back: what was filled stays, and from now on it is filled again
        _spend(db, float(tokens), 0, now_ms)
    return min(float(rate.per_minute), float(tokens) + max(0, now_ms - at_ms) * rate.per_minute / 60_000)


def _spend(db: _Db, tokens: float, count: int, now_ms: int) -> None:
    values = (tokens - count, now_ms)
    db.execute("insert or replace into rate (name, tokens, at) values ('orders', ?, ?)", values)


def _select(db: _Db, rest: str, values: Iterable[Any]) -> list[Order]:
    return [rows.order(row) for row in db.execute(f"select {ORDER_COLUMNS} from orders {rest}", tuple(values))]


def _select_claimed(db: _Db, rest: str, values: tuple[Any, ...], *, attempted: bool) -> list[Claimed | Unreadable]:
    """Orders, with their last attempts if `attempted`; none without one that can't be read: it would run twice."""
    found = db.execute(f"select {ORDER_COLUMNS} from orders {rest}", values).fetchall()
    return read_each(
        lambda row: Claimed(order=rows.order(row), attempt=_last_attempt(db, row[0]) if attempted else None), found
    )


def _log(db: _Db, events: Sequence[OrderEvent]) -> None:
    sql = f"insert into order_events ({EVENT_COLUMNS}) values ({_marks(7)})"
    db.executemany(sql, [rows.of_event(event) for event in events])


def changed(order: Order, change: Change, seq: int, now_ms: int) -> Order:
    return replace(order, status=change.to, outcome=change.outcome, seq=seq, updated_at_ms=now_ms)


def _marks(count: int) -> str:
    return ", ".join("?" * count)
