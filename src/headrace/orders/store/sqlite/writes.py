"""Writes of the SQLite store: load an order's row, call the verb, write its result.

Plain functions that run inside the thread's transaction.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from headrace.model.errors import InvariantError
from headrace.model.orders import (
    WORKED_ON,
    Attempt,
    Change,
    Claimed,
    LeaseLost,
    Order,
    OrderEvent,
    OrderRefused,
    OrderStatus,
    Outcome,
    Watch,
)
from headrace.orders import machine, verbs
from headrace.orders.store import Accepted, Cancelled, Rate, Renewal, SavedPortfolio, rows
from headrace.orders.store.rows import ATTEMPT_COLUMNS, EVENT_COLUMNS, ORDER_COLUMNS
from headrace.orders.store.sqlite import reads
from headrace.orders.store.sqlite.reads import WHERE, Db
from headrace.orders.store.unreadable import Unreadable, read_each
from headrace.orders.verbs import FOREVER_MS, NO_LEASE, Changed, Room

FAR_MS: Final = 600_000
"""Longer than any lease, and than any pause of a begun order. If an end is further away, the clock was set back."""

_KNOWN: Final = "select fingerprint, order_id from idempotency_keys where user_id = ? and key = ?"
_INSERT: Final = f"""insert into orders ({ORDER_COLUMNS}, user_id, priority, mint_in, mint_out, lease_until)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_UPDATE: Final = """update orders
    set status = ?, seq = ?, epoch = ?, cancel_requested = ?, updated_at = ?, outcome = coalesce(?, outcome),
        lease_until = coalesce(?, lease_until)
    where id = ? and epoch = ? and status = ? and seq = ?"""
_LOG: Final = f"insert into order_events ({EVENT_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?)"
_JOURNAL: Final = f"insert into attempts ({ATTEMPT_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?)"
_LEASE: Final = "update orders set lease_until = ? where id = ?"
_RENEW: Final = f"""update orders set lease_until = ?
    where id = ? and epoch = ? and {rows.status_in(WORKED_ON)} returning cancel_requested"""
_FOUND_OVER: Final = f"""update orders set ended_ms = ?
    where id in (select id from orders where ended_ms is null and {WHERE.over} limit ?)"""
_DUE: Final = "select id from orders where ended_ms <= ? order by ended_ms limit ?"
_LANDED: Final = f"select position, at from order_events where order_id = ? and {rows.IS_LANDED}"
_RETIRE: Final = f"""insert into retired_orders ({rows.RETIRED_COLUMNS})
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_DELETE: Final = (
    "delete from orders where id = ?",
    "delete from order_events where order_id = ?",
    "delete from attempts where order_id = ?",
)


def accept(
    order: Order,
    keys: Sequence[str],
    fingerprint: str,
    room: Room,
    lease_ms: int,
    refusal: OrderRefused | None,
    steps: Sequence[Change],
    now_ms: int,
    db: Db,
) -> Accepted:
    user_id = order.request.user_id
    found = {key: known for key in keys if (known := db.execute(_KNOWN, (user_id, key)).fetchone()) is not None}
    verbs.check_keys((known[0] for known in found.values()), fingerprint)
    for _, order_id in found.values():
        before = _must_get(order_id, db)
        _name(db, before, [key for key in keys if key not in found], fingerprint, order.created_at_ms)
        return Accepted(before, replayed=True)
    if refusal is not None:
        raise refusal
    if order.awaits_trigger and any(room):
        verbs.check_room(_resting(user_id, db), room)
    changed = verbs.accept(order, now_ms, lease_ms, steps)
    claimed = changed.lease_ms is not None
    lease_until = now_ms + lease_ms if claimed else verbs.rests_until_ms(order)
    order = changed.order
    db.execute(_INSERT, (*rows.of_order(order), *rows.of_request(order.request), lease_until))
    _name(db, order, keys, fingerprint, order.created_at_ms)
    _log(db, changed.events)
    for attempt in (step.attempt for step in steps if claimed):
        if attempt is not None:
            db.execute(_JOURNAL, rows.of_attempt(attempt))
    return Accepted(order, replayed=False, claimed=claimed)


def claim(limit: int, lease_ms: int, rate: Rate, now_ms: int, db: Db) -> list[Claimed | Unreadable]:
    """Claim orders. An order that can't be read is skipped for the duration of a lease, as if a worker held it."""
    unreadable: list[Unreadable] = []

    def take(where: str, values: tuple[Any, ...], *, attempted: bool = False) -> list[Claimed]:
        claimed: list[Claimed] = []
        for each in reads.claimed(db, f"where {where}", values, attempted=attempted):
            if isinstance(each, Claimed):
                claimed.append(each)
            else:
                unreadable.append(each)
        return claimed

    leased = f"{WHERE.begun} and lease_until {{}} ? order by lease_until limit ?"
    unfinished = take(leased.format("<="), (now_ms, limit), attempted=True)
    far_ms = now_ms + max(FAR_MS, lease_ms)
    unfinished += take(leased.format(">"), (far_ms, limit - len(unfinished)), attempted=True)
    tokens = _tokens(db, rate, now_ms) if rate.per_minute else float(limit)
    rested = f"{WHERE.resting} and lease_until <= ? order by lease_until limit ?"
    expired = take(rested, (now_ms, limit - len(unfinished)))
    allowed = max(0, min(limit - len(unfinished) - len(expired), int(tokens)))
    ready = take(f"{WHERE.ready} order by priority, id limit ?", (allowed,)) if allowed else []
    if rate.per_minute and ready:
        _spend(db, tokens, len(ready), now_ms)
    claimed: list[Claimed | Unreadable] = []
    for each in (*unfinished, *expired, *ready):
        changed = verbs.claim(each.order, now_ms, lease_ms)
        _must_write(each.order, changed, now_ms, db)
        claimed.append(Claimed(order=changed.order, attempt=each.attempt))
    db.executemany(_LEASE, [(now_ms + lease_ms, it.order_id) for it in unreadable])
    return [*claimed, *unreadable]


