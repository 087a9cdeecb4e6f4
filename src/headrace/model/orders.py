"""The nouns of the order flow: requests, outcomes, attempts, and the events of an order's log. Money is base units."""

from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias

import msgspec

from headrace.model.amounts import BaseUnits, Bps
from headrace.model.errors import HeadraceError, RequestError
from headrace.model.transactions import Signed

U64_MAX: Final = 2**64 - 1
BPS_WHOLE: Final = 10_000

Fate: TypeAlias = Literal["not_executed", "executed", "unknown"]
"""Whether an order that ended, or a request that went wrong, had an effect on the chain."""

Finality: TypeAlias = Literal["confirmed", "finalized", "lost"]
"""An executed order's landing: `confirmed` may still vanish with its fork, `finalized` can't, `lost` did vanish."""

Mode: TypeAlias = Literal["mock", "paper", "live"]


class OrderStatus(StrEnum):
    """The owner's view of an order. The last four are terminal."""

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
"""A worker holds such an order under a lease, or the order rests until its next try."""


class EventKind(StrEnum):
    """Events of an order; each is one line of the order's log."""

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
    """Knowledge about one set of signed bytes. `UNKNOWN` is not an end: a later look at the chain decides."""

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
    """A mint, and the number of decimals of its base units; None where the number is not known."""

    mint: str
    decimals: int | None = None


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """A rate of the market, `out` base units for `per` base units in, and the side from which the market reaches it."""

    when: Literal["at_least", "at_most"]
    out: BaseUnits
    per: BaseUnits

    def is_met(self, out: int, per: int) -> bool:
        """Return whether a market that gives `out` for `per` has reached the rate. Exact: integers only."""
        seen, wanted = out * self.per, self.out * per
        return seen >= wanted if self.when == "at_least" else seen <= wanted


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """State of the market that an order of a type with state waits for, as far as the market has been observed.

    `trigger` releases the order (None: no market does yet); a market that reaches `moves` changes the watch. `state` is
    the order type's own: JSON values under names.
    """

    state: dict[str, Any]
    trigger: Trigger | None = None
    moves: Trigger | None = None


class OrderRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The client's order; never changes. `said_in` and `said_out` are the tokens as the client named them (`SOL`).

    `min_out` is the least that may come out, where the client set one; else the accepted quote sets it. With a
    `trigger` the order rests until the market is there; with a `watch` too, which is the first one of a type with
    state. With `expires_in_ms` the client gave the order's time as a length, and `expires_at_ms` is the end of that
    time, counted from the acceptance.
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


class Leg(msgspec.Struct, frozen=True):
    """One pool that a swap goes through, and its two mints."""

    pool: str
    mint_in: str
    mint_out: str


class Quote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Offer of a venue: `amount_out` is what arrives after the venue's fee of `fee_bps`.

    `route` are the pools in the order of the swap, and `slot` is that of the state of the chain that the offer was
    computed from. A quote stored by version 0.1.0 has no route; None as `slot`: the venue knows no slots.
    """

    venue: str
    amount_in: BaseUnits
    amount_out: BaseUnits
    fee_bps: Bps
    route: tuple[Leg, ...] = ()
    slot: int | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The state of an order's execution. `left_out`: name of each venue that gave no quote → the reason.

    `watch` is the newest one of an order type with state; unset until the market has changed the request's.
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
    """Order as the store keeps it. `seq`: of the newest event; `epoch` grows with every claim (the fencing token)."""

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
        """Return whether the market must reach a rate before the order may be executed."""
        if self.outcome.triggered:
            return False
        return self.request.trigger is not None or self.request.watch is not msgspec.UNSET

    @property
    def watch(self) -> Watch | None:
        """The newest watch; None for an order of a type without state."""
        watch = self.request.watch if self.outcome.watch is msgspec.UNSET else self.outcome.watch
        return None if watch is msgspec.UNSET else watch

    @property
    def trigger(self) -> Trigger | None:
        """The rate that releases the order, or released it; None where no rate does (yet)."""
        return self.request.trigger if self.watch is None else self.watch.trigger


class Attempt(Signed, frozen=True, kw_only=True):
    """Signed transaction of an order. Stored before the first send; a resend sends the stored bytes and no others."""

    order_id: str
    number: int
    status: AttemptStatus
    quote: Quote
    min_out: BaseUnits


class OrderEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an order's log; `seq` counts from 1 without a hole. `data`: JSON object of what changed."""

    order_id: str
    user_id: str
    seq: int
    kind: EventKind
    status: OrderStatus
    at_ms: int
    data: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def rests(self) -> bool:
        """Return whether the order awaits its trigger from this event on."""
        if self.kind not in _RESTING or len(self.data) <= len(b"{}"):
            return False
        return _resting.decode(self.data).resting


class _Resting(msgspec.Struct, frozen=True):
    resting: bool = False


_RESTING: Final = frozenset({EventKind.ACCEPTED, EventKind.RESTED})
_resting: Final = msgspec.json.Decoder(_Resting)


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """An order that a worker holds under `order.epoch`, with the newest attempt; None: nothing was signed yet."""

    order: Order
    attempt: Attempt | None


class Fill(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts that an executed order moved: none if `lost`. `position`: of the landing in the log of all orders."""

    position: int
    order_id: str
    mint_in: str
    mint_out: str
    amount_in: BaseUnits
    amount_out: BaseUnits
    at_ms: int
    finality: Finality = "confirmed"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One step of an order that a worker takes: applied whole, or not at all.

    `outcome` None: as before. `attempt` is stored with the step: as a new one, or, with `learnt`, as known before and
    changed by that event. With `rest_ms` the lease ends then, and whoever claims the order goes on.
    """

    kind: EventKind
    outcome: Outcome | None = None
    attempt: Attempt | None = None
    learnt: AttemptEvent | None = None
    rest_ms: int | None = None


class LeaseLost(HeadraceError):  # noqa: N818  (a message: another worker has the order)
    """The worker does not hold the order any more, or the order has another status: stop, write and send nothing."""


class OrderRefused(RequestError):  # noqa: N818
    """The refusal of a verb. `reason`: the constant that programs read; `status`: HTTP's; `fields`: name → fault.

    Nothing was executed unless `fate` says otherwise.
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
