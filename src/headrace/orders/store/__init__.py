"""Where orders live: the row is the truth and the queue. Port, settings and register."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from headrace.model.errors import TransientError
from headrace.model.orders import (
    Attempt,
    AttemptStatus,
    Change,
    Claimed,
    Fill,
    Order,
    OrderEvent,
    OrderRefused,
    OrderStatus,
    Outcome,
)
from headrace.orders.store.unreadable import Unreadable, UnreadableOrders

FOREVER_MS: Final = 2**52
"""A rest, or a moment, that never comes."""

TICK_S: Final = 60.0
"""How often a process that follows writes down how far time is."""

EventSink: TypeAlias = Callable[[Sequence[OrderEvent]], None]
"""Gets committed events on the event loop, each order's in the order of their `seq`; quick, and must not raise."""


class Accepted(NamedTuple):
    """`replayed`: the key was known and `order` is the one that it made, with what was asked then.

    `claimed`: it is new and under the lease that was asked for with it.
    """

    order: Order
    replayed: bool
    claimed: bool = False


class Cancelled(NamedTuple):
    """`requested`: bytes may be on their way, so it is a wish; else the order is CANCELLED."""

    order: Order
    requested: bool


class Page(NamedTuple):
    """Orders, newest first, without the `unreadable` ones among them; `cursor` asks for what follows, None: nothing."""

    orders: list[Order]
    cursor: str | None
    unreadable: int = 0

    @classmethod
    def of(cls, found: Sequence[Order | Unreadable], cursor: str | None, parked: UnreadableOrders) -> "Page":
        orders = parked.sift(found)
        return cls(orders, cursor, len(found) - len(orders))


class FoundFills(NamedTuple):
    """A page of the log's landings, as a database has them; the rest as in `Fills`."""

    found: list[Fill | Unreadable]
    after: int | None
    settled: int

    def read(self, parked: UnreadableOrders) -> "Fills":
        """Those that can be read."""
        fills = parked.sift(self.found)
        return Fills(fills, self.after, self.settled, len(self.found) - len(fills))


class Fills(NamedTuple):
    """What orders moved, in the order of the log, without `unreadable` ones; beyond `after` there may be more.

    Up to position `settled` nothing will ever be different: each is final, and none can appear in between.
    """

    fills: list[Fill]
    after: int | None
    settled: int
    unreadable: int = 0


class Depth(NamedTuple):
    """How many orders are not over: may be claimed, await their trigger, are worked on (or rest between two tries)."""

    ready: int
    resting: int
    begun: int


class SavedPortfolio(NamedTuple):
    """A user's fills added up to `state`, all those up to `position`."""

    position: int
    state: str


class Renewal(NamedTuple):
    """Which of the leases are still held, and in which of them the owner wants the order cancelled."""

    held: frozenset[str]
    cancel_requested: frozenset[str]


class Rate(NamedTuple):
    """How many orders may be begun per minute by all workers together; as many at once after a pause. 0: no limit."""

    per_minute: int


class Room(NamedTuple):
    """How many orders may await their trigger at once: of one user, and of all users together. 0: any number."""

    of_user: int = 0
    in_all: int = 0


ANY_ROOM: Final = Room()


