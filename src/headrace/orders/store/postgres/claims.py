"""Claims in PostgreSQL.

One statement claims what is due, skips locked rows, and changes orders as `verbs.claim` does.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from headrace.database.postgres_group_commit import Db
from headrace.model.orders import Claimed, EventKind, Order, OrderEvent, OrderStatus
from headrace.orders import machine, verbs
from headrace.orders.store import Rate, rows
from headrace.orders.store.postgres.reads import with_attempts
from headrace.orders.store.postgres.sql import CHANNEL, IN_MS, OF_ORDER, WHERE
from headrace.orders.store.rows import EVENT_COLUMNS, ORDER_COLUMNS
from headrace.orders.store.unreadable import Unreadable, read_each

LAST_TURN: Final = 2

_BEGUN: Final = machine.after(OrderStatus.PENDING, EventKind.CLAIMED)

# In this sequence: orders that a worker left behind, waiting orders that expired, new orders. The time is the start of
# the statement. With `clock_timestamp()`, which advances during the statement, PostgreSQL would scan the whole index.
_CLAIM: Final = f"""with left_behind as (
    select id, 0 as turn, row_number() over () as place from (select id from orders
        where {WHERE.begun} and lease_until <= statement_timestamp()
        order by lease_until limit $1 for update skip locked) found),
  expired as (
    select id, 1, row_number() over () from (select id from orders
        where {WHERE.resting} and lease_until <= statement_timestamp()
        order by lease_until limit $1 for update skip locked) found),
  ready as (
    select id, 2, row_number() over () from (select id from orders
        where {WHERE.ready}
        order by priority, id limit $2 for update skip locked) found),
  due as (
    select * from (table left_behind union all table expired union all table ready) found
    order by turn, place limit $1),
  begun as (
    update orders o set epoch = o.epoch + 1, lease_until = {IN_MS.format("$3::bigint")},
        status = case turn when 0 then o.status else '{_BEGUN}' end,
        seq = case turn when 0 then o.seq else o.seq + 1 end,
        updated_at = case turn when 0 then o.updated_at else $4 end
    from due where o.id = due.id returning turn, place, user_id, {OF_ORDER}),
  logged as (
    insert into order_events ({EVENT_COLUMNS})
    select id, user_id, seq, '{EventKind.CLAIMED}', status, $4, '{{}}' from begun where turn > 0 returning 1)
  select turn, place, {ORDER_COLUMNS}, case when $5 and exists (select from logged) then pg_notify('{CHANNEL}', '') end
  from begun"""
_TOKENS: Final = """insert into rate as r (name, tokens, at) values ('orders', $1, clock_timestamp())
    on conflict (name) do update set at = clock_timestamp(), tokens = least($1::float8,
        r.tokens + greatest(0, extract(epoch from clock_timestamp() - r.at)) * $1::float8 / 60)
    returning tokens"""
_SPEND: Final = "update rate set tokens = tokens - $1 where name = 'orders'"


class Claim(NamedTuple):
    """A worker's request for orders to work on."""

    limit: int
    lease_ms: int
    rate: Rate


class Taken(NamedTuple):
    """The orders of a claim, and the events of the orders that the claim began."""

    claimed: list[Claimed | Unreadable]
    events: list[OrderEvent]


async def claim(db: Db, claims: Sequence[Claim], now_ms: int, *, hint: bool = True) -> list[Taken]:
    """Return what each claim took.

    A single claim without a rate is one statement, and needs no transaction around it.
    """
    if len(claims) == 1 and not claims[0].rate.per_minute:
        return [await _claim(db, claims[0], now_ms, hint)]
    async with db.transaction():
        return [await _claim(db, each, now_ms, hint) for each in claims]


async def _claim(db: Db, claim: Claim, now_ms: int, hint: bool) -> Taken:
    new = claim.limit
    if claim.rate.per_minute:
        new = min(new, int(await db.fetchval(_TOKENS, float(claim.rate.per_minute))))
    found = await db.fetch(_CLAIM, claim.limit, new, claim.lease_ms, now_ms, hint)
    found.sort(key=lambda row: row[:2])
    turns = [row[0] for row in found]
    orders = read_each(rows.order, [row[2:] for row in found])
    if claim.rate.per_minute and LAST_TURN in turns:
        await db.execute(_SPEND, turns.count(LAST_TURN))
    claimed = await with_attempts(db, orders, [row[2] for row in found if row[0] == 0])
    begun = [order for order, turn in zip(orders, turns, strict=True) if turn > 0 and isinstance(order, Order)]
    return Taken(claimed, [verbs.event_of(order, EventKind.CLAIMED, now_ms, {}) for order in begun])