def trigger(order_id: str, data: Mapping[str, Any], now_ms: int, db: Db) -> bool:
    order = _stored(order_id, db)
    return order is not None and _write_if(order, verbs.trigger(order, data, now_ms), now_ms, db)


def keep_watch(order_id: str, watch: Watch, now_ms: int, db: Db) -> bool:
    order = _stored(order_id, db)
    return order is not None and _write_if(order, verbs.keep_watch(order, watch), now_ms, db)


def apply(held: Order, change: Change, expected: Changed, now_ms: int, db: Db) -> Order:
    """Write `expected`, the result if the row is as the holder knows it.

    If the row differs, call the verb on the row.
    """
    changed = expected
    if not _write(held, expected, now_ms, db):
        order = _stored(held.id, db)
        verbs.check_held(order, held)
        assert order is not None
        changed = verbs.take(order, held, change, now_ms)
        _must_write(order, changed, now_ms, db)
    attempt = change.attempt
    if attempt is not None and change.learnt is not None:
        _move_attempt(db, verbs.learn(attempt, change.learnt))
    elif attempt is not None:
        db.execute(_JOURNAL, rows.of_attempt(attempt))
    return changed.order


def note(held: Order, attempt: Attempt, db: Db) -> None:
    """Store what was learnt about an attempt, if the holder still has the order."""
    if db.execute("select 1 from orders where id = ? and epoch = ?", (held.id, held.epoch)).fetchone():
        _move_attempt(db, attempt)


def finalize(held: Order, outcome: Outcome, now_ms: int, db: Db) -> bool:
    order = _stored(held.id, db)
    return order is not None and _write_if(order, verbs.finalize(order, outcome, now_ms), now_ms, db)


def renew(held: Sequence[Order], until_ms: int, db: Db) -> Renewal:
    kept: set[str] = set()
    wishes: set[str] = set()
    for order in held:
        found = db.execute(_RENEW, (until_ms, order.id, order.epoch)).fetchone()
        if found is not None:
            kept.add(order.id)
            if found[0]:
                wishes.add(order.id)
    return Renewal(frozenset(kept), frozenset(wishes))


def cancel(order_id: str, user_id: str | None, now_ms: int, db: Db) -> Cancelled | None:
    order = reads.get(order_id, db)
    changed = verbs.cancel(order, user_id, now_ms)
    if order is None or changed is None:
        return None
    if changed.events:
        _must_write(order, changed, now_ms, db)
    return Cancelled(changed.order, requested=changed.order.status is not OrderStatus.CANCELLED)


def save_portfolio(user_id: str, saved: SavedPortfolio, db: Db) -> None:
    db.execute(rows.SAVE_PORTFOLIO.format("?", "?", "?"), (user_id, *saved))


