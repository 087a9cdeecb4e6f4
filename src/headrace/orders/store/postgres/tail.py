"""Find events that the sinks of a process have not got, in PostgreSQL.

What the process committed itself is delivered at once, unless another process's event of that order comes before; all
else is what became visible since the last look.

Positions do not show what is new: a transaction that began earlier may commit later, and its rows then appear below
the mark. So the mark is a snapshot: new is what this one does not show. A step of an order waits for the commit of the
step before it, so a reader that sees the second sees the first, and in the order of `seq` nothing is missing, late or
double. A long transaction of another client holds nothing up; it only widens the range of the index that is searched.
"""

from collections.abc import Sequence
from typing import Final

from headrace.database.postgres_group_commit import Db
from headrace.model.orders import OrderEvent
from headrace.orders.store import rows
from headrace.orders.store.rows import EVENT_COLUMNS
from headrace.orders.store.unreadable import Unreadable, read_each

_NOW: Final = "select pg_current_snapshot()::text"
# The upper bound holds back rows of a restored copy, whose numbers may lie in this cluster's future.
_NEWS: Final = f"""select now.mark, {EVENT_COLUMNS} from ({_NOW} as mark) now
    left join order_events on txid >= pg_snapshot_xmin($1::text::pg_snapshot)
        and txid < pg_snapshot_xmax(pg_current_snapshot())
        and not pg_visible_in_snapshot(txid, $1::text::pg_snapshot)
    order by order_id, seq"""
_FOLLOWERS: Final = 0x6865_6164  # another application's lock of this number would only cause hints in vain
_JOIN: Final = f"select pg_advisory_lock_shared({_FOLLOWERS})"
_OTHERS: Final = f"""select count(*) > 1 from pg_locks where locktype = 'advisory' and objid = {_FOLLOWERS}
    and database = (select oid from pg_database where datname = current_database())"""

DELIVERED_MAX: Final = 65_536


class Delivered:
    """Remember how far each order's log was delivered: every event is delivered once, in the order of `seq`.

    Orders without an event for long are forgotten: what is new of them comes with the next look.
    """

    def __init__(self) -> None:
        self._seqs: dict[str, int] = {}

    def of(self, order_id: str) -> int:
        """Return the newest `seq` that was delivered of this order; 0: none that is remembered."""
        return self._seqs.get(order_id, 0)

    def next_of(self, committed: Sequence[OrderEvent]) -> list[OrderEvent]:
        """Return the events that follow on what was delivered, and count them as delivered. For the others look."""
        following = []
        for event in committed:
            if event.seq == self.of(event.order_id) + 1:
                self._note(event)
                following.append(event)
        return following

    def beyond(self, found: Sequence[OrderEvent]) -> list[OrderEvent]:
        """Return the events of a look that were not delivered, and count them as delivered."""
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
    """Return the mark beyond which an event is new: what is visible now is not."""
    return str(await db.fetchval(_NOW))


async def join(db: Db) -> None:
    """Be counted as a process that follows, for as long as the connection lasts."""
    await db.execute(_JOIN)


async def others_follow(db: Db) -> bool:
    """Return whether any process but that of this connection follows, and so wants hints."""
    return bool(await db.fetchval(_OTHERS))


async def news(db: Db, mark: str, delivered: Delivered) -> tuple[list[OrderEvent | Unreadable], str]:
    """Return the events beyond `delivered` that became visible since `mark`, each order's by `seq`; and the next mark.

    Outside a transaction.
    """
    found = await db.fetch(_NEWS, mark)
    fresh = [row[1:] for row in found if row["order_id"] is not None and row["seq"] > delivered.of(row["order_id"])]
    return read_each(rows.event, fresh), found[0]["mark"]
