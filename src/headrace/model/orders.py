"""The nouns of the order flow: what was asked, what became of it, and each step on the way. Money is base units."""

from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias

import msgspec

from headrace.model.amounts import BaseUnits, Bps
from headrace.model.errors import HeadraceError, RequestError
from headrace.model.instructions import Signed

U64_MAX: Final = 2**64 - 1
BPS_WHOLE: Final = 10_000

Fate: TypeAlias = Literal["not_executed", "executed", "unknown"]
"""What can be said about the chain when something ended or went wrong."""

Finality: TypeAlias = Literal["confirmed", "finalized", "lost"]
"""Of an executed order: `confirmed` could still vanish with its fork, `finalized` can't, `lost` did."""

Mode: TypeAlias = Literal["mock", "paper", "live"]


class OrderStatus(StrEnum):
    """What the owner sees. The last four are terminal."""

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


class AttemptStatus(StrEnum):
    """What is known about one set of signed bytes. `UNKNOWN` is not an end: the chain will tell."""

    JOURNALED = "JOURNALED"
    SENT = "SENT"
    UNKNOWN = "UNKNOWN"
    LANDED_OK = "LANDED_OK"
    LANDED_ERR = "LANDED_ERR"
    EXPIRED_PROVEN = "EXPIRED_PROVEN"


class Token(msgspec.Struct, frozen=True):
    """A mint and how many decimals its base units have; None where nobody told."""

    mint: str
    decimals: int | None = None


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """What an order waits for: that the market's rate, `out` base units for `per` base units in, reaches this one."""

    when: Literal["at_least", "at_most"]
    out: BaseUnits
    per: BaseUnits

    def is_met(self, out: int, per: int) -> bool:
        """Whether a market that gives `out` for `per` is there. Exact: integers only."""
        seen, wanted = out * self.per, self.out * per
        return seen >= wanted if self.when == "at_least" else seen <= wanted


class OrderRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked; never changes. `said_in` and `said_out` are the tokens as the client named them (`SOL`).

    `min_out` is the least that may come out, where the client set one itself; else the accepted quote sets it. With a
    `trigger` the order rests until the market is there. With `expires_in_ms` the client gave its time as a length, and
    `expires_at_ms` is where that ended when the order was taken.
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
    """What became of an order so far. `left_out` names the venues that gave no quote, and why."""

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


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One order as stored. `seq` is that of its newest event; `epoch` grows with every claim (a fencing token)."""

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
        """It must not be executed yet."""
        return self.request.trigger is not None and not self.outcome.triggered


class Attempt(Signed, frozen=True, kw_only=True):
    """Signed transaction of an order. It is stored before the first send, and only the stored bytes are sent again."""

    order_id: str
    number: int
    status: AttemptStatus
    quote: Quote
    min_out: BaseUnits


class OrderEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an order's log; `seq` counts from 1 without a hole. `data` is a JSON object of what changed."""

    order_id: str
    user_id: str
    seq: int
    kind: str
    status: OrderStatus
    at_ms: int
    data: msgspec.Raw = msgspec.Raw(b"{}")


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """An order that this worker holds under `order.epoch`, with its newest attempt if it ever had one."""

    order: Order
    attempt: Attempt | None


class Fill(msgspec.Struct, frozen=True, kw_only=True):
    """What an executed order moved. `position` is its place in the log of all orders; what was `lost` moved nothing."""

    position: int
    order_id: str
    mint_in: str
    mint_out: str
    amount_in: BaseUnits
    amount_out: BaseUnits
    at_ms: int
    finality: Finality = "confirmed"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One step of an order: applied whole or not at all, and only if the order is in one of `leaves`.

    `attempt` is stored with it, and is moved only from one of `attempt_leaves` if it was there before. `rest_ms`: the
    lease ends then, and whoever claims it goes on. `data` goes into the event.
    """

    kind: str
    leaves: tuple[OrderStatus, ...]
    to: OrderStatus
    outcome: Outcome
    attempt: Attempt | None = None
    attempt_leaves: tuple[AttemptStatus, ...] = ()
    rest_ms: int | None = None
    data: dict[str, Any] = {}


class LeaseLost(HeadraceError):  # noqa: N818  (a message: someone else works on it now)
    """The order is no longer this worker's, or no longer where it was: stop, write nothing, send nothing."""


class OrderRefused(RequestError):  # noqa: N818
    """An order verb that can't be done. `reason` is the constant that programs read, `status` that of HTTP.

    `fields` says what is wrong where. Nothing was executed unless `fate` says so.
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
