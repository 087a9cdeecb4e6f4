"""Finds events in PostgreSQL that this process's sinks have not received.

An event of this process is delivered right after its commit, unless an event of another process precedes it in the same
order's log. All other events are found by a query for events that became visible since the last query.

Positions do not show which events are new. A transaction that began earlier may commit later, and its rows then appear
below positions already read. So the mark is a snapshot, and an event is new if that snapshot does not show it.

Each change of an order waits until the previous change of the order is committed. A reader that sees the later change
therefore sees the earlier one, and for each order no `seq` is missing, late or duplicated. A long transaction of
another client delays no event; it only widens the range of the index that is searched.
"""

from collections.abc import Sequence
from typing import Final

from headrace.database.postgres_group_commit import Db
from headrace.model.orders import OrderEvent
from headrace.orders.store import rows
from headrace.orders.store.rows import EVENT_COLUMNS
from headrace.orders.store.unreadable import Unreadable, read_each

_NOW: Final = "select pg_current_snapshot()::text"
# The upper bound excludes rows of a restored copy, whose transaction numbers may be ahead of this cluster's.
_NEWS: Final = f"""select now.mark, {EVENT_COLUMNS} from ({_NOW} as mark) now
    left join order_events on txid >= pg_snapshot_xmin($1::text::pg_snapshot)
        and txid < pg_snapshot_xmax(pg_current_snapshot())
        and not pg_visible_in_snapshot(txid, $1::text::pg_snapshot)
    order by order_id, seq"""
_FOLLOWERS: Final = 0x6865_6164  # if another application uses this lock number, the only effect is needless hints
_JOIN: Final = f"select pg_advisory_lock_shared({_FOLLOWERS})"
_OTHERS: Final = f"""select count(*) > 1 from pg_locks where locktype = 'advisory' and objid = {_FOLLOWERS}
    and database = (select oid from pg_database where datname = current_database())"""

DELIVERED_MAX: Final = 65_536


class Delivered:
    """Remember how far each order's log was delivered. Every event is delivered once, in the order of `seq`.

    Above `DELIVERED_MAX`, the order whose last event is oldest is forgotten. Its next events are found by a query.
    """

    def __init__(self) -> None:
        self._seqs: dict[str, int] = {}

    def of(self, order_id: str) -> int:
        """Return the highest `seq` delivered for this order; 0 if none is remembered."""
        return self._seqs.get(order_id, 0)

    def next_of(self, committed: Sequence[OrderEvent]) -> list[OrderEvent]:
        """Return the events that directly follow delivered ones, and record them as delivered.

        All other events must be found by a query.
        """
        following = []
        for event in committed:
            if event.seq == self.of(event.order_id) + 1:
                self._note(event)
                following.append(event)
        return following

    def beyond(self, found: Sequence[OrderEvent]) -> list[OrderEvent]:
        """Return the events of a query that were not delivered yet, and record them as delivered."""
        fresh = [event for event in found if event.seq > self.of(event.order_id)]
        for event in fresh:
            self._note(event)
        return fresh

    def _note(self, event: OrderEvent) -> None:
        self._seqs.pop(event.order_id, None)
        self._seqs[event.order_id] = event.seq
        if len(self._seqs) > DELIVERED_MAX:
            del self._seqs[next(iter(self._seqs))]


async def mark(db: Db) -> str:
    """Return a mark for `news`: events that are visible now will not be reported as new."""
    return str(await db.fetchval(_NOW))


async def join(db: Db) -> None:
    """Register this process as a follower of the log, for as long as the connection lasts."""
    await db.execute(_JOIN)


async def others_follow(db: Db) -> bool:
    """Return whether another process follows the log and so needs hints."""
    return bool(await db.fetchval(_OTHERS))


async def news(db: Db, mark: str, delivered: Delivered) -> tuple[list[OrderEvent | Unreadable], str]:
    """Return the events beyond `delivered` that became visible since `mark`, by order and `seq`, and the next mark.

    Must be called outside a transaction.
    """
    found = await db.fetch(_NEWS, mark)
    fresh = [row[1:] for row in found if row["order_id"] is not None and row["seq"] > delivered.of(row["order_id"])]
    return read_each(rows.event, fresh), found[0]["mark"]
