"""The statements of the PostgreSQL store: few, each for all jobs of a group commit, and locks in one order."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeAlias

import asyncpg

from headrace.model.errors import HeadraceError, InvariantError
from headrace.model.orders import AttemptStatus, Claimed, Fill, Order, OrderEvent, OrderStatus
from headrace.store import Page, rows
from headrace.store.parked import Unreadable, read_each
from headrace.store.postgres_batch import READY, Batch, Claim, Job, Known
from headrace.store.rows import ATTEMPT_COLUMNS, EVENT_COLUMNS, ORDER_COLUMNS

_READY: Final = datetime.min.replace(tzinfo=UTC)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_NEVER_MS: Final = int(_NEVER.timestamp() * 1000)
CHANNEL: Final = "headrace_orders"
LAST_TURN: Final = 2

Db: TypeAlias = "asyncpg.Connection[Any]"

_OF_ORDER: Final = ", ".join(f"o.{column}" for column in ORDER_COLUMNS.split(", "))
_IN_MS: Final = "clock_timestamp() + {} * interval '1 millisecond'"

_LOCK: Final = f"select {ORDER_COLUMNS} from orders where id = any($1::text[]) order by id for update"
_KNOWN: Final = f"""select k.user_id, k.key, k.fingerprint, {_OF_ORDER}
    from unnest($1::text[], $2::text[]) as asked (user_id, key)
    join idempotency_keys k on k.user_id = asked.user_id and k.key = asked.key
    join orders o on o.id = k.order_id"""
_RESTING: Final = """select user_id, count(*) from orders
    where user_id = any($1::text[]) and status = 'PENDING' and lease_until > '-infinity' group by user_id"""
_ATTEMPTS: Final = "select order_id, number, status from attempts where order_id = any($1::text[])"
_WRITE: Final = f"""with updated as (
    update orders o
    set status = n.status, seq = n.seq, epoch = n.epoch, cancel_requested = n.cancel_requested, outcome = n.outcome,
        updated_at = n.updated_at, lease_until = case when n.lease_ms = {READY} then '-infinity'
            else coalesce({_IN_MS.format("n.lease_ms")}, o.lease_until) end
    from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::integer[], $6::bigint[], $7::boolean[],
        $8::text[], $9::bigint[], $10::bigint[])
        as n (id, was_epoch, was_status, status, seq, epoch, cancel_requested, outcome, updated_at, lease_ms)
    where o.id = n.id and o.epoch = n.was_epoch and o.status = n.was_status
    returning 1),
  accepted as (
    insert into orders ({ORDER_COLUMNS}, user_id, priority, mint_in, mint_out, lease_until)
    select * from unnest($11::text[], $12::text[], $13::text[], $14::text[], $15::integer[], $16::bigint[],
        $17::boolean[], $18::bigint[], $19::bigint[], $20::text[], $21::smallint[], $22::text[], $23::text[],
        $24::timestamptz[])),
  keyed as (
    insert into idempotency_keys (user_id, key, fingerprint, order_id, created_at)
    select * from unnest($25::text[], $26::text[], $27::text[], $28::text[], $29::bigint[])),
  journaled as (
    insert into attempts ({ATTEMPT_COLUMNS})
    select * from unnest($30::text[], $31::integer[], $32::text[], $33::text[], $34::bytea[], $35::bigint[],
        $36::text[], $37::text[])),
  learnt as (
    update attempts a set status = n.status
    from unnest($38::text[], $39::integer[], $40::text[]) as n (order_id, number, status)
    where a.order_id = n.order_id and a.number = n.number),
  logged as (
    insert into order_events ({EVENT_COLUMNS})
    select * from unnest($41::text[], $42::text[], $43::integer[], $44::text[], $45::text[], $46::bigint[],
        $47::text[]) returning 1)
  select (select count(*) from updated), case when exists (select from logged) then pg_notify('{CHANNEL}', '') end"""
_WRITE_WIDTHS: Final = (10, 14, 5, 8, 3, 7)
# In turn: what somebody left behind, what expired while it waited for its trigger, what is new.
_CLAIM: Final = f"""with left_behind as (
    select id, 0 as turn, row_number() over () as place from (select id from orders
        where status in ('ROUTING', 'BUILDING', 'SUBMITTED') and lease_until <= clock_timestamp() and id <> all ($5)
        order by lease_until limit $1 for update skip locked) found),
  expired as (
    select id, 1, row_number() over () from (select id from orders
        where status = 'PENDING' and lease_until > '-infinity' and lease_until <= clock_timestamp() and id <> all ($5)
        order by lease_until limit $1 for update skip locked) found),
  ready as (
    select id, 2, row_number() over () from (select id from orders
        where status = 'PENDING' and lease_until = '-infinity' and id <> all ($5)
        order by priority, id limit $2 for update skip locked) found),
  due as (
    select * from (table left_behind union all table expired union all table ready) found
    order by turn, place limit $1),
  begun as (
    update orders o set epoch = o.epoch + 1, lease_until = {_IN_MS.format("$3::bigint")},
        status = case turn when 0 then o.status else 'ROUTING' end,
        seq = case turn when 0 then o.seq else o.seq + 1 end,
        updated_at = case turn when 0 then o.updated_at else $4 end
    from due where o.id = due.id returning turn, place, user_id, {_OF_ORDER}),
  logged as (
    insert into order_events ({EVENT_COLUMNS})
    select id, user_id, seq, 'claimed', status, $4, '{{}}' from begun where turn > 0 returning 1)
  select turn, place, {ORDER_COLUMNS}, case when exists (select from logged) then pg_notify('{CHANNEL}', '') end
  from begun"""
_LAST_ATTEMPTS: Final = f"""select distinct on (order_id) {ATTEMPT_COLUMNS} from attempts
    where order_id = any($1::text[]) order by order_id, number desc"""
_GET: Final = f"select {ORDER_COLUMNS} from orders where id = any($1::text[])"
_EVENTS: Final = f"""select number, {EVENT_COLUMNS}
    from unnest($1::text[], $2::bigint[], $3::bigint[]) with ordinality as asked (id, after_seq, most, number),
    lateral (select * from order_events where order_id = asked.id and seq > asked.after_seq
        order by seq limit asked.most) found
    order by number, seq"""
_TOKENS: Final = """insert into rate as r (name, tokens, at) values ('orders', $1, clock_timestamp())
    on conflict (name) do update set at = clock_timestamp(), tokens = least($1::float8,
        r.tokens + greatest(0, extract(epoch from clock_timestamp() - r.at)) * $1::float8 / 60)
    returning tokens"""
_SPEND: Final = "update rate set tokens = tokens - $1 where name = 'orders'"


async def transact(db: Db, jobs: Sequence[Job], now_ms: int) -> list[Any]:
    """All jobs in one transaction; each one's result, or the HeadraceError that it alone failed with."""
    if _is_one_statement(jobs):  # which is a transaction by itself
        return await _transact(db, jobs, now_ms)
    async with db.transaction():
        return await _transact(db, jobs, now_ms)


