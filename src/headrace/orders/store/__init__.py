"""Where orders live: the row is the truth and the queue. Port and register."""

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
"""How often a process that follows writes down how far observed time is."""

EventSink: TypeAlias = Callable[[Sequence[OrderEvent]], None]
"""Takes committed events on the event loop, each order's in the order of `seq`; quick, and must not raise."""


class Accepted(NamedTuple):
    """`replayed`: the key was known, and `order` is the one that the key made, with the request of that time.

    `claimed`: the order is new, and under the lease that was asked for.
    """

    order: Order
    replayed: bool
    claimed: bool = False


class Cancelled(NamedTuple):
    """`requested`: bytes may be on their way, so the wish is stored; else the order is CANCELLED."""

    order: Order
    requested: bool


class Page(NamedTuple):
    """Orders, newest first, without the `unreadable` ones; `cursor` asks for the next page; None: no more."""

    orders: list[Order]
    cursor: str | None
    unreadable: int = 0

    @classmethod
    def of(cls, found: Sequence[Order | Unreadable], cursor: str | None, unreadable: UnreadableOrders) -> "Page":
        orders = unreadable.leave_out(found)
        return cls(orders, cursor, len(found) - len(orders))


class Fills(NamedTuple):
    """What orders moved, in the order of the log, without `unreadable` ones; beyond `after` there may be more.

    Up to position `settled` nothing will ever be different: each fill is final, and none can appear in between.
    """

    fills: list[Fill]
    after: int | None
    settled: int
    unreadable: int = 0


class FoundFills(NamedTuple):
    """A page of the log's landings as a database has them; the rest as in `Fills`."""

    found: list[Fill | Unreadable]
    after: int | None
    settled: int

    def read(self, unreadable: UnreadableOrders) -> Fills:
        """Leave out the fills that can't be read."""
        fills = unreadable.leave_out(self.found)
        return Fills(fills, self.after, self.settled, len(self.found) - len(fills))


class Depth(NamedTuple):
    """How many orders are not over: `ready` to be claimed, `resting` until their trigger, `begun`."""

    ready: int
    resting: int
    begun: int


class SavedPortfolio(NamedTuple):
    """A user's fills up to `position`, added up to `state`."""

    position: int
    state: str


class Renewal(NamedTuple):
    """The ids of the orders whose leases are still held, and of those among them that the owner wants cancelled."""

    held: frozenset[str]
    cancel_requested: frozenset[str]


class Rate(NamedTuple):
    """How many orders all workers together may begin per minute; as many at once after a pause. 0: no limit."""

    per_minute: int


ANY_ROOM: Final = Room()


