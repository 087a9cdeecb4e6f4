"""The order store: one row is both the order's record and its place in the queue. Port and register."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from headrace.adapters import Register
from headrace.model.errors import TransientError
from headrace.model.orders import (
    Attempt,
    AttemptEvent,
    Change,
    Claimed,
    Fill,
    Order,
    OrderEvent,
    OrderRefused,
    OrderStatus,
    Outcome,
    Watch,
)
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store.unreadable import Unreadable, UnreadableOrders
from headrace.orders.verbs import Room

TICK_S: Final = 60.0
"""Pause in seconds between two records of observed time, by a process that follows the log."""

EventSink: TypeAlias = Callable[[Sequence[OrderEvent]], None]
"""Receives committed events on the event loop, each order's in the order of `seq`. Must be quick and must not raise."""


class Accepted(NamedTuple):
    """Result of `accept`.

    - `replayed`: the key was known, and `order` is the order first made under it, with its request.
    - `claimed`: the order is new and under the requested lease.
    """

    order: Order
    replayed: bool
    claimed: bool = False


class Cancelled(NamedTuple):
    """Result of `cancel`.

    If `requested`, the transaction may have been sent, so the request is stored. Otherwise the order is CANCELLED.
    """

    order: Order
    requested: bool


class Page(NamedTuple):
    """Orders, newest first, without the `unreadable` ones. `cursor` selects the next page; None on the last page."""

    orders: list[Order]
    cursor: str | None
    unreadable: int = 0

    @classmethod
    def of(cls, found: Sequence[Order | Unreadable], cursor: str | None, unreadable: UnreadableOrders) -> "Page":
        orders = unreadable.leave_out(found)
        return cls(orders, cursor, len(found) - len(orders))


class Fills(NamedTuple):
    """Fills of orders, in the order of the log, without the `unreadable` ones. `after` is None if there are no more.

    Nothing up to position `settled` will ever change: each fill is final, and no fill can be added in between.
    """

    fills: list[Fill]
    after: int | None
    settled: int
    unreadable: int = 0


class FoundFills(NamedTuple):
    """A page of landings from the log, as the database returns them. The other fields are those of `Fills`."""

    found: list[Fill | Unreadable]
    after: int | None
    settled: int

    def read(self, unreadable: UnreadableOrders) -> Fills:
        """Leave out the fills that can't be read."""
        fills = unreadable.leave_out(self.found)
        return Fills(fills, self.after, self.settled, len(self.found) - len(fills))


class Depth(NamedTuple):
    """Numbers of unfinished orders: `ready` to be claimed, `resting` until their trigger, `begun` by a worker."""

    ready: int
    resting: int
    begun: int


class SavedPortfolio(NamedTuple):
    """A user's fills up to `position`, added up in `state`."""

    position: int
    state: str


class Renewal(NamedTuple):
    """Ids of the orders whose leases are still held, and of those of them with a cancel request."""

    held: frozenset[str]
    cancel_requested: frozenset[str]


class Rate(NamedTuple):
    """Number of orders that all workers together may begin per minute, and at once after a pause. 0: no limit."""

    per_minute: int


ANY_ROOM: Final = Room()