def _is_one_statement(jobs: Sequence[Job]) -> bool:
    """A claim alone, or new orders without keys and triggers."""
    claim = jobs[0].claim
    if claim is not None:
        return len(jobs) == 1 and not claim.rate.per_minute
    return not any(job.order_ids or job.keys or job.claim or job.counts_resting_of for job in jobs)


async def _transact(db: Db, jobs: Sequence[Job], now_ms: int) -> list[Any]:
    batch = await _load(db, jobs)
    results = [_decide(job, batch) for job in jobs]
    for number, job in enumerate(jobs):
        if job.claim is not None:
            results[number] = await _claim(db, job.claim, now_ms, list(batch.was))
    await _write(db, batch)
    return results


async def _load(db: Db, jobs: Sequence[Job]) -> Batch:
    batch = Batch()
    order_ids = sorted({order_id for job in jobs for order_id in job.order_ids})
    if order_ids:
        batch.add(map(rows.order, await db.fetch(_LOCK, order_ids)))
    keys = sorted({key for job in jobs for key in job.keys})
    if keys:
        for user_id, key, fingerprint, *row in await db.fetch(_KNOWN, *_columns(keys, 2)):
            order = rows.order(row)
            batch.known[user_id, key] = Known(fingerprint, order.id)
            batch.now.setdefault(order.id, order)
    users = sorted({job.counts_resting_of for job in jobs if job.counts_resting_of})
    if users:
        batch.resting = dict(map(tuple, await db.fetch(_RESTING, users)))
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


async def _write(db: Db, batch: Batch) -> None:
    changed = batch.changed()
    tables: tuple[Iterable[Sequence[Any]], ...] = (
        [_update(batch, order_id) for order_id in changed],
        [_new_order(batch.now[order_id]) for order_id in batch.new_orders],
        sorted((*key, *known, batch.now[known.order_id].created_at_ms) for key, known in batch.new_keys),
        map(rows.of_attempt, batch.new_attempts.values()),
        [(*which, status.value) for which, status in batch.moved_attempts.items()],
        map(rows.of_event, batch.events),
    )
    given = [column for table, width in zip(tables, _WRITE_WIDTHS, strict=True) for column in _columns(table, width)]
    if any(given):
        done = await db.fetchval(_WRITE, *given)
        if done != len(changed):
            raise InvariantError(f"locked rows changed: {done} of {len(changed)}")