def retire(seen_ms: int, kept_ms: int, limit: int, db: Db) -> tuple[list[Unreadable], int]:
    """Retire orders.

    Return the orders that can't be read, which are left unchanged, and the number of retired orders.
    """
    db.execute(_FOUND_OVER, (seen_ms, limit))
    order_ids = [row[0] for row in db.execute(_DUE, (seen_ms - kept_ms, limit))]
    unreadable: list[Unreadable] = []
    for order_id in order_ids:
        [found] = read_each(rows.order, db.execute(f"select {ORDER_COLUMNS} from orders where id = ?", (order_id,)))
        if isinstance(found, Unreadable):
            db.execute("update orders set ended_ms = ? where id = ?", (FOREVER_MS, order_id))
            unreadable.append(found)
            continue
        position, at_ms = db.execute(_LANDED, (order_id,)).fetchone() or (None, None)
        db.execute(_RETIRE, rows.of_retired(found, position, at_ms))
        for delete in _DELETE:
            db.execute(delete, (order_id,))
    return unreadable, len(order_ids) - len(unreadable)


def _write_if(was: Order, changed: Changed | None, now_ms: int, db: Db) -> bool:
    if changed is not None:
        _must_write(was, changed, now_ms, db)
    return changed is not None


def _must_write(was: Order, changed: Changed, now_ms: int, db: Db) -> None:
    if not _write(was, changed, now_ms, db):
        raise InvariantError(f"order {was.id} changed within its transaction")


def _write(was: Order, changed: Changed, now_ms: int, db: Db) -> bool:
    """Write the result of a verb and its events. Returns False, and writes nothing, if the row differs from `was`."""
    order, events, lease_ms = changed
    values = (
        order.status.value,
        order.seq,
        order.epoch,
        int(order.cancel_requested),
        order.updated_at_ms,
        None if order.outcome is was.outcome else rows.encode(order.outcome),
        None if lease_ms is None else 0 if lease_ms == NO_LEASE else now_ms + lease_ms,
        order.id,
        was.epoch,
        was.status.value,
        was.seq,
    )
    if db.execute(_UPDATE, values).rowcount != 1:
        return False
    _log(db, events)
    return True


def _log(db: Db, events: Sequence[OrderEvent]) -> None:
    for event in events:
        db.execute(_LOG, rows.of_event(event))


def _move_attempt(db: Db, attempt: Attempt) -> None:
    """Store the attempt's new status.

    Raises LeaseLost if the stored status is missing or can't change into the new one.
    """
    leaves = machine.attempt_leaves(attempt.status)
    marks = ", ".join("?" * len(leaves))
    moved = db.execute(
        f"update attempts set status = ? where order_id = ? and number = ? and status in ({marks})",
        (attempt.status.value, attempt.order_id, attempt.number, *[status.value for status in leaves]),
    )
    if moved.rowcount != 1:
        raise LeaseLost(attempt.order_id)


def _name(db: Db, order: Order, keys: Iterable[str], fingerprint: str, at_ms: int) -> None:
    """Record these keys as names of the order."""
    db.executemany(
        "insert into idempotency_keys (user_id, key, fingerprint, order_id, created_at) values (?, ?, ?, ?, ?)",
        [(order.request.user_id, key, fingerprint, order.id, at_ms) for key in keys],
    )


def _resting(user_id: str, db: Db) -> Room:
    count = f"select count(*) from orders where {WHERE.resting}"
    of_user = db.execute(f"{count} and user_id = ?", (user_id,)).fetchone()[0]
    return Room(of_user, db.execute(count).fetchone()[0])


def _stored(order_id: str, db: Db) -> Order | None:
    """Return the order; None if it is retired or unknown."""
    found = db.execute(f"select {ORDER_COLUMNS} from orders where id = ?", (order_id,)).fetchone()
    return None if found is None else rows.order(found)


def _must_get(order_id: str, db: Db) -> Order:
    order = reads.get(order_id, db)
    if order is None:
        raise InvariantError(f"order {order_id} is named by a key but is not there")
    return order


def _tokens(db: Db, rate: Rate, now_ms: int) -> float:
    """Return the permits that are available now, at most `per_minute`, refilled evenly. Takes none."""
    found = db.execute("select tokens, at from rate where name = 'orders'").fetchone()
    tokens, at_ms = found or (float(rate.per_minute), now_ms)
    if at_ms > now_ms:  # the clock was set back: keep the permits, and refill from now on
        _spend(db, float(tokens), 0, now_ms)
    return min(float(rate.per_minute), float(tokens) + max(0, now_ms - at_ms) * rate.per_minute / 60_000)


def _spend(db: Db, tokens: float, count: int, now_ms: int) -> None:
    values = (tokens - count, now_ms)
    db.execute("insert or replace into rate (name, tokens, at) values ('orders', ?, ?)", values)