class Store(Protocol):
    """Store of orders.

    Atomicity: every method is one transaction. Several may share a commit.
    Durability: once a method returns, its change is on disk.
    Delivery: sinks get an event after its commit, never before. They get every event that this process commits, and the
    events of other processes soon after. `events` fills a gap in `seq`.
    Time: leases and pauses are measured by one clock for all processes (the database's, or the machine's).
    Fencing: a `Change` is applied only under the epoch of the newest claim.
    Steps: only those that the machine allows. Each method has its pure function in `orders.verbs`.

    Each method raises TransientError if the store is unavailable; the change may or may not have been made. Orders that
    can't be read are in `unreadable`. Methods that return many orders leave such orders out, and methods that name such
    an order raise InvariantError.
    """

    unreadable: UnreadableOrders
    on_trouble: Callable[[TransientError], None]
    """Called on the event loop when the database could not be used."""

    async def accept(
        self,
        order: Order,
        keys: Sequence[str],
        fingerprint: str,
        room: Room = ANY_ROOM,
        lease_ms: int = 0,
        refusal: OrderRefused | None = None,
        steps: Sequence[Change] = (),
    ) -> Accepted:
        """Store a new order with its first event. `keys` are the user's idempotency keys for the order.

        With `lease_ms`, a new order that awaits no trigger is also claimed, in the same commit, and `steps`, the
        worker's first changes to the order, are stored too. An order that is not claimed is stored without `steps`.
        A known key returns the order that was first made under it, however long ago. From then on, the other keys name
        that order too.
        Raises OrderRefused 422 if a key is known with another `fingerprint`. If no key is known, raises `refusal` if it
        is given: an order that can't be taken now may have been taken when it was first requested. For an order that
        awaits its trigger, raises OrderRefused 409 if the user has no `room` for another such order, and 503 if all
        users together have none. Processes that accept at the same moment may each exceed the room by the orders they
        accept in that moment.
        """

    async def claim(self, limit: int, lease_ms: int, rate: Rate) -> list[Claimed]:
        """Claim up to `limit` orders: first those whose lease has ended, then new ones, by priority and age.

        An order that awaits its trigger is claimed only after it has expired, so that it can be ended. Each claimed
        order gets epoch + 1 and a lease of `lease_ms`. A new order becomes ROUTING, with an event. `rate` limits only
        new orders. No two callers ever get the same epoch of an order.
        """

    async def resting(self, after_id: str, limit: int) -> Sequence[Order]:
        """Return orders that await their trigger, sorted by id."""

    async def trigger(self, order_id: str, data: Mapping[str, Any]) -> bool:
        """Log, with `data`, that the market reached the trigger. From now on the order may be claimed.

        Returns False if the order awaits no trigger. If several callers see the same price, exactly one of them gets
        True.
        """

    async def keep_watch(self, order_id: str, watch: Watch) -> bool:
        """Store the newest watch of an order whose type has state, merged with the stored watch as the type defines.

        Writes no event. Returns False if nothing changed, or if the order awaits no trigger.
        """

    async def apply(self, order: Order, change: Change) -> Order:
        """Apply a change and store its event. Return the order after the change.

        Raises LeaseLost if a newer claim exists, and InvariantError for a change that the machine does not allow.
        """

    def apply_later(self, order: Order, change: Change) -> Order:
        """Apply a change without waiting for its commit. Return the order as it will be after the change.

        Changes are applied in the order in which they were given. If the lease is lost, the next `apply` raises
        LeaseLost.
        """

    def note(self, order: Order, attempt: Attempt, event: AttemptEvent) -> Attempt:
        """Store what was learnt about an attempt, without an event and without waiting for the commit.

        Returns the attempt after `event`. An event that can't happen to the attempt changes nothing and stores nothing.
        """

    async def unfinal(self, limit: int) -> Sequence[Claimed]:
        """Return CONFIRMED orders whose finality is not stored yet, oldest first, each with its last attempt."""

    async def finalize(self, order: Order, outcome: Outcome) -> bool:
        """Store, with an event, that the landing is final or was lost; False if its finality was stored before."""

    async def renew(self, held: Sequence[Order], lease_ms: int) -> Renewal:
        """Extend the leases of those orders in `held` that this worker still holds under the same epoch."""

    async def release(self, held: Sequence[Order]) -> None:
        """End the leases of these orders now, so that any worker may continue them."""

    async def cancel(self, order_id: str, user_id: str | None) -> Cancelled | None:
        """Cancel the order, or store the cancel request. None if no order of this user has the id (None: of any user).

        Raises OrderRefused 409 if the order has ended. The worker of a cancelled order can no longer change it.
        """

    async def get(self, order_id: str) -> Order | None:
        """Return the order as committed; None if no order has the id."""

    async def read(self, order_id: str, after_seq: int, limit: int) -> tuple[Order, Sequence[OrderEvent]] | None:
        """Return the order and its events after `after_seq`, read at the same moment."""

    async def list(
        self, *, user_id: str | None, status: OrderStatus | None, mint: str | None, cursor: str | None, limit: int
    ) -> Page:
        """Return orders, newest first, after `cursor`."""

    async def events(self, order_id: str, after_seq: int, limit: int) -> Sequence[OrderEvent]:
        """Return the order's log after `after_seq`."""

    async def fills(self, user_id: str, after: int, limit: int) -> Fills:
        """Return the user's fills after position `after`, in the order of the log."""

    async def portfolio(self, user_id: str) -> SavedPortfolio | None:
        """Return the user's saved portfolio; None if none is saved, so that all of `fills` must be added up."""

    async def save_portfolio(self, user_id: str, saved: SavedPortfolio) -> None:
        """Save the portfolio, unless the saved one already reaches a later position."""

    async def retire(self, kept_ms: int, limit: int) -> int:
        """Reduce up to `limit` orders to their outcome; return how many.

        Chosen are orders that ended longer than `kept_ms` of observed time ago and whose landing, if any, is final. A
        reduced order still answers `get` and its keys as before. Its log is one event, and `list` leaves it out.
        """

    async def depth(self) -> Depth:
        """Count the orders that have not ended."""

    async def tick(self) -> None:
        """Store how far observed time has advanced, and how much of the log is settled."""

    async def follow(self) -> None:
        """Deliver what other processes commit, and call `tick`, until cancelled."""

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError if no order could be taken now.

        If `thorough`, raise it even if only the database can't grow.
        """

    def attach(self, sink: EventSink) -> Callable[[], None]:
        """Deliver committed events to `sink`. Calling the result stops the delivery."""

    async def close(self) -> None:
        """Finish queued changes and release what the store holds; later calls raise TransientError."""


STORES: Final[Register[Store]] = Register(
    "orders",
    {"postgres": "headrace.orders.store.postgres:PostgresStore", "sqlite": "headrace.orders.store.sqlite:SqliteStore"},
    ExecutionSettings,
)
"""All stores. The kind of database that `ExecutionSettings.place` names decides which is used."""
