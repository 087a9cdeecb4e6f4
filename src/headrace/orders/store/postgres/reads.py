"""The statements of the PostgreSQL store: few, each for all jobs of a group commit, and locks in one order."""

import contextlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import asyncpg

from headrace.database.postgres_group_commit import Db
from headrace.model.errors import HeadraceError, InvariantError
from headrace.model.orders import AttemptStatus, Claimed, Order, OrderEvent, OrderStatus
from headrace.orders.store import Depth, FoundFills, SavedPortfolio, rows
from headrace.orders.store.postgres.batch import Batch, Job, Known
from headrace.orders.store.postgres.writes import columns, write
from headrace.orders.store.rows import ATTEMPT_COLUMNS, EVENT_COLUMNS, ORDER_COLUMNS
from headrace.orders.store.unreadable import Unreadable, read_each

# A row is not as it was believed to be, or a key is not new.
_MISTAKEN: Final = (asyncpg.DivisionByZeroError, asyncpg.UniqueViolationError)

OF_ORDER: Final = ", ".join(f"o.{column}" for column in ORDER_COLUMNS.split(", "))
_OF_EVENT: Final = ", ".join(f"e.{column}" for column in EVENT_COLUMNS.split(", "))
_ORDER_WIDTH: Final = ORDER_COLUMNS.count(",") + 1

_LOCK: Final = f"select {ORDER_COLUMNS} from orders where id = any($1::text[]) order by id for update"
_KNOWN: Final = f"""select k.user_id, k.key, k.fingerprint, {OF_ORDER}
    from unnest($1::text[], $2::text[]) as asked (user_id, key)
    join idempotency_keys k on k.user_id = asked.user_id and k.key = asked.key
    join known_orders o on o.id = k.order_id"""
_RESTING: Final = """select case when user_id = any($1::text[]) then user_id else '' end as of_whom, count(*)
    from orders where status = 'PENDING' and lease_until > '-infinity' group by of_whom"""
_ATTEMPTS: Final = "select order_id, number, status from attempts where order_id = any($1::text[])"
_LAST_ATTEMPTS: Final = f"""select distinct on (order_id) {ATTEMPT_COLUMNS} from attempts
    where order_id = any($1::text[]) order by order_id, number desc"""
_DEPTH: Final = """select
    (select count(*) from orders where status = 'PENDING' and lease_until = '-infinity'),
    (select count(*) from orders where status = 'PENDING' and lease_until > '-infinity'),
    (select count(*) from orders where status in ('ROUTING', 'BUILDING', 'SUBMITTED'))"""
_LOOK: Final = f"""select number, {OF_ORDER}, {_OF_EVENT}
    from unnest($1::text[], $2::bigint[], $3::bigint[]) with ordinality as asked (id, after_seq, most, number)
    left join known_orders o on o.id = asked.id
    left join lateral (select * from order_events where order_id = asked.id and seq > asked.after_seq
        order by seq limit asked.most) e on true
    order by number, e.seq"""


async def transact(db: Db, jobs: Sequence[Job], *, hint: bool = True) -> tuple[list[Any], list[OrderEvent]]:
    """All jobs in one transaction; each one's result, or the HeadraceError that it alone failed with; what is logged.

    First by one statement, which is a transaction by itself, on what the jobs believe; if one of them is mistaken,
    again with the rows locked.
    """
    if not any(job.must_look for job in jobs):
        batch = _assumed(jobs)
        results = [_decide(job, batch) for job in jobs]
        if not any(isinstance(result, HeadraceError) for result in results):
            with contextlib.suppress(*_MISTAKEN):
                await write(db, batch, hint=hint)
                return results, batch.events
    async with db.transaction():
        batch = await _load(db, jobs)
        results = [_decide(job, batch) for job in jobs]
        try:
            await write(db, batch, hint=hint)
        except asyncpg.DivisionByZeroError as error:
            raise InvariantError("locked rows changed") from error
        return results, batch.events


def _assumed(jobs: Sequence[Job]) -> Batch:
    batch = Batch(assumes=True)
    for job in jobs:
        if job.held is not None and job.held.id not in batch.was:
            batch.add([job.held])
    return batch


async def _load(db: Db, jobs: Sequence[Job]) -> Batch:
    batch = Batch()
    order_ids = sorted({order_id for job in jobs for order_id in job.order_ids})
    if order_ids:
        batch.add(map(rows.order, await db.fetch(_LOCK, order_ids)))
    keys = sorted({key for job in jobs for key in job.keys})
    if keys:
        for user_id, key, fingerprint, *row in await db.fetch(_KNOWN, *columns(keys)):
            order = rows.order(row)
            batch.known[user_id, key] = Known(fingerprint, order.id)
            batch.now.setdefault(order.id, order)
    users = sorted({job.counts_resting_of for job in jobs if job.counts_resting_of})
    if users:
        batch.resting.update(dict(map(tuple, await db.fetch(_RESTING, users))))
    moving = sorted({order_id for job in jobs if job.moves_attempt for order_id in job.order_ids})
    if moving:
        for order_id, number, status in await db.fetch(_ATTEMPTS, moving):
            batch.attempts[order_id, number] = AttemptStatus(status)
    return batch


def _decide(job: Job, batch: Batch) -> Any:
    try:
        return job.decide(batch)
    except HeadraceError as error:
        return error


async def unfinal(db: Db, limit: int) -> list[Claimed | Unreadable]:
    sql = f"""select {ORDER_COLUMNS} from orders
        where status = 'CONFIRMED' and lease_until > '-infinity' order by lease_until limit $1"""
    found = await db.fetch(sql, limit)
    return await with_attempts(db, read_each(rows.order, found), [row[0] for row in found])


async def with_attempts(
    db: Db, orders: Sequence[Order | Unreadable], order_ids: Sequence[str]
) -> list[Claimed | Unreadable]:
    """The orders; those of `order_ids` with their last attempts. One whose attempt can't be read is not shown without
    it: it would run twice."""
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
    sql = f"""select {ORDER_COLUMNS} from orders
        where status = 'PENDING' and lease_until > '-infinity' and id > $1 order by id limit $2"""
    return read_each(rows.order, await db.fetch(sql, after_id, limit))


async def fills(db: Db, user_id: str, after: int, limit: int) -> FoundFills:
    """A row that becomes visible below what was read meanwhile is left out; it is above what is settled."""
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
    """Asks for an order and a part of its log."""

    order_id: str
    after_seq: int
    limit: int


async def look(db: Db, asked: Sequence[Look]) -> list[tuple[Order | None, list[OrderEvent]]]:
    """The answers, by one query; its rows repeat the order with each event."""
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
            events[it] = rows.log_of_retired(order, it.after_seq)
    return [(orders.get(it), events[it]) for it in asked]


async def page(
    db: Db, user_id: str | None, status: OrderStatus | None, mint: str | None, cursor: str | None, limit: int
) -> tuple[list[Order | Unreadable], str | None]:
    """A page's orders, and the cursor for the next."""
    wanted = [("user_id = ${}", user_id), ("status = ${}", status and status.value)]
    wanted += [("${0} in (mint_in, mint_out)", mint), ("id < ${}", cursor)]
    given = [(condition, value) for condition, value in wanted if value is not None]
    where = " and ".join(condition.format(number) for number, (condition, _) in enumerate(given, start=1)) or "true"
    sql = f"select {ORDER_COLUMNS} from orders where {where} order by id desc limit {limit + 1:d}"
    return rows.page(await db.fetch(sql, *[value for _, value in given]), limit)
