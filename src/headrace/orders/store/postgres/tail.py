"""Which events the sinks of a process have not heard, in PostgreSQL.

What the process committed itself it tells at once, unless somebody else's event of that order comes before; all else is
what became visible since the last look.

Positions can't tell: a transaction that began earlier may commit later, and its rows then appear below the mark. So
the mark is a snapshot: new is what this one does not show. A step of an order waits for the commit of the step before
it, so whoever sees the second sees the first, and in the order of `seq` nothing is missing, late or double. A long
transaction of somebody else holds nothing up; it only widens the range of the index that is looked through.
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
_FOLLOWERS: Final = 0x6865_6164  # nobody else's lock, it is to be hoped; if it is, hints are given in vain
_JOIN: Final = f"select pg_advisory_lock_shared({_FOLLOWERS})"
_OTHERS: Final = f"""select count(*) > 1 from pg_locks where locktype = 'advisory' and objid = {_FOLLOWERS}
    and database = (select oid from pg_database where datname = current_database())"""

TOLD_MAX: Final = 65_536


class Told:
    """How far each order's log was told, so that every event is told once, and in the order of `seq`.

    Orders of which nothing was heard for long are forgotten: what is new of them comes with the next look.
    """

    def __init__(self) -> None:
        self._seqs: dict[str, int] = {}

    def of(self, order_id: str) -> int:
        """The newest `seq` that was told of this order; 0: none that is remembered."""
        return self._seqs.get(order_id, 0)

    def next_of(self, committed: Sequence[OrderEvent]) -> list[OrderEvent]:
        """Those that follow on what was told, which are told now. For the others look."""
        told = []
        for event in committed:
            if event.seq == self.of(event.order_id) + 1:
                self._note(event)
                told.append(event)
        return told

    def beyond(self, found: Sequence[OrderEvent]) -> list[OrderEvent]:
        """Those of a look that were not told, which are told now."""
        told = [event for event in found if event.seq > self.of(event.order_id)]
        for event in told:
            self._note(event)
        return told

    def _note(self, event: OrderEvent) -> None:
        self._seqs.pop(event.order_id, None)
        self._seqs[event.order_id] = event.seq
        if len(self._seqs) > TOLD_MAX:
            del self._seqs[next(iter(self._seqs))]


async def mark(db: Db) -> str:
    """What is visible now is not new."""
    return str(await db.fetchval(_NOW))


async def join(db: Db) -> None:
    """Be seen as one who follows, for as long as the connection lasts."""
    await db.execute(_JOIN)


async def others_follow(db: Db) -> bool:
    """Whether anybody but who joined on this connection wants to be told when there is news."""
    return bool(await db.fetchval(_OTHERS))


async def news(db: Db, mark: str, told: Told) -> tuple[list[OrderEvent | Unreadable], str]:
    """Events beyond `told` that became visible since `mark`, each order's by `seq`; and the next mark.

    Outside a transaction.
    """
    found = await db.fetch(_NEWS, mark)
    untold = [row[1:] for row in found if row["order_id"] is not None and row["seq"] > told.of(row["order_id"])]
    return read_each(rows.event, untold), found[0]["mark"]
