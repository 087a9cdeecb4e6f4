"""A group commit in PostgreSQL: a few statements for all jobs. Locks are always taken in the same sequence."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from types import MappingProxyType
from typing import Any, Final

import asyncpg

from headrace.database.postgres_group_commit import Db
from headrace.model.errors import HeadraceError, InvariantError
from headrace.model.orders import AttemptStatus, Order, OrderEvent
from headrace.orders.store import rows
from headrace.orders.store.postgres.batch import Batch, Job, Known
from headrace.orders.store.postgres.sql import CHANNEL, IN_MS, OF_ORDER, WHERE, columns
from headrace.orders.store.rows import ATTEMPT_COLUMNS, EVENT_COLUMNS, ORDER_COLUMNS
from headrace.orders.verbs import NO_LEASE, rests_until_ms

_LOCK: Final = f"select {ORDER_COLUMNS} from orders where id = any($1::text[]) order by id for update"
_KNOWN: Final = f"""select k.user_id, k.key, k.fingerprint, {OF_ORDER}
    from unnest($1::text[], $2::text[]) as asked (user_id, key)
    join idempotency_keys k on k.user_id = asked.user_id and k.key = asked.key
    join known_orders o on o.id = k.order_id"""
_RESTING: Final = f"""select case when user_id = any($1::text[]) then user_id else '' end as of_whom, count(*)
    from orders where {WHERE.resting} group by of_whom"""
_ATTEMPTS: Final = "select order_id, number, status from attempts where order_id = any($1::text[])"

# Raised if a row is not as assumed, or if a key is not new.
_MISTAKEN: Final = (asyncpg.DivisionByZeroError, asyncpg.UniqueViolationError)

_READY: Final = datetime.min.replace(tzinfo=UTC)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_NEVER_MS: Final = int(_NEVER.timestamp() * 1000)
_PLACE: Final = re.compile(r"\$(\d+)")

_PARTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "updated": f"""update orders o
            set status = n.status, seq = n.seq, epoch = n.epoch, cancel_requested = n.cancel_requested,
                outcome = n.outcome, updated_at = n.updated_at,
                lease_until = case when n.lease_ms = {NO_LEASE} then '-infinity'
                    else coalesce({IN_MS.format("n.lease_ms")}, o.lease_until) end
            from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::integer[], $6::bigint[], $7::boolean[],
                $8::text[], $9::bigint[], $10::bigint[], $11::integer[]) as n (id, was_epoch, was_status, status, seq,
                epoch, cancel_requested, outcome, updated_at, lease_ms, was_seq)
            where o.id = n.id and o.epoch = n.was_epoch and o.status = n.was_status and o.seq = n.was_seq
            returning 1""",
        "accepted": f"""insert into orders ({ORDER_COLUMNS}, user_id, priority, mint_in, mint_out, lease_until)
            select {ORDER_COLUMNS}, user_id, priority, mint_in, mint_out,
                coalesce({IN_MS.format("n.lease_ms")}, n.rests_until)
            from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::bigint[], $7::boolean[],
                $8::bigint[], $9::bigint[], $10::text[], $11::smallint[], $12::text[], $13::text[], $14::timestamptz[],
                $15::bigint[]) as n ({ORDER_COLUMNS}, user_id, priority, mint_in, mint_out, rests_until, lease_ms)""",
        "keyed": """insert into idempotency_keys (user_id, key, fingerprint, order_id, created_at)
            select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])""",
        "journaled": f"""insert into attempts ({ATTEMPT_COLUMNS})
            select * from unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::bytea[], $6::bigint[],
                $7::text[], $8::text[])""",
        "learnt": """update attempts a set status = n.status
            from unnest($1::text[], $2::integer[], $3::text[], $4::text[]) as n (order_id, number, leaves, status)
            where a.order_id = n.order_id and a.number = n.number and a.status = any(string_to_array(n.leaves, ' '))
            returning 1""",
        "logged": f"""insert into order_events ({EVENT_COLUMNS})
            select * from unnest($1::text[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::bigint[],
                $7::text[])""",
    }
)
_CHECKED: Final = ("updated", "learnt")


async def transact(db: Db, jobs: Sequence[Job], *, hint: bool = True) -> tuple[list[Any], list[OrderEvent]]:
    """Execute all jobs in one transaction. Return each job's result or HeadraceError, and the events of all jobs.

    The first try is a single statement on the rows that the jobs assume. If an assumption is wrong, the jobs are
    decided again with the rows locked.
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


async def write(db: Db, batch: Batch, *, hint: bool = True) -> None:
    """Write all changes of the batch in one statement. With `hint`, also notify other processes.

    Raises DivisionByZeroError, and writes nothing, if a row is not as the batch assumes.
    """
    tables: dict[str, Sequence[Sequence[Any]]] = {
        "updated": [_update(batch, order_id) for order_id in batch.changed()],
        "accepted": [_new_order(batch.now[order_id], batch.leases.get(order_id)) for order_id in batch.new_orders],
        "keyed": sorted((*key, *known, at_ms) for key, known, at_ms in batch.new_keys),
        "journaled": [rows.of_attempt(attempt) for attempt in batch.new_attempts.values()],
        "learnt": [(*which, " ".join(leaves), to.value) for which, (leaves, to) in batch.moved_attempts.items()],
        "logged": [rows.of_event(event) for event in batch.events],
    }
    names = tuple(name for name, table in tables.items() if table)
    if names:
        await db.fetchrow(_statement(names, hint=hint), *[column for name in names for column in columns(tables[name])])


@cache
def _statement(names: tuple[str, ...], *, hint: bool) -> str:
    """Join the named parts into one statement and renumber their parameters, which start at 1 in each part.

    The statement divides by zero if a row that it should update was not as assumed.
    """
    parts, results, before = [], ["1"], 0
    for name in names:
        parts.append(f"{name} as ({_PLACE.sub(partial(_moved, before), _PARTS[name])})")
        if name in _CHECKED:
            results.append(f"1 / ((select count(*) from {name}) = cardinality(${before + 1}))::integer")
        elif name == "logged" and hint:
            results.append(f"pg_notify('{CHANNEL}', '')")
        before += len(_PLACE.findall(_PARTS[name]))
    return f"with {', '.join(parts)} select {', '.join(results)}"


def _moved(by: int, place: re.Match[str]) -> str:
    return f"${int(place[1]) + by}"


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
        was.seq,
    )


def _new_order(order: Order, lease_ms: int | None) -> tuple[Any, ...]:
    columns = list(rows.of_order(order))
    columns[6] = order.cancel_requested
    return (*columns, *rows.of_request(order.request), _rests_until(order), lease_ms)


def _rests_until(order: Order) -> datetime:
    """Return when the order's wait ends. asyncpg writes the minimum and maximum datetime as -infinity and infinity."""
    until_ms = rests_until_ms(order)
    if until_ms == 0:
        return _READY
    return _NEVER if until_ms >= _NEVER_MS else datetime.fromtimestamp(until_ms / 1000, UTC)
