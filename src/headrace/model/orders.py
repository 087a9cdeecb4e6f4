"""Nouns of the order flow: requests, outcomes, attempts, and the events of an order's log. Money is in base units."""

from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias

import msgspec

from headrace.model.amounts import BaseUnits, Bps
from headrace.model.errors import HeadraceError, RequestError
from headrace.model.transactions import Signed

U64_MAX: Final = 2**64 - 1
BPS_WHOLE: Final = 10_000

Fate: TypeAlias = Literal["not_executed", "executed", "unknown"]
"""Effect on the chain of an order that ended, or of a request that failed."""

Finality: TypeAlias = Literal["confirmed", "finalized", "lost"]
"""Finality of the landing of an executed order.

A `confirmed` landing may still vanish with its fork. A `finalized` landing can't. A `lost` landing has vanished.
"""

Mode: TypeAlias = Literal["mock", "paper", "live"]


class OrderStatus(StrEnum):
    """Status of an order, as its owner sees it. The last four are terminal."""

    PENDING = "PENDING"
    ROUTING = "ROUTING"
    BUILDING = "BUILDING"
    SUBMITTED = "SUBMITTED"
    CONFIRMED = "CONFIRMED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


TERMINAL: Final = frozenset(
    {OrderStatus.CONFIRMED, OrderStatus.FAILED, OrderStatus.CANCELLED, OrderStatus.EXPIRED},
)
WORKED_ON: Final = frozenset({OrderStatus.ROUTING, OrderStatus.BUILDING, OrderStatus.SUBMITTED})
"""Statuses in which a worker holds the order under a lease, or in which the order pauses before its next try."""


class EventKind(StrEnum):
    """Kinds of events of an order. Each event is one line of the order's log."""

    ACCEPTED = "accepted"
    TRIGGERED = "triggered"
    CLAIMED = "claimed"
    QUOTED = "quoted"
    JOURNALED = "journaled"
    LANDED = "landed"
    FAILED = "failed"
    RETRIED = "retried"
    RESTED = "rested"
    RESTARTED = "restarted"
    CANCEL_REQUESTED = "cancel_requested"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FINALIZED = "finalized"
    LANDING_LOST = "landing_lost"
    RETIRED = "retired"


class AttemptStatus(StrEnum):
    """Knowledge about one signed transaction. `UNKNOWN` is not final: a later check of the chain decides."""

    JOURNALED = "JOURNALED"
    SENT = "SENT"
    UNKNOWN = "UNKNOWN"
    LANDED_OK = "LANDED_OK"
    LANDED_ERR = "LANDED_ERR"
    EXPIRED_PROVEN = "EXPIRED_PROVEN"


class AttemptEvent(StrEnum):
    """Facts that a worker can learn about an attempt."""

    SENT = "sent"
    UNCLEAR = "unclear"
    LANDED_OK = "landed_ok"
    LANDED_ERR = "landed_err"
    EXPIRED = "expired"


class Token(msgspec.Struct, frozen=True):
    """A mint, and the number of its decimals; None if the number is not known."""

    mint: str
    decimals: int | None = None


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """A market rate of `out` base units per `per` base units in, and the side from which the market reaches it."""

    when: Literal["at_least", "at_most"]
    out: BaseUnits
    per: BaseUnits

    def is_met(self, out: int, per: int) -> bool:
        """Return whether a market that gives `out` for `per` has reached the rate.

        The comparison is exact, in integers.
        """
        seen, wanted = out * self.per, self.out * per
        return seen >= wanted if self.when == "at_least" else seen <= wanted


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """Observed state of the market for an order whose type has a state.

    `trigger` is the rate that releases the order (None: no rate does yet). A market that reaches `moves` changes the
    watch. `state` belongs to the order type: names with JSON values.
    """

    state: dict[str, Any]
    trigger: Trigger | None = None
    moves: Trigger | None = None


class OrderRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The order as the client placed it. Never changes.

    - `said_in` and `said_out`: the coins as the client named them (`SOL`).
    - `min_out`: the minimum output, if the client set one; otherwise the accepted quote sets it.
    - `trigger`: the rate that the market must reach before the order is executed.
    - `watch`: the first watch of an order whose type has a state.
    - `expires_in_ms`: set if the client gave the order's lifetime as a duration. In that case `expires_at_ms` is the
      time of acceptance plus that duration.
    """

    user_id: str
    said_in: str
    said_out: str
    token_in: Token
    token_out: Token
    amount: BaseUnits
    slippage_bps: Bps
    type: str = "market"
    trigger: Trigger | None = None
    min_out: BaseUnits | None = None
    priority: int = 5
    expires_at_ms: int | None = None
    mode: Mode = "mock"
    client_order_id: str | None = None
    expires_in_ms: int | None = None
    watch: Watch | msgspec.UnsetType = msgspec.UNSET


class Leg(msgspec.Struct, frozen=True, omit_defaults=True):
    """One pool that a swap goes through, its two mints, and the amounts that it takes and gives.

    Amounts are None where the venue does not say them.
    """

    pool: str
    mint_in: str
    mint_out: str
    amount_in: BaseUnits | None = None
    amount_out: BaseUnits | None = None


class Charge(msgspec.Struct, frozen=True):
    """Part of a swap that somebody is paid. `to` says who; `amount` is in base units of `mint`."""

    to: str
    mint: str
    amount: BaseUnits


class Quote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Offer of a venue. `amount_out` is the amount after the venue's fee of `fee_bps`.

    - `route`: the pools in the order of the swap, or the pools that share the amount. A quote stored by version 0.1.0
      has no route.
    - `slot`: the slot of the chain state from which the offer was computed, or None if the venue knows no slots.
    - `fees`: the parts of the fee. Not all venues give them.
    - `impact`: how much less arrives, apart from fees, than at the price before the swap. Not all venues give it.
    - `spot`: the output at the price before the swap, without fees. Not all venues give it.
    """

    venue: str
    amount_in: BaseUnits
    amount_out: BaseUnits
    fee_bps: Bps
    route: tuple[Leg, ...] = ()
    slot: int | None = None
    fees: tuple[Charge, ...] = ()
    impact: BaseUnits | None = None
    spot: BaseUnits | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """State of an order's execution. `left_out`: name of each venue that gave no quote → the reason.

    `watch` is the newest watch of an order whose type has a state. It is unset while the market has not changed the
    watch of the request.
    """

    failed_tries: int = 0
    venue: str | None = None
    quotes: tuple[Quote, ...] = ()
    left_out: dict[str, str] = {}
    min_out: BaseUnits | None = None
    amount_out: BaseUnits | None = None
    tx_hash: str | None = None
    error_reason: str | None = None
    fate: Fate | None = None
    finality: Finality | None = None
    triggered: bool = False
    watch: Watch | msgspec.UnsetType = msgspec.UNSET


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Order as the store keeps it.

    `seq` is the number of the newest event. `epoch` grows with every claim and is the fencing token.
    """

    id: str
    request: OrderRequest
    outcome: Outcome
    status: OrderStatus
    seq: int
    epoch: int
    cancel_requested: bool
    created_at_ms: int
    updated_at_ms: int

    @property
    def awaits_trigger(self) -> bool:
        """Whether the market must reach a rate before the order may be executed."""
        if self.outcome.triggered:
            return False
        return self.request.trigger is not None or self.request.watch is not msgspec.UNSET

    @property
    def watch(self) -> Watch | None:
        """The newest watch; None for an order whose type has no state."""
        watch = self.request.watch if self.outcome.watch is msgspec.UNSET else self.outcome.watch
        return None if watch is msgspec.UNSET else watch

    @property
    def trigger(self) -> Trigger | None:
        """The rate that releases the order, or has released it; None while no rate does."""
        return self.request.trigger if self.watch is None else self.watch.trigger


class Attempt(Signed, frozen=True, kw_only=True):
    """Signed transaction of an order.

    It is stored before the first send, and a resend sends exactly the stored bytes.
    """

    order_id: str
    number: int
    status: AttemptStatus
    quote: Quote
    min_out: BaseUnits


class OrderEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an order's log.

    `seq` counts from 1 without a gap. `data` is a JSON object of the changed values.
    """

    order_id: str
    user_id: str
    seq: int
    kind: EventKind
    status: OrderStatus
    at_ms: int
    data: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def rests(self) -> bool:
        """Return whether the order waits for its trigger after this event."""
        if self.kind not in _RESTING or len(self.data) <= len(b"{}"):
            return False
        return _resting.decode(self.data).resting


class _Resting(msgspec.Struct, frozen=True):
    resting: bool = False


_RESTING: Final = frozenset({EventKind.ACCEPTED, EventKind.RESTED})
_resting: Final = msgspec.json.Decoder(_Resting)


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """An order that a worker holds under `order.epoch`, with its newest attempt; None if nothing was signed yet."""

    order: Order
    attempt: Attempt | None


class Fill(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts that an executed order moved. A `lost` landing moved nothing.

    `position` is the place of the landing in the log of all orders.
    """

    position: int
    order_id: str
    mint_in: str
    mint_out: str
    amount_in: BaseUnits
    amount_out: BaseUnits
    at_ms: int
    finality: Finality = "confirmed"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change that a worker makes to an order, applied as a whole or not at all.

    - `outcome`: None leaves the outcome unchanged.
    - `attempt`: stored with the change. Without `learnt` it is a new attempt.
    - `learnt`: the event that changes `attempt`, which is then the attempt as known before.
    - `rest_ms`: the pause in ms after which the lease ends, and any worker may claim the order.
    """

    kind: EventKind
    outcome: Outcome | None = None
    attempt: Attempt | None = None
    learnt: AttemptEvent | None = None
    rest_ms: int | None = None


class LeaseLost(HeadraceError):  # noqa: N818  (a report that another worker has the order)
    """The worker no longer holds the order, or the order's status has changed. Stop; write nothing and send nothing."""


class OrderRefused(RequestError):  # noqa: N818
    """A refused request about an order.

    `reason` is the constant that programs read, and `status` is the HTTP status. `fields` maps a field's name to its
    fault. Nothing was executed unless `fate` says otherwise.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        fields: dict[str, str] | None = None,
        retry_after_ms: int | None = None,
        fate: Fate = "not_executed",
    ) -> None:
        self.status, self.reason, self.fields, self.fate = status, reason, fields or {}, fate
        code = 108 if status == 503 else 111 if status == 429 else 107
        super().__init__(code, message, temporary=retry_after_ms is not None, retry_after_ms=retry_after_ms)
