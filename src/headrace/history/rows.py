"""Queries to a history, and the rows of its answers. Pure."""

from collections.abc import Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from headrace.model.trades import Side
from headrace.model.updates import Commitment, GapState, SlotStatus

T = TypeVar("T")

SLOT_BITS: Final = 24
SLOT_MAX: Final = 2 ** (63 - SLOT_BITS) - 1
"""Highest slot for which a row number has room: about 3,000 years at 200 ms a slot."""
ROW_MAX: Final = 2**63 - 1


class Extent(NamedTuple):
    """First and last slot of a history; None if the history is empty."""

    first: int | None
    last: int | None


class Page(NamedTuple, Generic[T]):
    """Items of one page, and the number with which the next page is queried; None if no more items follow now."""

    items: Sequence[T]
    next: int | None = None


class TradeQuery(NamedTuple):
    """Query for trades with this base mint, program (name or id) and user, from `from_s` until before `to_s`.

    `before` is the `next` of the previous page.
    """

    mint: str | None = None
    program: str | None = None
    user: str | None = None
    from_s: int | None = None
    to_s: int | None = None
    limit: int = 100
    before: int | None = None


class TokenQuery(NamedTuple):
    """Query for tokens by mint or creator. `before` is the `next` of the previous page."""

    mint: str | None = None
    creator: str | None = None
    limit: int = 100
    before: int | None = None


class CandleQuery(NamedTuple):
    """Query for candles of a mint against a quote mint, from `from_s` until before `to_s`.

    Without `from_s` the candles are the last `limit` before `to_s`. Without `to_s` they go up to the newest trade.
    `after` is the `next` of the previous page.
    """

    mint: str
    quote_mint: str
    interval_s: int
    from_s: int | None = None
    to_s: int | None = None
    limit: int = 500
    after: int | None = None


class GapQuery(NamedTuple):
    """Query for gaps that overlap the slots from `from_slot` to `to_slot`, both included."""

    from_slot: int = 0
    to_slot: int = SLOT_MAX
    feed: str | None = None
    limit: int = 100
    before: int | None = None


class SlotQuery(NamedTuple):
    """Query for slots from `from_slot` to `to_slot`, both included."""

    from_slot: int = 0
    to_slot: int = SLOT_MAX
    limit: int = 100
    before: int | None = None


class StoredTrade(NamedTuple):
    """Trade with its present `commitment`. Amounts are in base units, `time_s` is in Unix seconds."""

    slot: int
    event_id: str
    signature: str
    time_s: int
    program: str
    program_id: str
    side: Side
    mint: str | None
    quote_mint: str | None
    base_amount: int
    quote_amount: int
    user: str | None
    pool: str | None
    authority: str | None
    commitment: Commitment


class StoredToken(NamedTuple):
    """Token as the event of its creation describes it, with its present `commitment`."""

    slot: int
    event_id: str
    signature: str
    program: str
    mint: str
    name: str
    symbol: str
    creator: str
    commitment: Commitment


class StoredGap(NamedTuple):
    """Gap of a feed. If `program` is set, only the meanings of that program's events may be missing."""

    gap_id: str
    feed: str
    program: str | None
    from_slot: int
    to_slot: int
    state: GapState
    reason: str


class StoredSlot(NamedTuple):
    """Slot with its newest known status. `reason` says why a dead slot is dead."""

    slot: int
    status: SlotStatus
    parent: int | None
    reason: str | None


def first_row(slot: int) -> int:
    """Return the first row number of a slot. A row number is the slot, followed by SLOT_BITS bits for the row in it."""
    return slot << SLOT_BITS


def last_row(slot: int) -> int:
    """Return the last row number of a slot."""
    return ((slot + 1) << SLOT_BITS) - 1


def slot_of(row: int) -> int:
    """Return the slot of a row."""
    return row >> SLOT_BITS
