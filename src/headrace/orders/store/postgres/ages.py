"""Ages in PostgreSQL: how far observed time has advanced, how far the log is settled, and orders to retire."""

from typing import Final

from headrace.database import observed
from headrace.database.observed import ObservedTime
from headrace.database.postgres_group_commit import Db
from headrace.orders.store import rows
from headrace.orders.store.postgres.sql import WHERE, columns
from headrace.orders.store.rows import ORDER_COLUMNS
from headrace.orders.store.unreadable import Unreadable, read_each
from headrace.orders.verbs import FOREVER_MS

_SEEN: Final = observed.SEEN.replace("?1", "$1")

# A transaction may draw a position and commit after others that drew higher positions. PostgreSQL numbers each
# transaction before the transaction draws a position. So a position is settled once all transactions have ended that
# had a number when the position was drawn. If the numbers belong to another cluster (a restored copy), settling starts
# again.
_SETTLE: Final = """insert into settled as s (one, position, next, beyond) values (1, 0, $1, null)
    on conflict (one) do update set
      position = case when s.beyond <= pg_snapshot_xmin(pg_current_snapshot())::text::bigint then s.next
        else s.position end,
      next = case when s.beyond <= pg_snapshot_xmin(pg_current_snapshot())::text::bigint
          or s.beyond > pg_snapshot_xmax(pg_current_snapshot())::text::bigint then $1 else s.next end,
      beyond = case when s.beyond is null then pg_snapshot_xmax(pg_current_snapshot())::text::bigint
        when s.beyond <= pg_snapshot_xmin(pg_current_snapshot())::text::bigint
          or s.beyond > pg_snapshot_xmax(pg_current_snapshot())::text::bigint then null else s.beyond end"""
_DRAWN: Final = "select case when is_called then last_value else last_value - 1 end from order_events_position_seq"

_FOUND_OVER: Final = f"""update orders set ended_ms = $1 where id in (select id from orders
    where ended_ms is null and {WHERE.over} limit $2 for update skip locked)"""
_DUE: Final = f"""select {ORDER_COLUMNS} from orders
    where ended_ms <= $1 order by ended_ms limit $2 for update skip locked"""
_LANDED: Final = f"""select order_id, position, at from order_events
    where order_id = any($1::text[]) and {rows.IS_LANDED}"""
_RETIRE: Final = f"""insert into retired_orders ({rows.RETIRED_COLUMNS})
    select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::bigint[], $7::boolean[],
        $8::bigint[], $9::bigint[], $10::text[], $11::bigint[], $12::bigint[])"""
_LEFT_ALONE: Final = "update orders set ended_ms = $2 where id = any($1::text[])"
_GONE: Final = (
    "delete from orders where id = any($1::text[])",
    "delete from order_events where order_id = any($1::text[])",
    "delete from attempts where order_id = any($1::text[])",
)


async def tick(db: Db, time: ObservedTime) -> None:
    """Read how far observed time has advanced. Store this process's observed time, and how far the log is settled."""
    known = await db.fetchval(observed.READ)
    if known is not None:
        time.learn(known)
    drawn = await db.fetchval(_DRAWN)
    time.learn(await db.fetchval(_SEEN, time.now_ms()))
    await db.execute(_SETTLE, drawn)


async def retire(db: Db, seen_ms: int, kept_ms: int, limit: int) -> tuple[list[Unreadable], int]:
    """Retire orders.

    Return the orders that can't be read, which are left unchanged, and the number of retired orders.
    """
    async with db.transaction():
        await db.execute(_FOUND_OVER, seen_ms, limit)
        found = await db.fetch(_DUE, seen_ms - kept_ms, limit)
        read = read_each(rows.order, found)
        unreadable = [each for each in read if isinstance(each, Unreadable)]
        orders = [each for each in read if not isinstance(each, Unreadable)]
        if unreadable:
            await db.execute(_LEFT_ALONE, [each.order_id for each in unreadable], FOREVER_MS)
        if orders:
            order_ids = [order.id for order in orders]
            landed = {order_id: (position, at) for order_id, position, at in await db.fetch(_LANDED, order_ids)}
            table = [list(rows.of_retired(order, *landed.get(order.id, (None, None)))) for order in orders]
            for row, order in zip(table, orders, strict=True):
                row[6] = order.cancel_requested
            await db.execute(_RETIRE, *columns(table))
            for delete in _GONE:
                await db.execute(delete, order_ids)
        return unreadable, len(orders)
