"""What a history is asked, and what it answers. Pure."""

from collections.abc import Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from headrace.model.trades import Side
from headrace.model.updates import Commitment, GapState, SlotStatus

T = TypeVar("T")

SLOT_BITS: Final = 24
SLOT_MAX: Final = 2 ** (63 - SLOT_BITS) - 1
"""The highest slot that a row's number has room for: at 200 ms a slot, some 3,000 years."""
ROW_MAX: Final = 2**63 - 1


class Extent(NamedTuple):
    """First and last slot of which anything is kept; None in an empty history."""

    first: int | None
    last: int | None


class Page(NamedTuple, Generic[T]):
    """Items, and the number behind which the page that follows goes on; None: nothing follows, now."""

    items: Sequence[T]
    next: int | None = None


class TradeQuery(NamedTuple):
    """Trades of a mint (as the base), program (name or id) and user, from `from_s` to `to_s`, the latter excluded.

    `before` is the `next` of the page before.
    """

    mint: str | None = None
    program: str | None = None
    user: str | None = None
    from_s: int | None = None
    to_s: int | None = None
    limit: int = 100
    before: int | None = None


class TokenQuery(NamedTuple):
    """Tokens by their mint or creator."""

    mint: str | None = None
    creator: str | None = None
    limit: int = 100
    before: int | None = None


class CandleQuery(NamedTuple):
    """Candles of `interval_s` of a mint against a quote, from `from_s` to `to_s`, the latter excluded.

    Without `from_s` the last `limit` candles before `to_s`, without `to_s` up to the newest trade. `after` is the
    `next` of the page before.
    """

    mint: str
    quote_mint: str
    interval_s: int
    from_s: int | None = None
    to_s: int | None = None
    limit: int = 500
    after: int | None = None


class GapQuery(NamedTuple):
    """Gaps that touch the slots from `from_slot` to `to_slot`, both included."""

    from_slot: int = 0
    to_slot: int = SLOT_MAX
    feed: str | None = None
    limit: int = 100
    before: int | None = None


class SlotQuery(NamedTuple):
    """Slots from `from_slot` to `to_slot`, both included."""

    from_slot: int = 0
    to_slot: int = SLOT_MAX
    limit: int = 100
    before: int | None = None


class StoredTrade(NamedTuple):
    """A trade; `commitment` is what is known now. Amounts in base units, `time_s` in Unix seconds."""

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
    """A token, by the event that made it."""

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
    """A gap of a feed; with `program` only meanings of that program are missing."""

    gap_id: str
    feed: str
    program: str | None
    from_slot: int
    to_slot: int
    state: GapState
    reason: str


class StoredSlot(NamedTuple):
    """A slot as far as is known. `reason` says why a dead one is dead."""

    slot: int
    status: SlotStatus
    parent: int | None
    reason: str | None


def first_row(slot: int) -> int:
    """Return the number of the first row of a slot: rows are numbered through all slots."""
    return slot << SLOT_BITS


def last_row(slot: int) -> int:
    """Return the number of the last row that a slot has room for."""
    return ((slot + 1) << SLOT_BITS) - 1


def slot_of(row: int) -> int:
    """Return the slot of a row."""
    return row >> SLOT_BITS