class Store(Protocol):
    """Atomicity: every verb is one transaction, or nothing. Several verbs may share a commit.

    Durability: a verb that returned is on disk. Delivery: sinks get an event after the commit, never before; they get
    every event committed here, and those of other processes soon after; `events` fills a hole in `seq`. Time: leases
    and rests are measured by one clock for all processes (the database's, or the machine's). Fencing: a `Change` is
    applied only under the epoch of the newest claim. Steps: only the machine's; each verb is the one of `orders.verbs`.
    Each verb raises TransientError when the store is away: then the verb may or may not have happened. An order that
    can't be read is in `unreadable`: verbs that give many leave it out, those that name it raise InvariantError.
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
    ) -> Accepted:
        """Store a new order with its first event. `keys` are the user's idempotency keys for the order.

        With `lease_ms` a new order that awaits no trigger is also claimed, in the same commit.

        A known key gives the order that was made under the key, at any time before; the other keys name that order too
        from then on. Raises OrderRefused: 422 when a key is known with another `fingerprint`; `refusal`, if given, when
        no key is known (an order that can't be taken now may have been taken when first asked); 409 when the order
        awaits its trigger and there is no `room` for another of this user, 503 when there is none for any user's.
        Processes that accept at the same moment may each take that many more than there is room for.
        """

    async def claim(self, limit: int, lease_ms: int, rate: Rate) -> list[Claimed]:
        """Take up to `limit` orders: first those whose lease ended unfinished, then new ones, urgent before old.

        An order that awaits its trigger is taken only once it has expired, to be ended.

        Each gets epoch + 1 and a lease of `lease_ms`; a new one becomes ROUTING, with an event. New ones are
        taken as `rate` allows, the others always. No two callers ever get the same epoch of an order.
        """

    async def resting(self, after_id: str, limit: int) -> Sequence[Order]:
        """Return orders that await their trigger, by id."""

    async def trigger(self, order_id: str, data: Mapping[str, Any]) -> bool:
        """Log, with `data`, that the market is there, and let the order be claimed; False if the order does not wait.

        However many callers see the same price, one of them gets True.
        """

    async def keep_watch(self, order_id: str, watch: Watch) -> bool:
        """Store the newest watch of an order of a type with state, joined with the stored one as the type says.

        No event: a detail, not a step. False if nothing changed, or the order does not wait.
        """

    async def apply(self, order: Order, change: Change) -> Order:
        """Take one step, with an event; return the order after the step.

        Raises LeaseLost as the class says, and InvariantError for a step that the machine does not know.
        """

    def apply_later(self, order: Order, change: Change) -> Order:
        """`apply` without waiting for the commit; return the order as the step will leave it.

        Changes are applied in the order in which they were given; if the lease is lost, the next `apply` raises.
        """

    def note(self, order: Order, attempt: Attempt, event: AttemptEvent) -> Attempt:
        """Store what is known about an attempt, without an event and without waiting: a detail, not a step.

        Return the attempt after `event`; unchanged, and nothing is stored, for an event that can't happen to it.
        """

    async def unfinal(self, limit: int) -> Sequence[Claimed]:
        """Return CONFIRMED orders whose finality is not stored yet, oldest first, each with the last attempt."""

    async def finalize(self, order: Order, outcome: Outcome) -> bool:
        """Store, with an event, that the landing is final or was lost; False if that was done before."""

    async def renew(self, held: Sequence[Order], lease_ms: int) -> Renewal:
        """Prolong the leases of those of these orders that are worked on under the same epoch."""

    async def release(self, held: Sequence[Order]) -> None:
        """End the leases of these orders now, so that any worker may go on."""

    async def cancel(self, order_id: str, user_id: str | None) -> Cancelled | None:
        """Cancel, or store the wish; None for an order that this user (None: any user) does not have.

        Raises OrderRefused 409 for an order that is over. Cancelling fences off the worker.
        """

    async def get(self, order_id: str) -> Order | None:
        """Return the order as committed."""

    async def read(self, order_id: str, after_seq: int, limit: int) -> tuple[Order, Sequence[OrderEvent]] | None:
        """Return the results of `get` and `events` as of one moment."""

    async def list(
        self, *, user_id: str | None, status: OrderStatus | None, mint: str | None, cursor: str | None, limit: int
    ) -> Page:
        """Return orders, newest first, after `cursor`."""

    async def events(self, order_id: str, after_seq: int, limit: int) -> Sequence[OrderEvent]:
        """Return the order's log after `after_seq`."""

    async def fills(self, user_id: str, after: int, limit: int) -> Fills:
        """Return what the user's orders moved beyond position `after`, in the order of the log."""

    async def portfolio(self, user_id: str) -> SavedPortfolio | None:
        """Return what was saved of this user; None: nothing, so all of `fills` counts."""

    async def save_portfolio(self, user_id: str, saved: SavedPortfolio) -> None:
        """Keep the portfolio in place of one that reaches less far."""

    async def retire(self, kept_ms: int, limit: int) -> int:
        """Reduce up to `limit` orders to their outcome; return how many.

        Taken are orders that were over, and their landing final, for longer than `kept_ms` of observed time. What is
        left answers `get` and the keys as before; the log is one event, and `list` leaves the order out.
        """

    async def depth(self) -> Depth:
        """Count the orders that are not over."""

    async def tick(self) -> None:
        """Write down how far observed time is, and how much of the log is settled."""

    async def follow(self) -> None:
        """Run for ever: deliver what other processes commit, and tick."""

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError when no order could be taken now. `thorough`: also when there is no room to grow."""

    def attach(self, sink: EventSink) -> Callable[[], None]:
        """Deliver committed events to `sink`; call the result to stop."""

    async def close(self) -> None:
        """Finish what waits and release what the store holds; later calls raise TransientError."""


STORES: Final[Register[Store]] = Register(
    "orders",
    {"postgres": "headrace.orders.store.postgres:PostgresStore", "sqlite": "headrace.orders.store.sqlite:SqliteStore"},
    ExecutionSettings,
)
"""All stores. The kind of database that `ExecutionSettings.place` names is the one that is used."""