class Store(Protocol):
    """Atomicity: every verb is one transaction, or nothing. Several verbs may share a commit.

    Durability: a verb that returned is on disk. Delivery: sinks hear of an event after its commit, never before; they
    hear every event committed here, and those of other processes soon after, and a hole in `seq` can be filled by
    `events`. Time: leases and rests are measured by one clock for all processes (the database's, or the machine's).
    Fencing: a `Change` is applied only under the epoch of the newest claim.
    Each verb raises TransientError when the store is away: then it may or may not have happened. An order that can't be
    read is `parked`: verbs that give many leave it out, those that name it raise InvariantError.
    """

    unreadable: UnreadableOrders
    on_trouble: Callable[[TransientError], None]
    """Hears, on the event loop, that the database could not be used."""

    async def accept(
        self,
        order: Order,
        keys: Sequence[str],
        fingerprint: str,
        room: Room = ANY_ROOM,
        lease_ms: int = 0,
        refusal: OrderRefused | None = None,
    ) -> Accepted:
        """Store a new order with its first event. `keys` are the user's idempotency keys for it.

        With `lease_ms` a new order that awaits no trigger is also claimed, in the same commit.

        A known key gives the order that it made, whenever that was, and the other keys name it too from then on. Raises
        OrderRefused 422 when one of them is known with another `fingerprint`; `refusal`, if there is one, when none is
        known (what can't be taken now may have been taken when it was first asked); 409 when it awaits its trigger and
        there is no `room` for another of this user, 503 when there is none for anybody's. Processes that accept at the
        same moment may each take that many more than there is room for.
        """

    async def claim(self, limit: int, lease_ms: int, rate: Rate) -> list[Claimed]:
        """Take up to `limit` orders: first those whose lease ended unfinished, then new ones, urgent before old.

        One that awaits its trigger is taken only when it expires, to be ended.

        Each gets epoch + 1 and a lease of `lease_ms`; a new one becomes ROUTING, with its event. New ones are
        taken as `rate` allows, the others always. No two callers ever get the same epoch of an order.
        """

    async def resting(self, after_id: str, limit: int) -> Sequence[Order]:
        """Orders that await their trigger, by id."""

    async def trigger(self, order_id: str, data: Mapping[str, Any]) -> bool:
        """What it waited for is there: log it with `data`, and let it be claimed. False if it does not wait (any more).

        However many see the same price, one of them gets True.
        """

    async def apply(self, order: Order, change: Change) -> Order:
        """One step, with its event; the order as it is now. Raises LeaseLost as the class says."""

    def apply_later(self, order: Order, change: Change) -> Order:
        """`apply` without waiting for the commit: the order as it will be.

        Changes are applied in the order in which they were given; if the lease is lost, the next `apply` tells.
        """

    def note(self, order: Order, attempt: Attempt, leaves: Sequence[AttemptStatus]) -> None:
        """Write down what is known about an attempt, without an event and without waiting; a detail, not a step."""

    async def unfinal(self, limit: int) -> Sequence[Claimed]:
        """CONFIRMED orders whose finality is not written down yet, oldest first, each with its last attempt."""

    async def finalize(self, order: Order, outcome: Outcome, data: Mapping[str, Any]) -> bool:
        """Write down, with an event of this `data`, that the order's landing is final or was lost. False if that was
        done before."""

    async def renew(self, held: Sequence[Order], lease_ms: int) -> Renewal:
        """Prolong the leases of these orders, as far as they are worked on (what rests again is nobody's)."""

    async def release(self, held: Sequence[Order]) -> None:
        """End the leases of these orders now, so that anyone may go on with them."""

    async def cancel(self, order_id: str, user_id: str | None) -> Cancelled | None:
        """Cancel, or note the wish; None for an order that this user (None: anyone) does not have.

        Raises OrderRefused 409 when it is over. Cancelling fences off the worker that had it.
        """

    async def get(self, order_id: str) -> Order | None:
        """The order as committed."""

    async def read(self, order_id: str, after_seq: int, limit: int) -> tuple[Order, Sequence[OrderEvent]] | None:
        """`get` and `events`, of one moment."""

    async def list(
        self, *, user_id: str | None, status: OrderStatus | None, mint: str | None, cursor: str | None, limit: int
    ) -> Page:
        """Orders, newest first, after `cursor`."""

    async def events(self, order_id: str, after_seq: int, limit: int) -> Sequence[OrderEvent]:
        """The order's log after `after_seq`."""

    async def fills(self, user_id: str, after: int, limit: int) -> Fills:
        """What the user's orders moved, in the order in which it was logged, beyond position `after`."""

    async def portfolio(self, user_id: str) -> SavedPortfolio | None:
        """What was saved of this user; None: nothing, so all of `fills` counts."""

    async def save_portfolio(self, user_id: str, saved: SavedPortfolio) -> None:
        """Keep it in place of one that reaches less far."""

    async def retire(self, kept_ms: int, limit: int) -> int:
        """Reduce up to `limit` orders to their outcome; how many it were.

        Taken are those that were over, and their landing final, for longer than `kept_ms` of the time that the database
        has seen. What is left answers `get` and its keys as before; its log is one event, and `list` leaves it out.
        """

    async def depth(self) -> Depth:
        """How many orders are not over."""

    async def tick(self) -> None:
        """Write down how far time is, and how much of the log is settled."""

    async def follow(self) -> None:
        """Run for ever: hear of what other processes commit, and write down how far time is."""

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError when an order could not be taken now. `thorough`: also when there is no room to grow."""

    def attach(self, sink: EventSink) -> Callable[[], None]:
        """Deliver committed events to `sink`; call the result to stop."""

    async def close(self) -> None:
        """Finish what waits and release what it holds; later calls raise TransientError."""


STORES: Final[Mapping[str, str]] = MappingProxyType(
    {"postgres": "headrace.orders.store.postgres:PostgresStore", "sqlite": "headrace.orders.store.sqlite:SqliteStore"}
)
"""Name → "module:Class", imported when first used."""