def _update(batch: Batch, order_id: str) -> tuple[Any, ...]:
    was, now = batch.was[order_id], batch.now[order_id]
    return (
        order_id,
        was.epoch,
        was.status.value,
        now.status.value,
        now.seq,
        now.epoch,
        now.cancel_requested,
        rows.encode(now.outcome),
        now.updated_at_ms,
        batch.leases.get(order_id),
    )


def _new_order(order: Order) -> tuple[Any, ...]:
    columns = list(rows.of_order(order))
    columns[6] = order.cancel_requested
    return (*columns, *rows.of_request(order.request), _rests_until(order))


def _rests_until(order: Order) -> datetime:
    """asyncpg writes the ends of this type as `-infinity` and `infinity`; "never" and the far future are one."""
    until_ms = rows.rests_until(order)
    if until_ms == 0:
        return _READY
    return _NEVER if until_ms >= _NEVER_MS else datetime.fromtimestamp(until_ms / 1000, UTC)


async def _claim(db: Db, claim: Claim, now_ms: int, but: list[str]) -> list[Claimed | Unreadable]:
    """What the database finds, `but` for rows that the batch changes itself."""
    new = claim.limit
    if claim.rate.per_minute:
        new = min(new, int(await db.fetchval(_TOKENS, float(claim.rate.per_minute))))
    found = await db.fetch(_CLAIM, claim.limit, new, claim.lease_ms, now_ms, but)
    found.sort(key=lambda row: row[:2])
    turns = [row[0] for row in found]
    orders = read_each(rows.order, [row[2:] for row in found])
    if claim.rate.per_minute and LAST_TURN in turns:
        await db.execute(_SPEND, turns.count(LAST_TURN))
    return await _with_attempts(db, orders, [row[2] for row in found if row[0] == 0])


async def unfinal(db: Db, limit: int) -> list[Claimed | Unreadable]:
    sql = f"""select {ORDER_COLUMNS} from orders
        where status = 'CONFIRMED' and lease_until > '-infinity' order by lease_until limit $1"""
    found = await db.fetch(sql, limit)
    return await _with_attempts(db, read_each(rows.order, found), [row[0] for row in found])


async def _with_attempts(
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


async def fills(db: Db, user_id: str, after: int, limit: int) -> list[Fill]:
    """A row that becomes visible below `after` meanwhile is left out; whoever reads again from 0 finds it."""
    sql = """select e.position, e.at, o.id, o.request, o.outcome from order_events e join orders o on o.id = e.order_id
        where e.user_id = $1 and e.kind = 'landed' and e.position > $2
        and o.outcome::json ->> 'finality' is distinct from 'lost' order by e.position limit $3"""
    return [rows.fill(row) for row in await db.fetch(sql, user_id, after, limit)]


async def purge(db: Db, before_ms: int) -> None:
    await db.execute("delete from idempotency_keys where created_at < $1", before_ms)


class Look(NamedTuple):
    """Asks for an order."""

    order_id: str


class Log(NamedTuple):
    """Asks for a part of an order's log."""

    order_id: str
    after_seq: int
    limit: int


async def read(db: Db, asked: Sequence[Look | Log]) -> list[Order | list[OrderEvent] | None]:
    """The answers, by one query of each kind."""
    order_ids = [it.order_id for it in asked if isinstance(it, Look)]
    logs = list(dict.fromkeys(it for it in asked if isinstance(it, Log)))
    orders: dict[str, Order] = {}
    if order_ids:
        orders = {order.id: order for order in map(rows.order, await db.fetch(_GET, order_ids))}
    events: dict[Log, list[OrderEvent]] = {log: [] for log in logs}
    if logs:
        for number, *row in await db.fetch(_EVENTS, *_columns(logs, 3)):
            events[logs[number - 1]].append(rows.event(row))
    return [events[it] if isinstance(it, Log) else orders.get(it.order_id) for it in asked]


async def page(
    db: Db, user_id: str | None, status: OrderStatus | None, mint: str | None, cursor: str | None, limit: int
) -> Page:
    wanted = [("user_id = ${}", user_id), ("status = ${}", status and status.value)]
    wanted += [("${0} in (mint_in, mint_out)", mint), ("id < ${}", cursor)]
    given = [(condition, value) for condition, value in wanted if value is not None]
    where = " and ".join(condition.format(number) for number, (condition, _) in enumerate(given, start=1)) or "true"
    sql = f"select {ORDER_COLUMNS} from orders where {where} order by id desc limit {limit + 1:d}"
    found = [rows.order(row) for row in await db.fetch(sql, *[value for _, value in given])]
    return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)


def _columns(table: Iterable[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows to columns, as `unnest` takes them."""
    return list(map(list, zip(*table, strict=True))) or [[] for _ in range(width)]
